"""`regard train`: its options are the fields of TrainOptions, from flags, dotted flags and files."""

import json
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from regard.cli.options import take_dotted
from regard.train.options import TrainOptions
from tests.cli.run import error, regard


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """The runs that would have been."""
    runs: list[TrainOptions] = []
    monkeypatch.setitem(sys.modules, "regard.train.run", SimpleNamespace(train=runs.append))
    return runs


def options(trained: list[TrainOptions], *words: str) -> TrainOptions:
    result = regard("train", *words)
    assert result.exit_code == 0, result.stderr
    return trained.pop()


def test_nothing_said_is_every_default(trained: list[TrainOptions]) -> None:
    assert options(trained, "a.tsv", "b.tsv") == TrainOptions(files=("a.tsv", "b.tsv"))


def test_flags_of_each_kind(trained: list[TrainOptions]) -> None:
    words = (
        "--parallel a.en a.it --from runs/a --out runs/b --skip-bad-rows --steps 30 --learning-rate 2e-4 --model rnn"
    )
    assert options(trained, *words.split()) == TrainOptions(
        parallel=("a.en", "a.it"),
        start="runs/a",
        out="runs/b",
        skip_bad_rows=True,
        steps=30,
        learning_rate=2e-4,
        model="rnn",
    )


def test_help_has_every_field_under_its_heading() -> None:
    text = regard("train", "--help").stdout
    for field in fields(TrainOptions):
        assert " ".join(field.metadata["help"].split()[:3]) in " ".join(text.split()), field.name
    for heading in ("Arguments", "Run", "Data", "Model", "Length", "Optimization", "Machine", "Nested options"):
        assert f"\n{heading}:\n" in text
    assert "[default: 2048]" in text


def test_nested_options(trained: list[TrainOptions]) -> None:
    words = "a --attention.normalizer entmax --attention.normalizer.alpha 1.5 --attention.pattern=causal"
    found = options(trained, *words.split(), "--model.embed_dim", "64", "--model.norm", "pre", "--model", "transformer")
    assert found.attention == {"normalizer": {"kind": "entmax", "alpha": 1.5}, "pattern": "causal"}
    assert found.model_settings == {"embed_dim": 64, "norm": "pre"}
    assert found.model == "transformer"


def test_a_file_says_the_same(trained: list[TrainOptions], tmp_path: Path) -> None:
    toml, js = tmp_path / "run.toml", tmp_path / "run.json"
    toml.write_text(
        'files = ["a.tsv"]\nlearning-rate = 0.002\nsteps = 7\nskip_bad_rows = true\nfrom = "runs/a"\n'
        '[model]\nname = "rnn"\nembed_dim = 64\n[attention]\nnormalizer = { kind = "entmax", alpha = 1.5 }\n'
    )
    plain = {"files": ["a.tsv"], "learning-rate": 0.002, "steps": 7, "skip_bad_rows": True, "from": "runs/a"}
    nested = {"name": "rnn", "embed_dim": 64}, {"normalizer": {"kind": "entmax", "alpha": 1.5}}
    js.write_text(json.dumps({**plain, "model": nested[0], "attention": nested[1]}))
    expected = TrainOptions(
        files=("a.tsv",),
        learning_rate=0.002,
        steps=7,
        skip_bad_rows=True,
        start="runs/a",
        model="rnn",
        model_settings={"embed_dim": 64},
        attention=nested[1],
    )
    assert options(trained, "--config", str(toml)) == options(trained, f"--config={js}") == expected


def test_the_command_line_goes_before_the_file(trained: list[TrainOptions], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    attention = {"normalizer": {"kind": "entmax", "alpha": 1.5}, "score": "dot"}
    path.write_text(json.dumps({"files": ["a"], "steps": 7, "model": "rnn", "attention": attention}))
    found = options(trained, "b", "--config", str(path), "--steps", "9", "--attention.normalizer.alpha", "1.25")
    assert (found.files, found.steps, found.model) == (("b",), 9, "rnn")
    assert found.attention == {"normalizer": {"kind": "entmax", "alpha": 1.25}, "score": "dot"}
    found = options(
        trained, "--config", str(path), "--attention.normalizer", "sparsemax", "--attention.score.scale", "3"
    )
    assert found.attention == {"normalizer": "sparsemax", "score": {"kind": "dot", "scale": 3}}


def test_values_are_json_or_text() -> None:
    words = ("--model.a", "true", "--model.b=[1, 2]", "--model.c", "1.5.2", "--model.d", "", "--model.e", "[" * 10**5)
    rest, said = take_dotted(click.Context(click.Command("x")), ["a", *words, "-b", "--", "--model.f"], ["model"])
    assert said == {"model": {"a": True, "b": [1, 2], "c": "1.5.2", "d": "", "e": "[" * 10**5}}
    assert rest == ["a", "-b", "--", "--model.f"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give files of records, or --parallel SOURCES TARGETS"),
        ("a --stesp 3", "unknown option --stesp; did you mean --steps?"),
        ("a --steps 3 --steps 4", "--steps is given 2 times"),
        ("a --steps many", "Invalid value for '--steps': 'many' is not a valid integer"),
        ("a --parallel x", "Option '--parallel' requires 2 arguments"),
        ("a --atention.score dot", "unknown option --atention.score; did you mean --attention.score?"),
        ("a --attention.score", "--attention.score must be --attention.NAME VALUE or --attention.NAME.SETTING VALUE"),
        ("a --attention. dot", "--attention. must be"),
        ("a --attention.a.b.c dot", "--attention.a.b.c must be"),
        ("a --attention.score dot --attention.score cosine", "--attention.score is given 2 times"),
        ("a --config no.toml --config no.toml", "--config is given 2 times"),
    ],
)
def test_wrong_use(words: str, message: str) -> None:
    assert error("train", *words.split()).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a --steps 0", "steps=0 must be above 0"),
        ("a --steps 3 --minutes 4", "minutes=4.0 and steps=3: give one of them"),
        ("a --schedule cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("a --model transformr", "unknown model 'transformr'; did you mean 'transformer'?"),
        ("a --model.embed 3", "transformer has no field 'embed'; did you mean 'embed_dim'?"),
        ("a --attention.normaliser entmax", "attention has no part 'normaliser'; did you mean 'normalizer'?"),
        ("a --attention.normalizer entmx", "unknown kind 'entmx'; did you mean 'entmax'?"),
        (
            "a --attention.normalizer entmax --attention.normalizer.alpa 2",
            "has no setting 'alpa'; did you mean 'alpha'?",
        ),
        ("a --config no.toml", "no.toml: No such file or directory"),
    ],
)
def test_wrong_values(words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error("train", *words.split(), code=1)
    assert list(tmp_path.iterdir()) == []  # nothing was begun
