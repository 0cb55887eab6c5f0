"""What is written is read, and a folder is whole or not there."""

from pathlib import Path

import numpy as np
import pytest

from regard.data.store import Column, RecordStore
from regard.errors import DataError

TEXTS = {"source": Column(), "target": Column()}
PAIRS = [([row] * (row % 7), list(range(row % 11))) for row in range(2503)]


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    RecordStore.write(tmp_path / "train", TEXTS, iter(PAIRS))
    store = RecordStore(tmp_path / "train")
    assert len(store) == len(PAIRS)
    assert store.columns == ["source", "target"]
    assert store.lengths("source").tolist() == [len(source) for source, _ in PAIRS]
    assert store.lengths("target", np.array([2502, 5])).tolist() == [2502 % 11, 5]
    assert store.lengths("source", slice(3, 9, 2)).tolist() == [3, 5, 0]
    for row in (0, 1, 999, 1000, 1001, 2502):
        source, target = store.row(row)
        assert (source.tolist(), target.tolist()) == PAIRS[row]
    assert isinstance(source.base, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_columns_of_other_types_and_shapes(tmp_path: Path) -> None:
    columns = {"frames": Column("<f4", (3,)), "label": Column("<i8"), "pixels": Column("|u1", (2, 2))}
    rows = [(np.full((n, 3), n, np.float32), [n], np.full((1, 2, 2), 255 - n)) for n in (2, 0, 5)]
    store = RecordStore.write(tmp_path / "x", columns, rows)
    for number, expected in enumerate(rows):
        for array, right, column in zip(store.row(number), expected, columns.values(), strict=True):
            assert array.dtype == column.dtype
            assert np.array_equal(array, right)


def test_the_digest_tells_stores_apart(tmp_path: Path) -> None:
    def digest(name: str, rows: list[tuple[list[int], list[int]]]) -> str:
        return RecordStore.write(tmp_path / name, TEXTS, rows).digest

    one = digest("one", [([1, 2], [3]), ([], [4])])
    assert digest("same", [([1, 2], [3]), ([], [4])]) == one
    others = [[([1], [2, 3]), ([], [4])], [([1, 2], [3])], [([], [4]), ([1, 2], [3])], [([1, 2], [5]), ([], [4])]]
    assert len({digest(f"other-{i}", rows) for i, rows in enumerate(others)} | {one}) == 5


def test_none_and_empty_sides(tmp_path: Path) -> None:
    none = RecordStore.write(tmp_path / "none", TEXTS, [])
    assert (len(none), none.lengths("source").tolist()) == (0, [])
    store = RecordStore.write(tmp_path / "empty", TEXTS, [([], [])])
    assert [side.tolist() for side in store.row(0)] == [[], []]


def test_a_store_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    RecordStore.write(folder, TEXTS, PAIRS[:5])

    def fails_midway():
        yield from PAIRS[:2000]
        raise DataError("a bad row")

    with pytest.raises(DataError, match="a bad row"):
        RecordStore.write(folder, TEXTS, fails_midway())
    assert len(RecordStore(folder)) == 5
    RecordStore.write(folder, TEXTS, PAIRS[:9])
    assert len(RecordStore(folder)) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("name", ["source.data", "target.starts", "store.json"])
def test_a_file_that_is_short_or_missing_is_noticed(tmp_path: Path, name: str) -> None:
    RecordStore.write(tmp_path / "train", TEXTS, PAIRS)
    path = tmp_path / "train" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="prepare the data again"):
        RecordStore(tmp_path / "train")
    path.unlink()
    with pytest.raises(DataError, match="prepare the data again"):
        RecordStore(tmp_path / "train")
