"""Captioning: a captioner, its training task and its evaluation."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from regard.attention.check import check_integer
from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.decode.beam import beam_search
from regard.decode.constraints import Constraints, ConstraintState
from regard.decode.search import Beam, Greedy
from regard.decode.stepwise import choose_greedy, decode_stepwise
from regard.errors import ConfigError, DataError, nearest
from regard.layers.evaluation import in_evaluation
from regard.lens.picture_overlay import ATTENTION, PictureMaps
from regard.models.picture_transformer import PictureTransformer
from regard.models.seq2seq import Vocabulary
from regard.models.show_attend_tell import ShowAttendTell
from regard.tasks.captioned_pictures import Captioned, CaptionedPictures, captioned
from regard.tasks.encoder_decoder import EncoderDecoderTask, SequenceBatch, vocabulary_of, with_targets
from regard.tasks.evaluate import Scores, score
from regard.tasks.pictures import Picture, read_pixels
from regard.tasks.runner import PREPROCESSOR, Runner, read_processor
from regard.tasks.score_table import ScoreTable, as_text
from regard.tasks.text_to_text import SUBWORDS
from regard.vision.augment import augment
from regard.vision.pictures import Pixels
from regard.vision.processor import PictureProcessor, to_tensor

MAX_TOKENS = 64  # of a caption, unless the model was trained with another limit


class Caption(NamedTuple):
    """A picture and its caption."""

    picture: str  # the file's name as it was given; empty for pixels
    text: str
    score: float  # of the search
    tokens: list[int]
    finished: bool  # whether it ends with the end token

    def __str__(self) -> str:
        return self.text


class CaptionEvaluation(NamedTuple):
    """Evaluation of captions."""

    exact: float  # share of captions equal to the reference
    scores: Scores  # BLEU and chrF
    pictures: int
    unfinished: int
    seconds: float

    def to_plain(self) -> dict[str, Any]:
        """The evaluation as JSON types."""
        return {**self._asdict(), "scores": self.scores._asdict(), "pictures_per_second": self.pictures / self.seconds}

    def parts(self) -> list[ScoreTable | str]:
        """The scores as a table, and lines about the pictures."""
        row = (f"{self.exact:.1%}", f"{self.scores.bleu:.1f}", f"{self.scores.chrf:.1f}")
        return [
            ScoreTable(("exact", "BLEU", "chrF"), [row], widths=(8, 8, 8)),
            "",
            f"{self.pictures:,} pictures, {self.pictures / self.seconds:,.1f} pictures/s",
            f"{self.unfinished:,} captions were cut off at the maximum length",
        ]

    def table(self) -> str:
        """The same as lines of text."""
        return as_text(self.parts())


@final
class Captioner(Runner):
    """A model that describes pictures, with its tokenizer and processor.

    Args:
        module: the torch module; `module(pictures, None, targets)` gives named results.
        tokenizer: of the captions.
        config: fields of config.json, training settings under "training".
        processor: how pictures become model inputs; None for the model's size.
    """

    job: ClassVar[str] = "caption"
    reads_pictures: ClassVar[bool] = True

    def __init__(
        self,
        module: ShowAttendTell | PictureTransformer,
        tokenizer: Any,
        config: Mapping[str, Any] | None = None,
        processor: PictureProcessor | None = None,
    ) -> None:
        super().__init__(module, tokenizer, config)
        self.processor = PictureProcessor(size=module.config.sides) if processor is None else processor

    def read(self, picture: Picture) -> Pixels:
        """A picture in the size that the model reads; see `PictureEncoder.read`."""
        return self.processor.resized(read_pixels(picture))

    def caption(
        self, pictures: Sequence[Picture], *, search: Greedy | Beam = Beam(), batch_size: int = 32
    ) -> list[Caption]:
        """The captions of pictures; `str` of one is its text.

        Args:
            pictures: names of files, or pixels (H, W, 3) uint8.
            search: `Beam` or `Greedy`.
            batch_size: pictures per batch.

        Returns:
            A `Caption` for each picture, in order.

        Raises:
            DataError: pictures that are not a list, or a file that is no picture.
        """
        if isinstance(pictures, str | Path):
            raise DataError(f"pictures={str(pictures)!r:.80} must be a list; put one picture into a list of its own")
        check_integer("caption", "batch_size", batch_size, 1)
        module, captions = in_evaluation(self.module), []
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            with torch.inference_mode():
                state, tokens = module.prefill(self._inputs(part))
                limits = torch.full((len(part),), self._max_length)
                constraints = ConstraintState(Constraints(), module.vocabulary, tokens[:, None], limits)
                if isinstance(search, Beam):
                    hypotheses = beam_search(module, state, tokens, limits, search, constraints)
                else:
                    hypotheses = decode_stepwise(module, state, tokens, limits, choose_greedy, constraints)
            for picture, [best, *_] in zip(part, hypotheses, strict=True):
                name = str(picture) if isinstance(picture, str | Path) else ""
                text = self.tokenizer.decode(best.tokens)
                captions.append(Caption(name, text, best.score, best.tokens, best.finished))
        return captions

    def evaluate(
        self, records: Iterable[Captioned], *, search: Greedy | Beam = Beam(), batch_size: int = 32
    ) -> CaptionEvaluation:
        """Exact matches, BLEU and chrF against reference captions.

        Args:
            records: pictures with their captions.
            search: `Beam` or `Greedy`.
            batch_size: pictures per batch.

        Returns:
            The scores.

        Raises:
            DataError: no records, or a file that is no picture.
        """
        rows = list(records)
        if not rows:
            raise DataError("no records to evaluate; give a file with at least one row")
        start = time.perf_counter()
        captions = self.caption([row.picture for row in rows], search=search, batch_size=batch_size)
        seconds = time.perf_counter() - start
        texts, references = [str(one) for one in captions], [row.caption for row in rows]
        exact = sum(text == reference for text, reference in zip(texts, references, strict=True)) / len(rows)
        unfinished = sum(not one.finished for one in captions)
        return CaptionEvaluation(exact, score(texts, references), len(rows), unfinished, seconds)

    def see(self, picture: Picture, caption: str | None = None) -> PictureMaps:
        """Where the model looks as it writes each token of a caption; with hard attention, its glimpses in order.

        Of a Transformer, the heads of the last layer.

        Args:
            picture: the name of a file, or pixels (H, W, 3) uint8.
            caption: to look at; None for the model's own.

        Returns:
            A map for each token.

        Raises:
            DataError: a file that is no picture.
        """
        pixels = self.read(picture)
        tokens = self.caption([pixels])[0].tokens if caption is None else self.tokenizer.encode(caption)
        module = in_evaluation(self.module)
        targets = torch.tensor([[module.vocabulary.bos, *tokens]])
        with torch.no_grad():
            weights = module.attention_weights(self._inputs([pixels]), targets)[0, :, : len(tokens)]  # (H, T, S)
        maps = weights.transpose(0, 1).unflatten(2, module.config.grid).float().cpu()
        names = self.tokenizer.pieces(tokens)
        text = self.tokenizer.decode(tokens)
        return PictureMaps(
            pixels=pixels,
            attention=maps,
            maps={},
            label=text,
            layer_names=tuple(f"{i + 1}. {name.strip()}" for i, name in enumerate(names)),
            first=ATTENTION,
        )

    def extra_files(self) -> Mapping[str, bytes]:
        """Processor configuration in the hub's layout."""
        return {PREPROCESSOR: self.processor.to_json()}

    def read_extras(self, folder: Path) -> None:
        """Read how pictures become model inputs."""
        self.processor = read_processor(folder, PictureProcessor.from_published, self.processor)

    def _inputs(self, pictures: Sequence[Picture]) -> Tensor:
        parameter = next(self.module.parameters())
        pixels = torch.stack([to_tensor(self.read(picture)) for picture in pictures])
        return self.processor.normalized(pixels.to(parameter.device)).to(parameter.dtype)

    @property
    def _max_length(self) -> int:
        training, limit = self.config.get("training"), self.module.max_length
        value = training.get("max_target") if isinstance(training, dict) else None
        tokens = value if type(value) is int and value > 0 else MAX_TOKENS
        return tokens if limit is None else min(tokens, limit - 1)


