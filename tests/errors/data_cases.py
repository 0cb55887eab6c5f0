"""Files, rows and options that data cannot be made of: see `cases.py`."""

import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from regard.data.files import read_lines
from regard.data.rows import read_pairs
from regard.data.sampler import BatchSampler
from regard.data.store import Column, RecordStore
from regard.data.tokenizer import RESERVED, Tokenizer
from regard.data.word_tokenizer import WordTokenizer
from regard.errors import CheckpointError, ConfigError, DataError
from regard.tasks.text_pairs import prepare_pairs

PAIRS = b"one\tuno\ntwo\tdue\n"
OBJECT = b'{"source": "one", "target": "uno"}\n'
NO_PYARROW = {"pyarrow": None}


def among(files: dict[str, bytes], call: Callable[[Path], object]) -> Callable[[], object]:
    """Call with a folder that holds these files."""

    def run() -> object:
        with tempfile.TemporaryDirectory() as name:
            for file, content in files.items():
                path = Path(name, file)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            return call(Path(name))

    return run


def reading(files: dict[str, bytes], **options: object) -> Callable[[], object]:
    """Read pairs from the first of these files."""
    return among(files, lambda folder: list(read_pairs(folder / next(iter(files)), **options)))


def without(packages: dict[str, None], call: Callable[[], object]) -> Callable[[], object]:
    """Call as if the packages were not installed."""

    def run() -> object:
        with mock.patch.dict(sys.modules, packages):
            return call()

    return run


def preparing(content: bytes, **options: object) -> Callable[[], object]:
    """Prepare a file, in a folder where `other` is not made by `prepare`."""
    files = {"x.tsv": content, "other/thesis.tex": b"precious"}
    return among(
        files, lambda folder: prepare_pairs([str(folder / "x.tsv")], folder / "data", **{"vocab_size": 300, **options})
    )


def into_another_folder(folder: Path) -> object:
    return prepare_pairs([str(folder / "x.tsv")], folder / "other")


def into_a_file(folder: Path) -> object:
    return prepare_pairs([str(folder / "x.tsv")], folder / "x.tsv" / "data")


def changed_meanwhile(folder: Path) -> object:
    path = folder / "x.tsv"

    def touch(doing: str, rows: int) -> None:
        os.utime(path, ns=(1, 1))

    return prepare_pairs([str(path)], folder / "data", vocab_size=300, progress=touch)


def closed_standard_input() -> object:
    with mock.patch.object(sys, "stdin", None):
        return list(read_lines("-"))


def a_list_as_standard_input() -> object:
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[" + OBJECT + b"]"))):
        return list(read_pairs("-"))


def stored(change: Callable[[Path], object]) -> Callable[[], object]:
    """Open a store after a change to its folder."""

    def run(folder: Path) -> object:
        RecordStore.write(folder / "train", {"ids": Column()}, [([1, 2],)])
        change(folder / "train")
        return RecordStore(folder / "train")

    return among({}, run)


def oversized() -> object:
    return BatchSampler(2, lambda rows: rows + 9, budget=9, seed=0).pool(0, 0)


def no_columns(folder: Path) -> object:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"en": ["one"], "it": ["uno"]}), folder / "x.parquet")
    return list(read_pairs(folder / "x.parquet", fields=("en", "itt")))


def no_rows(folder: Path) -> object:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"source": [], "target": []}), folder / "x.parquet")
    return list(read_pairs(folder / "x.parquet"))


def loading(model: object) -> Callable[[], object]:
    content = json.dumps({"model": model}).encode()
    return among({"tokenizer.json": content}, lambda folder: Tokenizer.load(folder / "tokenizer.json"))


def words(content: bytes) -> Callable[[], object]:
    """Load a vocabulary of words."""
    return among({"words.json": content}, lambda folder: WordTokenizer.load(folder / "words.json"))


