"""Base of the runners of speech models: their processor's file, and evaluation."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regard.decode.search import Beam, Greedy
from regard.errors import CheckpointError, DataError
from regard.tasks.runner import PREPROCESSOR, Runner, read_processor
from regard.tasks.transcript import Transcript
from regard.tasks.utterances import Utterance
from regard.tasks.word_errors import TranscriptEvaluation, evaluate_transcripts


class SpeechRunner(Runner):
    """A speech model with its tokenizer and processor."""

    processor: Any  # of sounds, with `num_mels` and `to_json`
    parse_processor: ClassVar[Callable[[Any], Any]]  # makes a processor from the fields of its file

    def transcribe(self, sounds: Sequence[Any], **settings: Any) -> list[Transcript]:
        """The texts of sounds."""
        raise NotImplementedError

    def evaluate(
        self,
        records: Iterable[Utterance | tuple[str, str]],
        *,
        search: Greedy | Beam = Greedy(),
        batch_size: int | None = None,
    ) -> TranscriptEvaluation:
        """Word and character error rates with bootstrap intervals, by duration, and the speed.

        Args:
            records: sound files and reference texts.
            search: `Greedy()` or `Beam()`.
            batch_size: as for `transcribe`.

        Returns:
            The error rates.

        Raises:
            DataError: no records, or a sound that cannot be read.
        """
        rows = [(record[0], record[1]) for record in records]
        if not rows:
            raise DataError("no records to evaluate; give a file with at least one row")
        start = time.perf_counter()
        transcripts = self.transcribe([audio for audio, _ in rows], search=search, batch_size=batch_size)
        seconds = time.perf_counter() - start
        durations = [transcript.info.seconds for transcript in transcripts]
        return evaluate_transcripts([str(x) for x in transcripts], [text for _, text in rows], durations, seconds)

    def extra_files(self) -> Mapping[str, bytes]:
        """Processor configuration."""
        return {PREPROCESSOR: self.processor.to_json()}

    def read_extras(self, folder: Path) -> None:
        """Read the processor configuration."""
        self.processor = read_processor(folder, type(self).parse_processor, self.processor)
        bands = self.module.config.num_mels
        if self.processor.num_mels != bands:
            raise CheckpointError(
                f"{folder / PREPROCESSOR}: {self.processor.num_mels} mel bands, and the model has {bands}; expected "
                "files of the same model"
            )
