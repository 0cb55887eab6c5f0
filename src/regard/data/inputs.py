"""Identity of input files: copies of streams, content digests and time stamps."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from regard.data.files import is_stream, open_packed
from regard.data.formats import DATASETS
from regard.data.reader import RecordReader

OPTIONS = ("columns", "fields", "format", "delimiter", "skip_bad_rows")


def copy_streams(reader: RecordReader[Any], folder: Path) -> RecordReader[Any]:
    """Copy standard input and pipes into a folder, and return the reader of these copies."""
    copies = dict(reader.copies)
    for file in reader.files:
        if file not in copies and not file.startswith(DATASETS) and is_stream(file):
            folder.mkdir(parents=True, exist_ok=True)
            copies[file] = folder / f"{len(list(folder.iterdir()))}"
            with open_packed(file) as stream, copies[file].open("wb") as copy:
                shutil.copyfileobj(stream, copy)
    return dataclasses.replace(reader, copies=copies)


def identity(reader: RecordReader[Any]) -> dict[str, Any]:
    """Options and content digests as plain data: equal for the same rows, wherever the files are."""
    files = [_digest(file, reader) for file in _files(reader)]
    options = {name: getattr(reader, name) for name in OPTIONS}
    plain: dict[str, Any] = json.loads(json.dumps({"files": files, "parallel": bool(reader.parallel), **options}))
    return plain  # with lists instead of tuples, as read from JSON


def file_stamps(reader: RecordReader[Any]) -> list[tuple[int, int]]:
    """Size and modification time of each file that is not copied, to detect changes."""
    status = [Path(f).stat() for f in _files(reader) if f not in reader.copies and not f.startswith(DATASETS)]
    return [(one.st_size, one.st_mtime_ns) for one in status]


def _files(reader: RecordReader[Any]) -> tuple[str, ...]:
    return (*reader.files, *(reader.parallel or ()))


def _digest(file: str, reader: RecordReader[Any]) -> str:
    if file.startswith(DATASETS):
        return file
    with Path(reader.copies.get(file, file)).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
