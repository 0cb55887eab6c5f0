"""Models of pictures as `regard.load` returns them: ViT, DeiT, DINOv2 and trained ones."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError, nearest
from regard.layers.evaluation import in_evaluation
from regard.lens.picture_overlay import ATTENTION, PictureMaps, look_at_grid, look_at_picture
from regard.models.conv_attention import ConvAttention, ConvAttentionOutput
from regard.models.vit import ViT, ViTOutput
from regard.tasks.classify_scores import ClassifyEvaluation, confusion_of, decisions, f1_of, score
from regard.tasks.labeled_pictures import LabeledPicture
from regard.tasks.runner import PREPROCESSOR, Runner, read_processor
from regard.vision.pictures import Pixels, read_picture
from regard.vision.processor import PictureProcessor, to_tensor

POOLINGS = ("cls", "mean")
Picture = str | Path | Pixels
Output = ViTOutput | ConvAttentionOutput


class PictureClassification(NamedTuple):
    """A picture and the probability of each label, the most probable first."""

    picture: str  # the file's name as it was given; empty for pixels
    labels: list[tuple[str, float]]

    @property
    def label(self) -> str:
        """The most probable."""
        return self.labels[0][0]

    def __str__(self) -> str:
        return self.label


@final
class PictureEncoder(Runner):
    """Vision model with its processor, as `regard.load` returns it.

    Args:
        module: the torch module; `module(pictures)` gives named results, `hidden` and `logits` among them.
        tokenizer: None; the model reads no text.
        config: what else is known of it: the names of its labels under "labels", or config.json's fields under
            "published".
        processor: how pictures become model inputs; None if the folder does not say it.

    Raises:
        CheckpointError: names of labels that are not those of the module.
    """

    job: ClassVar[str] = "pictures"
    reads_pictures: ClassVar[bool] = True

    def __init__(
        self,
        module: ViT | ConvAttention,
        tokenizer: None = None,
        config: Mapping[str, Any] | None = None,
        processor: PictureProcessor | None = None,
    ) -> None:
        super().__init__(module, tokenizer, config)
        self._processor = processor
        self.labels: list[str] = _labels(self.config, module.config.num_labels)

    @property
    def processor(self) -> PictureProcessor:
        """How pictures become model inputs.

        Raises:
            CheckpointError: the model's folder does not say it.
        """
        if self._processor is None:
            raise CheckpointError(
                f"the model's folder has no {PREPROCESSOR}, which says how pictures are resized and normalized; put it "
                "there. Without one, give tensors to `.module`"
            )
        return self._processor

    def read(self, picture: Picture) -> Pixels:
        """A picture in the size that the model reads.

        Args:
            picture: the name of a file, or pixels (H, W, 3) uint8.

        Returns:
            (H', W', 3) uint8.

        Raises:
            DataError: a file that is no picture, or something else than pixels.
        """
        return self.processor.resized(read_pixels(picture))

    def probabilities(self, pictures: Sequence[Picture], *, batch_size: int = 32) -> Tensor:
        """The probability of each label.

        Args:
            pictures: names of files, or pixels (H, W, 3) uint8.
            batch_size: pictures that run together.

        Returns:
            (pictures, labels), rows that sum to 1.

        Raises:
            UnsupportedError: a model without a classifier.
            DataError: a file that is no picture.
        """
        if not self.labels:
            raise UnsupportedError(
                "the model has no classifier, so it cannot classify; it can embed. To train one: regard train PHOTOS "
                "--task classify --from MODEL"
            )
        rows = self._run(pictures, lambda output: output.logits.float().softmax(-1), batch_size)
        return torch.stack(rows) if rows else torch.empty(0, len(self.labels))

    def classify(
        self, pictures: Sequence[Picture], *, top: int | None = None, batch_size: int = 32
    ) -> list[PictureClassification]:
        """The labels of pictures; `str` of one is its most probable label.

        Args:
            pictures: as for `probabilities`.
            top: how many labels of each picture; None for all.
            batch_size: as for `probabilities`.

        Returns:
            A `PictureClassification` for each picture, in order.

        Raises:
            UnsupportedError, DataError: as for `probabilities`.
        """
        ranked = self.probabilities(pictures, batch_size=batch_size).sort(dim=-1, descending=True, stable=True)
        named = [
            [(self.labels[i], p) for i, p in zip(indices[:top], values[:top], strict=True)]
            for indices, values in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]
        names = [str(picture) if isinstance(picture, str | Path) else "" for picture in pictures]
        return [PictureClassification(name, labels) for name, labels in zip(names, named, strict=True)]

    def embed(
        self,
        pictures: Sequence[Picture],
        *,
        pooling: str | None = None,
        normalize: bool = True,
        batch_size: int = 32,
    ) -> Tensor:
        """A vector for each picture.

        Args:
            pictures: as for `probabilities`.
            pooling: "cls" for the class token's state, "mean" for the mean of the patches' states; by default "cls"
                where the model has a class token.
            normalize: whether vectors have length 1.
            batch_size: as for `probabilities`.

        Returns:
            (pictures, D).

        Raises:
            ConfigError: an unknown pooling, or "cls" of a model without a class token.
            DataError: as for `probabilities`.
        """
        special = self.module.config.num_special
        pooling = pooling or ("cls" if special else "mean")
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling={pooling!r} is unknown for pictures; {nearest(pooling, POOLINGS)}")
        if pooling == "cls" and not special:
            raise ConfigError('pooling="cls": the model has no class token; expected "mean"')

        def pool(output: Output) -> Tensor:
            hidden = output.hidden.float()
            vectors = hidden[:, 0] if pooling == "cls" else hidden[:, special:].mean(1)
            return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors

        rows = self._run(pictures, pool, batch_size)
        return torch.stack(rows) if rows else torch.empty(0, self.module.config.embed_dim)

    def evaluate(self, records: Iterable[LabeledPicture], *, batch_size: int = 32) -> ClassifyEvaluation:
        """Accuracy, macro F1, confusion and calibration.

        Args:
            records: pictures with their labels.
            batch_size: pictures that run together.

        Returns:
            The scores.

        Raises:
            DataError: no records, a label that the model does not have, or a file that is no picture.
        """
        rows, known = list(records), {label: i for i, label in enumerate(self.labels)}
        if not rows:
            raise DataError("no records to evaluate; give a folder or a file with at least one picture")
        true = torch.zeros(len(rows), len(known), dtype=torch.bool)
        for number, row in enumerate(rows):
            if row.label not in known:
                raise DataError(f"{row.place}: the model has no label {row.label!r}; it has {', '.join(known):.200}")
            true[number, known[row.label]] = True
        start = time.perf_counter()
        probabilities = self.probabilities([row.picture for row in rows], batch_size=batch_size)
        seconds = time.perf_counter() - start
        decided = decisions(probabilities, multi_label=False)
        return ClassifyEvaluation(
            labels=self.labels,
            scores=score(probabilities, true, multi_label=False),
            baseline=None,
            confusion=confusion_of(decided, true),
            f1=f1_of(decided, true).nan_to_num().tolist(),
            counts=true.sum(0).tolist(),
            texts=len(rows),
            seconds=seconds,
            unit="pictures",
        )

    def see(self, picture: Picture) -> PictureMaps:
        """Attention maps over a picture.

        Of a vision Transformer, the class token's attention: by layer and head, as rollout, and weighted by gradients.
        Of a convolutional network, the mean attention of all cells of its feature maps, and Grad-CAM.

        Args:
            picture: the name of a file, or pixels (H, W, 3) uint8.

        Returns:
            Maps over the patches, with `png`, `page` and `terminal`; those of gradients only with a classifier.

        Raises:
            DataError: as for `probabilities`.
            ConfigError: a model without attention.
        """
        pixels = self.read(picture)
        parameter, config = next(self.module.parameters()), self.module.config
        inputs = self.processor.normalized(to_tensor(pixels)[None].to(parameter.device)).to(parameter.dtype)
        probabilities = self.probabilities([pixels])[0] if self.labels else None
        label = None if probabilities is None else int(probabilities.argmax())
        grid = (pixels.shape[0] // config.patch_size, pixels.shape[1] // config.patch_size)
        seen: dict[str, Any] = {"pixels": pixels}
        if label is not None and probabilities is not None:
            seen |= {"label": self.labels[label], "probability": float(probabilities[label])}
        if not config.num_special:
            attention, maps = look_at_grid(self.module, inputs, grid=grid, label=label)
            return PictureMaps(attention=attention, maps=maps, first=ATTENTION, **seen)
        attention, maps = look_at_picture(self.module, inputs, grid=grid, special=config.num_special, label=label)
        return PictureMaps(attention=attention, maps=maps, **seen)

    def extra_files(self) -> Mapping[str, bytes]:
        """Processor configuration in the hub's layout."""
        return {} if self._processor is None else {PREPROCESSOR: self._processor.to_json()}

    def read_extras(self, folder: Path) -> None:
        """Read how pictures become model inputs."""
        self._processor = read_processor(folder, PictureProcessor.from_published, self._processor)

    def _run(self, pictures: Sequence[Picture], result: Callable[[Output], Tensor], batch_size: int) -> list[Tensor]:
        """Model output for each picture; pictures of equal size are batched."""
        if isinstance(pictures, str | Path):
            raise DataError(f"pictures={str(pictures)!r:.80} must be a list; put one picture into a list of its own")
        module, device = in_evaluation(self.module), next(self.module.parameters()).device
        results: dict[int, Tensor] = {}
        waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}

        def run(batch: list[tuple[int, Tensor]]) -> None:
            inputs = self.processor.normalized(torch.stack([pixels for _, pixels in batch]).to(device))
            outputs = result(module(inputs.to(next(module.parameters()).dtype))).cpu()
            results.update((number, row) for (number, _), row in zip(batch, outputs, strict=True))

        with torch.inference_mode():
            for number, picture in enumerate(pictures):
                pixels = to_tensor(self.read(picture))
                batch = waiting.setdefault(tuple(pixels.shape), [])
                batch.append((number, pixels))
                if len(batch) == batch_size:
                    run(waiting.pop(tuple(pixels.shape)))
            for batch in waiting.values():
                run(batch)
        return [results[number] for number in range(len(results))]