FILES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("file-empty", reading({"x.tsv": b""}), DataError, "x.tsv is empty; expected a row a line"),
    (
        "file-cut-off",
        reading({"x.tsv.gz": gzip.compress(PAIRS)[:-3]}),
        DataError,
        "x.tsv.gz cannot be read beyond line 2: Compressed file ended",
    ),
    (
        "file-utf16",
        reading({"x.tsv": PAIRS.decode().encode("utf-16")}),
        DataError,
        "x.tsv is in UTF-16; expected UTF-8",
    ),
    (
        "file-missing",
        among({"train.tsv": PAIRS}, lambda folder: read_pairs(folder / "trein.tsv")),
        DataError,
        "trein.tsv'; did you mean 'train.tsv'?",
    ),
    (
        "file-folder-missing",
        lambda: read_pairs("no/such.tsv"),
        DataError,
        "there is no file 'no/such.tsv': its folder 'no' is missing",
    ),
    (
        "file-name-long",
        lambda: read_pairs("the text " * 500),
        DataError,
        "'the text the text the text the text the text the text the text the text the text…' cannot be read: [Errno",
    ),
    (
        "file-directory",
        among({"x.tsv": PAIRS}, read_pairs),
        DataError,
        "is a directory; expected a file. It holds x.tsv",
    ),
    ("stdin-closed", closed_standard_input, DataError, "standard input is closed; give a file"),
    (
        "zstd-no-package",
        without(NO_PYARROW, reading({"x.tsv": b"\x28\xb5\x2f\xfd"})),
        ConfigError,
        "x.tsv is packed with zstd: pip install regard[data]",
    ),
    (
        "parquet-no-package",
        without(NO_PYARROW, reading({"x.parquet": b"PAR1"})),
        ConfigError,
        "x.parquet is Parquet: pip install regard[data]",
    ),
    ("parquet-damaged", reading({"x.parquet": b"PAR1"}), DataError, "x.parquet cannot be read as Parquet: "),
    (
        "parquet-no-column",
        among({}, no_columns),
        DataError,
        "x.parquet has no field 'itt'; did you mean 'it'? Known: en",
    ),
    ("parquet-no-rows", among({}, no_rows), DataError, "x.parquet has no rows; expected source and target in each"),
    (
        "datasets-no-package",
        without({"datasets": None}, lambda: list(read_pairs("datasets:opus"))),
        ConfigError,
        "datasets:opus is a data set: pip install regard[data]",
    ),
    (
        "datasets-missing",
        among({"en.txt": b""}, lambda folder: list(read_pairs(f"datasets:{folder}/none:train"))),
        DataError,
        "/none:train cannot be loaded: ",
    ),
    (
        "parallel-short",
        among(
            {"en.txt": b"one\ntwo\n", "it.txt": b"uno\n"},
            lambda folder: list(read_pairs([], parallel=(f"{folder}/en.txt", f"{folder}/it.txt"))),
        ),
        DataError,
        "it.txt ends before line 2, but",
    ),
]

