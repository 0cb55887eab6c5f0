"""What is written is read, and a folder is whole or not there."""

from pathlib import Path

import numpy as np
import pytest

from regard.data.store import PairStore
from regard.errors import DataError

PAIRS = [([row] * (row % 7), list(range(row % 11))) for row in range(2503)]


def test_pairs_are_read_as_written(tmp_path: Path) -> None:
    PairStore.write(tmp_path / "train", iter(PAIRS))
    store = PairStore.open(tmp_path / "train")
    assert len(store) == len(PAIRS)
    assert store.source_lengths.tolist() == [len(source) for source, _ in PAIRS]
    assert store.target_lengths.tolist() == [len(target) for _, target in PAIRS]
    assert store.source_lengths.dtype == np.int32
    for row in (0, 1, 999, 1000, 1001, 2502):
        source, target = store.pair(row)
        assert (source.tolist(), target.tolist()) == PAIRS[row]
    assert isinstance(source.base, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_none_and_empty_sides(tmp_path: Path) -> None:
    assert len(PairStore.write(tmp_path / "none", [])) == 0
    store = PairStore.write(tmp_path / "empty", [([], [])])
    assert [side.tolist() for side in store.pair(0)] == [[], []]


def test_a_store_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    PairStore.write(folder, PAIRS[:5])

    def fails_midway():
        yield from PAIRS[:2000]
        raise DataError("a bad row")

    with pytest.raises(DataError, match="a bad row"):
        PairStore.write(folder, fails_midway())
    assert len(PairStore.open(folder)) == 5
    PairStore.write(folder, PAIRS[:9])
    assert len(PairStore.open(folder)) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("name", ["ids.i32", "starts.i64", "lengths.i32", "store.json"])
def test_a_file_that_is_short_or_missing_is_noticed(tmp_path: Path, name: str) -> None:
    PairStore.write(tmp_path / "train", PAIRS)
    path = tmp_path / "train" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="prepare the data again"):
        PairStore.open(tmp_path / "train")
    path.unlink()
    with pytest.raises(DataError, match="prepare the data again"):
        PairStore.open(tmp_path / "train")