def read_pixels(picture: Picture) -> Pixels:
    """The pixels (H, W, 3) uint8 of a picture, from its file or as given; DataError if it is no picture."""
    pixels = read_picture(picture) if isinstance(picture, str | Path) else picture
    if getattr(pixels, "ndim", 0) != 3 or pixels.shape[2] != 3 or pixels.dtype != "uint8" or not pixels.size:
        shape, dtype = getattr(pixels, "shape", None), getattr(pixels, "dtype", type(pixels).__name__)
        raise DataError(f"a picture has shape {shape} and type {dtype}; expected a file's name or (H, W, 3) uint8")
    return pixels


def _labels(config: Mapping[str, Any], count: int | None) -> list[str]:
    """The names of the labels: regard's own list, or id2label of a published configuration; none without a head."""
    if count is None:
        return []
    labels = config.get("labels")
    if labels is None:
        published = config.get("published", {})
        by_id = published.get("id2label") or {}
        labels = [by_id.get(str(i), by_id.get(i)) for i in range(len(by_id))] or [f"LABEL_{i}" for i in range(count)]
    if not isinstance(labels, list) or len(labels) != count or not all(isinstance(x, str) for x in labels):
        raise CheckpointError(f"the labels are {labels!r:.80}; expected the names of {count} labels")
    return labels