ROWS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "row-bad",
        reading({"x.tsv": b"one\tuno\ntwo due\n"}),
        DataError,
        "x.tsv:2: wrong number of columns: 1, expected 2, with tabs between: 'two due'. Fix the row, or skip such",
    ),
    ("reader-no-files", lambda: read_pairs([]), ConfigError, 'no files to read; give paths, "-" for'),
    ("reader-format", lambda: read_pairs("-", format="parket"), ConfigError, "'parket'; did you mean 'parquet'?"),
    ("reader-columns", lambda: read_pairs("-", columns=(0, 1)), ConfigError, "columns=(0, 1) must be a number"),
    ("reader-fields", lambda: read_pairs("-", fields=("en",)), ConfigError, "fields=('en',) must be two names"),
    ("reader-twice", lambda: read_pairs(["-", "-"]), ConfigError, "'-' is given more than once"),
    (
        "reader-no-format",
        reading({"pairs.dat": PAIRS}),
        ConfigError,
        "pairs.dat' does not show its format; give format, or --format: tsv, csv, jsonl, json, parquet",
    ),
    ("reader-spreadsheet", reading({"x.xlsx": b"PK"}), ConfigError, "x.xlsx is a spreadsheet (xlsx); save it as CSV"),
    ("reader-delimiter", lambda: read_pairs("-", delimiter="::"), ConfigError, "delimiter='::' must be one character"),
    (
        "reader-delimiter-json",
        reading({"x.jsonl": OBJECT}, delimiter=";"),
        ConfigError,
        "delimiter=';' is of CSV, and",
    ),
    ("reader-no-name", lambda: read_pairs("-", fields=("en", "")), ConfigError, "fields=('en', '') must be a name for"),
    (
        "reader-parallel",
        among({"a": b"one\n"}, lambda folder: read_pairs([], parallel=(f"{folder}/a",))),
        ConfigError,
        "must be a file for each of source, target",
    ),
    (
        "reader-look-parallel",
        among({"a.en": b"one\n", "a.it": b"uno\n"}, lambda folder: read_pairs([f"{folder}/a.en", f"{folder}/a.it"])),
        ConfigError,
        "a.it look parallel: one text a line in each; say --parallel",
    ),
    (
        "csv-no-delimiter",
        reading({"x.csv": b"one\ntwo\n"}),
        DataError,
        "x.csv has none of ',' ';' tab '|' that gives its first rows as many columns",
    ),
    (
        "csv-two-delimiters",
        reading({"x.csv": b"a,b;c\n"}),
        DataError,
        "x.csv can be read with each of ',' ';' between columns; say which",
    ),
    (
        "csv-no-column",
        reading({"x.csv": b"english,italian\na,b\n"}, fields=("en", "it")),
        DataError,
        "x.csv has no column 'en'; its first row is 'english', 'italian'",
    ),
    (
        "json-cut-off",
        reading({"x.json": b'[{"source": "a", "target": "b"}, {"so'}),
        DataError,
        "x.json cannot be read as JSON beyond item 1: Unterminated string",
    ),
    ("json-bytes", reading({"x.json": b'["\xff"]'}), DataError, "x.json cannot be read as JSON beyond item 0: 'utf-8'"),
    ("json-two-lists", reading({"x.json": b"[" + OBJECT + b"] []"}), DataError, "beyond item 1: more follows the list"),
    ("json-no-end", reading({"x.json": b"[" + OBJECT}), DataError, "beyond item 1: the list does not end"),
    ("json-utf16", reading({"x.json": "[]".encode("utf-16")}), DataError, "x.json is in UTF-16; expected UTF-8"),
    ("json-list-in-a-stream", a_list_as_standard_input, ConfigError, "begins as a JSON list; say format='json'"),
]

