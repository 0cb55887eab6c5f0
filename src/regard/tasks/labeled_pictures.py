"""Labeled pictures: from folders and records to decoded pixels and labels on disk."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

from regard.data.prepare import LeftOut, Preparation, Progress, Row, unreadable
from regard.data.record import BadRow, Record, path_and_text
from regard.data.store import Column
from regard.errors import DataError
from regard.vision.pictures import is_picture_name, read_picture
from regard.vision.processor import PictureProcessor

LABELS = "labels.json"
MAX_LABELS = 10_000


class LabeledPicture(NamedTuple):
    """A picture file, its label, and where that stands."""

    picture: str
    label: str
    place: str


@final
@dataclass(frozen=True, kw_only=True)
class PictureFolders:
    """Pictures in folders, one for each class: PHOTOS/LABEL/NAME.png.

    It reads as a `RecordReader` does.

    Args:
        fields: the parts of a record.
        folders: each with a folder for each class, in which pictures may stand at any depth; other files are ignored.
        skip_bad_rows: count pictures that cannot be read and go on, instead of stopping at the first.
        labels: by picture file.
        format: what tells the classes and names of files from changed ones.
        skipped: by reason, the rows that the last loop left out.
        notes: by file, how it was read.

    Raises:
        DataError: a folder without folders of pictures.
    """

    fields: Mapping[str, str]
    folders: tuple[str, ...]
    skip_bad_rows: bool = False
    labels: dict[str, str] = field(default_factory=dict, compare=False)
    format: str = ""
    skipped: Counter[str] = field(default_factory=Counter, compare=False)
    notes: dict[str, str] = field(default_factory=dict, compare=False)
    copies: dict[str, Path] = field(default_factory=dict, compare=False)
    parallel: None = None
    columns: None = None
    delimiter: None = None

    def __post_init__(self) -> None:
        names = []
        for folder in map(Path, self.folders):
            labels = {str(path): path.relative_to(folder).parts[0] for path in _pictures(folder)}
            if not labels:
                raise DataError(
                    f"{folder} has no pictures in folders of their own; expected a folder for each class, such as "
                    f"{folder / 'LABEL' / 'NAME.jpg'}"
                )
            self.labels.update(labels)
            names += [Path(name).relative_to(folder).as_posix() for name in labels]
        digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()
        object.__setattr__(self, "format", f"folders {digest}")

    @property
    def files(self) -> tuple[str, ...]:
        """The pictures."""
        return tuple(self.labels)

    def for_files(self, files: Sequence[str]) -> "PictureFolders":
        """A reader of further folders."""
        return PictureFolders(fields=self.fields, folders=tuple(files), skip_bad_rows=self.skip_bad_rows)

    def __iter__(self) -> Iterator[LabeledPicture]:
        self.skipped.clear()
        return (LabeledPicture(name, label, name) for name, label in self.labels.items())


def _pictures(folder: Path) -> list[Path]:
    """The pictures in the folders of a folder, in the order of their names; hidden ones are left out."""
    inner = [path for path in folder.rglob("*") if is_picture_name(path) and path.parent != folder and path.is_file()]
    return sorted(path for path in inner if not any(part.startswith(".") for part in path.relative_to(folder).parts))


@final
class LabeledPictures(Preparation[LabeledPicture]):
    """Pictures as pixels of the size that a model reads, and their labels as numbers.

    Args:
        processor: resizes the pictures.
        size: (H, W) that come out of it.
        skip: whether pictures that cannot be read are left out.
    """

    def __init__(self, processor: PictureProcessor, size: tuple[int, int], *, skip: bool) -> None:
        self.processor, self.size, self.skip = processor, size, skip
        self.columns = {"picture": Column("|u1", (*size, 3)), "label": Column()}
        self.labels: list[str] = []
        self._counts: Counter[str] = Counter()

    @property
    def options(self) -> dict[str, Any]:
        return {"processor": self.processor.to_plain(), "skip": self.skip}

    @property
    def digest(self) -> str:
        plain = json.dumps([self.processor.to_plain(), self.labels])
        return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()

    def key(self, record: LabeledPicture) -> str:
        return f"{record.label}/{Path(record.picture).name}"

    def survey(self, record: LabeledPicture) -> None:
        self._counts[record.label] += 1
        if len(self._counts) > MAX_LABELS:
            raise DataError(f"{record.place}: more than {MAX_LABELS:,} labels; is the label's field the right one?")

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if len(self._counts) < 2:
            raise DataError(f"the pictures have {len(self._counts)} label, {list(self._counts)}; expected two or more")
        self.labels = sorted(self._counts)
        (folder / LABELS).write_text(json.dumps(self.labels, ensure_ascii=False), encoding="utf-8")

    def encode(self, records: Sequence[LabeledPicture]) -> list[Row | LeftOut]:
        known = {label: i for i, label in enumerate(self.labels)}
        return [self._row(record, known) for record in records]

    def load(self, folder: Path) -> None:
        self.labels = json.loads((folder / LABELS).read_text(encoding="utf-8"))

    def record(self, plain: Sequence[Any]) -> LabeledPicture:
        return LabeledPicture(*plain)

    def _row(self, record: LabeledPicture, known: Mapping[str, int]) -> Row | LeftOut:
        if record.label not in known:
            return LeftOut("a label that training has not")
        try:
            pixels = self.processor.resized(read_picture(record.picture))
        except DataError as error:
            return unreadable("picture", record.place, error, skip=self.skip)
        return pixels[None], [known[record.label]]


def labeled_picture(record: Record) -> LabeledPicture | BadRow:
    """The picture and label of a record; a relative name is looked for beside the record's file."""
    values = path_and_text(record, "picture", "label")
    return values if isinstance(values, BadRow) else LabeledPicture(*values, record.place)
