"""From files to what training reads: everything is somewhere, nothing twice, and nothing is done twice."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from regard.data.rows import read_pairs
from regard.data.store import RecordStore
from regard.data.tokenizer import Tokenizer
from regard.errors import DataError
from regard.tasks.text_pairs import prepare_pairs
from tests.data.made import made_pairs, write_tsv


def decoded(store: RecordStore, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    rows = [store.row(row) for row in range(len(store))]
    return [(tokenizer.decode(source.tolist()), tokenizer.decode(target.tolist())) for source, target in rows]


def test_every_row_is_on_one_side(tmp_path: Path) -> None:
    pairs = made_pairs(1000)
    pairs += [(source.upper(), target + " bis") for source, target in pairs[:300]]
    made = prepare_pairs([write_tsv(tmp_path / "x.tsv", pairs)], tmp_path / "data", vocab_size=400, held_out=50)
    train, valid = decoded(made.train, made.processor), decoded(made.valid, made.processor)
    assert sorted(train + valid) == sorted(pairs)
    assert 40 <= len(valid) <= 50
    assert not {source.lower() for source, _ in train} & {source.lower() for source, _ in valid}
    assert [(pair.source, pair.target) for pair in made.valid_records] == valid
    assert made.counts == {
        "read": 1300, "train": len(train), "valid": len(valid), "left_out": {}, "skipped": {},
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.tsv"]


def test_at_most_one_row_in_twenty_is_held_out(tmp_path: Path) -> None:
    made = prepare_pairs([write_tsv(tmp_path / "x.tsv", made_pairs(200))], tmp_path / "data", vocab_size=300)
    assert (len(made.train), len(made.valid)) == (190, 10)


def test_two_rows_are_enough(tmp_path: Path) -> None:
    made = prepare_pairs([write_tsv(tmp_path / "x.tsv", [("a", "b"), ("c", "d")])], tmp_path / "data")
    assert (len(made.train), len(made.valid)) == (1, 1)


def test_rows_added_later_change_little_of_what_is_held_out(tmp_path: Path) -> None:
    def held(rows: int) -> set[str]:
        file = write_tsv(tmp_path / f"{rows}.tsv", made_pairs(rows))
        made = prepare_pairs([file], tmp_path / str(rows), vocab_size=300, held_out=20)
        return {pair.source for pair in made.valid_records}

    assert len(held(1000) & held(1100)) >= 15


def test_given_files_to_validate_on(tmp_path: Path) -> None:
    pairs = made_pairs(100)
    train, valid = write_tsv(tmp_path / "train.tsv", pairs[:90]), write_tsv(tmp_path / "valid.tsv", pairs[90:])
    made = prepare_pairs([train], tmp_path / "data", vocab_size=300, valid=[valid])
    assert decoded(made.train, made.processor) == pairs[:90]
    assert decoded(made.valid, made.processor) == pairs[90:]
    assert made.valid_records[0].place == f"{valid}:1"


def test_long_and_bad_rows_are_counted(tmp_path: Path) -> None:
    odd = [("a b c " * 30, "x"), ("only one side", ""), ("", "x")]
    file = write_tsv(tmp_path / "x.tsv", [*made_pairs(100), *odd])
    with pytest.raises(DataError, match=r"x\.tsv:102: empty target: the source is 'only one side'"):
        prepare_pairs([file], tmp_path / "data", vocab_size=300, max_tokens=60)
    assert not (tmp_path / "data").exists()
    made = prepare_pairs([file], tmp_path / "data", vocab_size=300, max_tokens=60, skip_bad_rows=True)
    assert made.counts["left_out"] == {"longer than max_tokens": 1}
    assert made.counts["skipped"] == {"empty source": 1, "empty target": 1}
    assert len(made.train) + len(made.valid) == 100


def test_a_given_tokenizer_is_used(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["altro testo"], vocab_size=300)
    file = write_tsv(tmp_path / "x.tsv", made_pairs(100))
    made = prepare_pairs([file], tmp_path / "data", tokenizer=tokenizer)
    assert made.processor.fingerprint == tokenizer.fingerprint


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "x.tsv", made_pairs(100))
    done: list[str] = []

    def work(**options: object) -> list[str]:
        done.clear()
        made = prepare_pairs([file], tmp_path / "data", progress=lambda doing, rows: done.append(doing), **options)
        assert made.counts["read"] >= 100
        return list(dict.fromkeys(done))

    whole = ["training the tokenizer", "writing rows"]
    assert work(vocab_size=300) == whole
    assert work(vocab_size=300) == []
    assert work(vocab_size=310) == whole
    assert work(vocab_size=310, skip_bad_rows=True) == whole
    write_tsv(tmp_path / "x.tsv", made_pairs(101))
    assert work(vocab_size=310, skip_bad_rows=True) == whole
    (tmp_path / "data" / "train" / "source.data").write_bytes(b"")
    assert work(vocab_size=310, skip_bad_rows=True) == whole
    (tmp_path / "data" / "tokenizer.json").write_bytes(b"{")
    assert work(vocab_size=310, skip_bad_rows=True) == whole


def test_standard_input_is_read_once_and_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(write_tsv(tmp_path / "x.tsv", made_pairs(100)))
    done: list[str] = []

    def work(content: bytes) -> list[str]:
        done.clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        made = prepare_pairs(["-"], tmp_path / "data", vocab_size=300, progress=lambda doing, rows: done.append(doing))
        assert made.valid_records[0].place.startswith("standard input:")
        return done

    packed = gzip.compress(file.read_bytes(), mtime=0)
    assert work(packed)
    assert not work(packed)
    assert work(file.read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.tsv"]


def test_parallel_files(tmp_path: Path) -> None:
    pairs = made_pairs(60)
    for name, side in (("en", 0), ("it", 1)):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in pairs))
    reader = read_pairs([], parallel=(str(tmp_path / "en"), str(tmp_path / "it")))
    made = prepare_pairs(reader, tmp_path / "data", vocab_size=300)
    assert sorted(decoded(made.train, made.processor) + decoded(made.valid, made.processor)) == sorted(pairs)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "x.tsv", made_pairs(300))
    for name in ("one", "two"):
        prepare_pairs([file], tmp_path / name, vocab_size=350)
    names = ["tokenizer.json", "valid.jsonl", "train/source.data", "train/target.starts", "valid/target.data"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
