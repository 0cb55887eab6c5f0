"""What was read: copies of what can be read only once, and what tells inputs from changed ones."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.data.files import is_stream, open_packed
from regard.data.formats import DATASETS
from regard.data.rows import PairReader

OPTIONS = ("columns", "fields", "format", "skip_bad_rows")


def copied(reader: PairReader, folder: Path) -> PairReader:
    """The reader, standard input and pipes copied into the folder as they are."""
    copies = dict(reader.copies)
    for file in reader.files:
        if file not in copies and not file.startswith(DATASETS) and is_stream(file):
            folder.mkdir(parents=True, exist_ok=True)
            copies[file] = folder / f"{len(list(folder.iterdir()))}"
            with open_packed(file) as stream, copies[file].open("wb") as copy:
                shutil.copyfileobj(stream, copy)
    return dataclasses.replace(reader, copies=copies)


def identity(reader: PairReader) -> dict[str, Any]:
    """Plain data that is equal for the same pairs: options, size and time of each file, or content of a copy."""
    files = [_identity(file, reader.copies) for file in (*reader.files, *(reader.parallel or ()))]
    options = {name: getattr(reader, name) for name in OPTIONS}
    plain: dict[str, Any] = json.loads(json.dumps({"files": files, "parallel": bool(reader.parallel), **options}))
    return plain  # as it is read back: lists instead of tuples


def _identity(file: str, copies: Mapping[str, Path]) -> list[Any]:
    if file in copies:
        with copies[file].open("rb") as copy:
            return [file, hashlib.file_digest(copy, "sha256").hexdigest()]
    if file.startswith(DATASETS):
        return [file]
    status = Path(file).stat()
    return [str(Path(file).resolve()), status.st_size, status.st_mtime_ns]