PREPARED: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("prepare-held-out", preparing(PAIRS, held_out=0), ConfigError, "held_out=0 must be at least 1"),
    ("prepare-max-tokens", preparing(PAIRS, max_tokens=-1), ConfigError, "max_tokens=-1 must be at least 1"),
    (
        "prepare-no-row",
        preparing(b"one\n\xff\tx\n", skip_bad_rows=True),
        DataError,
        "x.tsv: no usable row; skipped: {'wrong number of columns': 1, 'not UTF-8': 1}",
    ),
    ("prepare-one-source", preparing(b"one\tuno\none\tun\n"), DataError, "x.tsv: 2 rows of one source, so that none"),
    (
        "prepare-all-long",
        preparing(b"one two\tx\ntwo one\tx\n", max_tokens=1),
        DataError,
        "no row is left to train on; left out: {'longer than max_tokens': 2}",
    ),
    ("prepare-changed", among({"x.tsv": PAIRS}, changed_meanwhile), DataError, "x.tsv: changed while being read"),
    (
        "prepare-no-folder",
        among({"x.tsv": PAIRS}, into_a_file),
        DataError,
        "the prepared rows cannot be written: [Errno",
    ),
    (
        "prepare-other-folder",
        among({"x.tsv": PAIRS, "other/thesis.tex": b""}, into_another_folder),
        ConfigError,
        "other is not empty and has no prepared.json, so it is not replaced; choose another folder",
    ),
    (
        "store-none",
        among({}, lambda folder: RecordStore(folder / "x")),
        DataError,
        "x is not a complete record store ([Errno 2] No such file or directory: '",
    ),
    (
        "store-format",
        stored(lambda folder: (folder / "store.json").write_text('{"format": 9, "rows": 1, "ids": 3}')),
        DataError,
        "is of format 9; this version reads 2; prepare the data again",
    ),
    (
        "store-missing",
        stored(lambda folder: (folder / "ids.data").unlink()),
        DataError,
        "ids.data cannot be read (No such",
    ),
    (
        "store-short",
        stored(lambda folder: (folder / "ids.data").write_bytes(bytes(4))),
        DataError,
        "ids.data has 4 bytes; expected 8; prepare the data again",
    ),
    (
        "batch-no-rows",
        lambda: BatchSampler(0, lambda rows: rows, budget=9, seed=0),
        ConfigError,
        "count=0: no rows to draw batches from; expected at least one",
    ),
    (
        "batch-tokens",
        oversized,
        ConfigError,
        "a row has 10 tokens with its end token, and a batch at most 9; raise batch_tokens, or lower max_tokens",
    ),
]

TOKENIZERS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "vocab-small",
        lambda: Tokenizer.train(["x"], vocab_size=259),
        ConfigError,
        "vocab_size=259 must be above 259, the",
    ),
    ("encode-number", lambda: Tokenizer.train([]).encode(7), DataError, "7 is not text that can be encoded in UTF-8"),
    ("encode-half", lambda: Tokenizer.train([]).encode("a\ud800"), DataError, r"'a\ud800' is not text that can be"),
    (
        "tokenizer-missing",
        lambda: Tokenizer.load("no/tokenizer.json"),
        CheckpointError,
        "no/tokenizer.json: no tokenizer can be read (No such file",
    ),
    (
        "tokenizer-damaged",
        loading([]),
        CheckpointError,
        "tokenizer.json is damaged, or not a tokenizer of regard: Type",
    ),
    (
        "tokenizer-foreign",
        loading({"vocab": {"<unk>": 0, "a": 1}, "merges": []}),
        CheckpointError,
        "not a tokenizer of regard: the first pieces are ['<unk>', 'a']; expected ['<pad>', '<s>'",
    ),
    (
        "tokenizer-merges",
        loading({"vocab": {piece: i for i, piece in enumerate(RESERVED)}, "merges": [["a", "b"]]}),
        CheckpointError,
        "not a tokenizer of regard: pieces and merges differ in ['ab']",
    ),
    (
        "words-missing",
        lambda: WordTokenizer.load("no/tokenizer.json"),
        CheckpointError,
        "no/tokenizer.json cannot be read as a vocabulary of words: [Errno 2] No such file",
    ),
    (
        "words-cut-off",
        words(b'{"words": ["a"'),
        CheckpointError,
        "cannot be read as a vocabulary of words: Expecting ','",
    ),
    ("words-none", words(b'["a"]'), CheckpointError, 'words.json is no vocabulary of words: "words" is None; expected'),
    ("words-number", words(b'{"words": ["a", 7]}'), CheckpointError, '"words" has 7; expected texts'),
    (
        "words-ids",
        lambda: WordTokenizer(["a", "b"]).decode([4, 5, 6, 7], others=["c"]),
        DataError,
        "ids [7] are beyond the 6 words and 1 of the source",
    ),
]

CASES = FILES + ROWS + PREPARED + TOKENIZERS