@final
class CaptionTask(EncoderDecoderTask):
    """Training a captioner on pictures and captions; lines of text in pictures are the same."""

    name = Captioner.job
    runner = Captioner
    fields = {"picture": "picture", "caption": "caption"}  # noqa: RUF012
    models = ("show-attend-tell", "picture-transformer")
    rows = "pictures"

    def check_options(self) -> None:
        options = self.options
        self.refuse(parallel=options.parallel, size=options.size)
        if options.model not in (None, *self.models):
            raise ConfigError(
                f"model={options.model!r} does not caption pictures; {nearest(options.model, self.models)}"
            )
        if self.start is not None and not isinstance(self.start, Captioner):
            raise ConfigError(f"start={options.start!r} is a {type(self.start).__name__}; expected a captioner")
        self.crop = self.settings("crop").get("crop", 0)
        if type(self.crop) is not int or self.crop < 0:
            raise ConfigError(f"task_settings: crop={self.crop!r} must be a number of pixels, at least 0")
        if self.start is None:
            self.model_config(Vocabulary(size=options.vocab_size or SUBWORDS))

    @classmethod
    def convert(cls, record: Record) -> Captioned | BadRow:
        return captioned(record)

    def make_preparation(self) -> CaptionedPictures:
        config = self.model_config(Vocabulary(size=SUBWORDS)) if self.start is None else self.start.module.config
        limit = getattr(config, "max_length", None)
        return CaptionedPictures(
            PictureProcessor(size=config.sides) if self.start is None else self.start.processor,
            vocab_size=self.options.vocab_size or SUBWORDS,
            max_tokens=self.options.max_tokens if limit is None else min(self.options.max_tokens, limit - 1),
            tokenizer=None if self.start is None else self.start.tokenizer,
            skip=self.options.skip_bad_rows,
        )

    @property
    def summary(self) -> str:
        return f"{super().summary}; {self.data.processor.size:,} subwords"

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        target = self.store(split).lengths("target", rows)
        return np.stack([target + 1, target], 1)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> SequenceBatch:
        store = self.store(split)
        pictures, captions = zip(*(store.row(int(row)) for row in rows), strict=True)
        pixels = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)
        if split == "train" and self.crop:  # torch's default generator is seeded by the step
            pixels = augment(pixels, padding=self.crop, flip=False)
        inputs = self.preparation.picture_processor.normalized(pixels)
        return with_targets(inputs, None, captions, vocabulary_of(self.data.processor))

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        record = self.data.valid_records[number % len(self.data.valid_records)]
        [caption] = self._runner(module, {}).caption([record.picture], search=Greedy())
        return [("picture", record.picture), ("caption", record.caption), ("output", caption.text)]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        self._runner(module, {**training, "data": self.data.counts}).save(folder)

    def _runner(self, module: Any, training: Mapping[str, Any]) -> Captioner:
        max_target = int(self.data.train.lengths("target").max()) + 16
        config = {"training": {**training, "max_target": max_target}}
        return Captioner(module, self.data.processor, config, self.preparation.picture_processor)
