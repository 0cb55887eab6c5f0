"""Preparation of utterances: spectrograms and target token ids on disk."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from regard.audio.mel import HOP, AudioProcessor
from regard.audio.sound import read_sound
from regard.data.prepare import LeftOut, Preparation, Progress, Row, unreadable
from regard.data.record import BadRow, Record, path_and_text
from regard.data.store import Column
from regard.errors import DataError
from regard.tasks.task import in_folders

SETTINGS = "speech.json"
METADATA = "metadata.csv"  # of a folder of recordings
AFTER = 2  # frames after the last sample whose windows still contain sound
DETECTED = 16  # utterances that the language is detected from
TOO_LONG = "longer than the model's window"


class Utterance(NamedTuple):
    """Sound file, its text, and the row number in the file."""

    audio: str
    text: str
    place: str


@final
class Utterances(Preparation[Utterance]):
    """Log-mel spectrograms of the sounds, and their texts as token ids.

    Args:
        processor: of the sounds.
        tokenizer: of the texts.
        max_target: maximum number of tokens of a text.
        language: code of the language; None to detect it.
        detect: language of some sound files.
        skip: whether sounds that cannot be read are left out.
    """

    def __init__(
        self,
        processor: AudioProcessor,
        tokenizer: Any,
        *,
        max_target: int,
        language: str | None,
        detect: Callable[[Sequence[str]], str | None],
        skip: bool,
    ) -> None:
        self.processor, self.tokenizer, self.max_target = processor, tokenizer, max_target
        self.language, self.skip = language, skip
        self.columns: Mapping[str, Column] = {"mels": Column("<f2", (processor.num_mels,)), "target": Column()}
        self._fixed_language, self._detect = language, detect
        self._sample: list[str] = []

    @property
    def options(self) -> dict[str, Any]:
        return {
            "processor": self.processor.to_plain(),
            "tokenizer": self.tokenizer.fingerprint,
            "max_target": self.max_target,
            "language": self._fixed_language,
            "skip": self.skip,
        }

    @property
    def digest(self) -> str:
        plain = json.dumps([self.options, self.language])
        return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()

    def key(self, record: Utterance) -> str:
        return Path(record.audio).name

    def survey(self, record: Utterance) -> None:
        if len(self._sample) < DETECTED:
            self._sample.append(record.audio)

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if self._fixed_language is None:
            progress("detecting the language", len(self._sample))
            self.language = self._detect(self._sample)
        (folder / SETTINGS).write_text(json.dumps({"language": self.language}), encoding="utf-8")

    def encode(self, records: Sequence[Utterance]) -> list[Row | LeftOut]:
        return [self._row(record) for record in records]

    def load(self, folder: Path) -> None:
        self.language = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["language"]

    def record(self, plain: Sequence[Any]) -> Utterance:
        return Utterance(*plain)

    def _row(self, record: Utterance) -> Row | LeftOut:
        try:
            sound = read_sound(record.audio)
        except DataError as error:
            return unreadable("sound", record.place, error, skip=self.skip)
        if sound.info.seconds > self.processor.chunk_seconds:
            return LeftOut(TOO_LONG)
        target = self.tokenizer.encode(" " + record.text)
        if len(target) > self.max_target:
            return LeftOut("text longer than the model's positions")
        frames = len(sound.samples) // HOP + AFTER
        return self.processor(sound.samples)[:frames].numpy().astype(np.float16), target


def utterance_tables(files: Sequence[str], how: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Files of records in place of folders of recordings, each of which has a metadata.csv.

    Args:
        files: files of records, or folders.
        how: further arguments of `Task.read`.

    Returns:
        Files, and arguments with the columns file_name and text if they are of folders.

    Raises:
        DataError: a folder among files, or one without metadata.csv.
    """
    if not in_folders(files):
        return list(files), dict(how)
    tables = [str(Path(folder, METADATA)) for folder in files]
    for table in tables:
        if not Path(table).is_file():
            raise DataError(f"{table} is missing; expected a table with the columns file_name and text")
    return tables, {**how, "fields": {"audio": "file_name", **(how.get("fields") or {})}}


def utterance(record: Record) -> Utterance | BadRow:
    """The sound file and the text of a record; a relative name is looked for beside the record's file."""
    values = path_and_text(record, "audio", "text")
    return values if isinstance(values, BadRow) else Utterance(*values, record.place)
