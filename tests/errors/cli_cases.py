"""Command lines and files of options that cannot be: see `cases.py`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner

from regard.cli.info import last_metrics
from regard.cli.main import main
from regard.errors import CheckpointError, ConfigError, DataError
from tests.cli.run import model_folder


def run(*words: str) -> Callable[[], object]:
    """The verb as the command runs it, before its errors are made into messages."""

    def call() -> object:
        with main.make_context("regard", list(words)) as context:
            return main.invoke(context)

    return call


def config(content: str, name: str = "run.json") -> Callable[[], object]:
    """Train with a file of options."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(content)
            return run("train", "a.tsv", "--config", str(path))()

    return call


def translate(stdin: bytes) -> Callable[[], object]:
    """Lines of standard input."""
    from regard.cli.shared import read_texts

    def call() -> object:
        with CliRunner().isolation(stdin):
            return list(read_texts())

    return call


def lines(content: bytes) -> Callable[[], object]:
    """Lines of a file."""
    from regard.cli.texts import file_texts

    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "notes.txt")
            path.write_bytes(content)
            return list(file_texts(str(path)))

    return call


def text_that_is_a_file() -> object:
    with tempfile.NamedTemporaryFile(suffix="notes.txt") as file:
        return run("translate", file.name)()


def metrics() -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        path.write_text("{}\nloss 3\n")
        return last_metrics(path)


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("cli-verb", run("evaluat_"), click.UsageError, "unknown verb 'evaluat_'; did you mean 'evaluate'?"),
    ("cli-option-twice", run("info", "--json", "--json"), click.UsageError, "--json is given 2 times"),
    ("cli-option-dotted", run("train", "--modl.size", "3"), click.NoSuchOption, "No such option '--modl.size'."),
    ("cli-option-no-name", run("train", "--model.", "3"), click.UsageError, "--model. must be --model.NAME VALUE"),
    (
        "cli-setting-twice",
        run("train", "--model.a", "3", "--model.a=3"),
        click.UsageError,
        "--model.a is given 2 times",
    ),
    (
        "cli-searches",
        run("translate", "--greedy", "--sample"),
        click.UsageError,
        "--greedy and --sample exclude each",
    ),
    (
        "cli-search-detail",
        run("translate", "--seed", "1"),
        click.UsageError,
        "--seed needs --sample; this is beam search",
    ),
    (
        "cli-n-best-aligned",
        run("translate", "--n-best=2", "--alignment"),
        click.UsageError,
        "--n-best and --alignment ex",
    ),
    ("cli-train-nothing", run("train"), click.UsageError, "give files of records, or --parallel SOURCES TARGETS"),
    ("cli-train-model", run("train", "a", "--model", "rn"), ConfigError, "unknown model 'rn'; did you mean 'rnn'?"),
    ("cli-evaluate-nothing", run("evaluate"), click.UsageError, "give files of records, or --parallel SOURCES TARGETS"),
    (
        "cli-evaluate-field",
        lambda: run("evaluate", "a.tsv", "--model", str(model_folder()), "--field", "source")(),
        click.UsageError,
        "--field source: expected PART=FIELD, such as source=en",
    ),
    ("cli-see-name", run("see", "x", "--svg", "a.pdf"), click.UsageError, "--svg a.pdf: the name must end in .svg"),
    (
        "cli-config-suffix",
        config("{}", "run.yaml"),
        ConfigError,
        "run.yaml ends in '.yaml'; expected a configuration file that ends in .json or .toml",
    ),
    ("cli-config-damaged", config("{"), DataError, "run.json is not JSON: Expecting property name"),
    ("cli-config-toml", config("a = ", "run.toml"), DataError, "run.toml is not TOML: Invalid value"),
    ("cli-config-list", config("[]"), DataError, "run.json holds a list; expected an object of options by name"),
    ("cli-config-option", config('{"stesp": 3}'), ConfigError, "unknown option 'stesp'; did you mean 'steps'?"),
    ("cli-config-number", config('{"steps": 3.5}'), ConfigError, "run.json: steps: '3.5' is not a valid integer"),
    ("cli-config-truth", config('{"steps": true}'), ConfigError, "steps=True; expected a number"),
    ("cli-config-flag", config('{"skip-bad-rows": 1}'), ConfigError, "skip-bad-rows=1; expected true or false"),
    (
        "cli-config-table",
        config('{"attention": "entmax"}'),
        ConfigError,
        "attention='entmax'; expected a table of sett",
    ),
    ("cli-config-pair", config('{"parallel": ["a"]}'), ConfigError, "parallel=['a']; expected a list of 2 texts"),
    ("cli-stdin-encoding", translate(b"a\nb\xff\n"), DataError, "standard input:2: not UTF-8 at byte 2: 'b"),
    (
        "cli-stdin-length",
        translate(b"x" * 2**21),
        DataError,
        "standard input:1: the line is longer than 1,048,576 bytes",
    ),
    ("cli-file-encoding", lines(b"a\nb\xff\n"), DataError, "notes.txt:2: not UTF-8 at byte 2: 'b"),
    ("cli-file-length", lines(b"x" * 2**21), DataError, "notes.txt:1: the line is longer than 1,048,576 bytes"),
    ("cli-file-and-text", run("embed", "a", "--file", "b"), click.UsageError, "a text and --file exclude each other"),
    (
        "cli-file-as-text",
        text_that_is_a_file,
        click.UsageError,
        "notes.txt is a file; to read the file: regard translate --f",
    ),
    ("cli-metrics", metrics, CheckpointError, "metrics.jsonl:2 is not JSON"),
]
