"""Training a classifier of pictures, from random weights or from another model of pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.errors import ConfigError, nearest
from regard.models.conv_attention import ConvAttentionConfig
from regard.models.registry import build, config_from_plain
from regard.models.vit import PRESETS, ViTConfig
from regard.tasks.classify_scores import decisions
from regard.tasks.labeled_pictures import LabeledPictures, PictureFolders, labeled_picture
from regard.tasks.pictures import LabeledPicture, PictureEncoder
from regard.tasks.registry import PICTURE_MODELS
from regard.tasks.task import Best, Loss, Task, in_folders
from regard.vision.augment import augment
from regard.vision.processor import PictureProcessor

# Models of about a million parameters, for pictures of 32 x 32.
SMALL: dict[str, dict[str, Any]] = {
    "vit": {
        "image_size": 32, "patch_size": 4, "embed_dim": 128, "num_layers": 6, "num_heads": 4, "ffn_dim": 384,
        "norm_eps": 1e-6, "dropout": 0.1,
    },
    "conv-attention": {},
}  # fmt: skip
CROP_SHARE = 8  # a side of a picture, by the padding of random crops


class PictureBatch(NamedTuple):
    """Batch of pictures and labels."""

    pictures: Tensor  # (B, 3, H, W) float32
    labels: Tensor  # (B,)


@final
class ClassifyPictures(Task):
    """Training a classifier of pictures.

    Settings of the job: `crop`, the black pixels around a picture before a random crop, an eighth of its side by
    default, 0 for none; `flip`, whether pictures are mirrored at random, true by default.
    """

    name = PictureEncoder.job
    runner = PictureEncoder
    fields = {"picture": "picture", "label": "label"}  # noqa: RUF012
    models = PICTURE_MODELS
    rows = unit = "pictures"
    best = Best("macro_f1", higher=True)
    perplexity = False

    def check_options(self) -> None:
        options, start = self.options, self.start
        self.refuse(parallel=options.parallel, attention=options.attention, vocab_size=options.vocab_size)
        if options.model not in (None, *self.models):
            raise ConfigError(
                f"model={options.model!r} does not classify pictures; {nearest(options.model, self.models)}"
            )
        if start is not None and not isinstance(start, PictureEncoder):
            raise ConfigError(
                f"start={options.start!r} is a {type(start).__name__}; expected a model of pictures, such as a vision "
                "Transformer"
            )
        settings = self.settings("crop", "flip")
        self.flip = settings.get("flip", True)
        self.crop = settings.get("crop")
        if not isinstance(self.flip, bool):
            raise ConfigError(f"task_settings: flip={self.flip!r} must be true or false")
        if self.crop is not None and (type(self.crop) is not int or self.crop < 0):
            raise ConfigError(f"task_settings: crop={self.crop!r} must be a number of pixels, at least 0")

    @classmethod
    def convert(cls, record: Record) -> LabeledPicture | BadRow:
        return labeled_picture(record)

    @classmethod
    def read(cls, files: Sequence[str], **how: Any) -> Any:
        """As for every job; a folder is read as one with a folder of pictures for each class."""
        if not in_folders(files):
            return super().read(files, **how)
        return PictureFolders(fields=cls.fields, folders=tuple(files), skip_bad_rows=bool(how.get("skip_bad_rows")))

    def make_preparation(self) -> LabeledPictures:
        processor, size = self._processor()
        return LabeledPictures(processor, size, skip=self.options.skip_bad_rows)

    def build(self) -> nn.Module:
        labels = len(self.preparation.labels)
        if self.start is None:
            module: nn.Module = build(self._config().with_labels(labels))
            return module
        before = self.start.module
        if self.start.labels == self.preparation.labels:
            same: nn.Module = before
            return same
        model: nn.Module = build(replace(before.config.with_labels(labels), **self._dropout()))
        own = model.state_dict()
        kept = {n: x for n, x in before.state_dict().items() if n in own and not n.startswith("classifier.")}
        model.load_state_dict(kept, strict=False)
        return model

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        """Tokens of each picture: all have as many."""
        config = self._config() if self.start is None else self.start.module.config
        height, width = self.preparation.size
        tokens = (height // config.patch_size) * (width // config.patch_size) + config.num_special
        return np.full(len(rows), tokens)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> PictureBatch:
        store = self.store(split)
        pictures, labels = zip(*(store.row(int(row)) for row in rows), strict=True)
        x = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)
        if split == "train":  # torch's default generator is seeded by the step
            draw = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
            crop = self.preparation.size[0] // CROP_SHARE if self.crop is None else self.crop
            x = augment(x, padding=crop, flip=self.flip, generator=draw)
        return PictureBatch(
            self.data.processor.normalized(x), torch.from_numpy(np.concatenate(labels).astype(np.int64))
        )

    def loss(self, module: nn.Module, batch: PictureBatch) -> Loss:
        logits = module(batch.pictures).logits.float()
        smoothing = self.options.label_smoothing if torch.is_grad_enabled() else 0.0
        reported = functional.cross_entropy(logits, batch.labels, reduction="sum")
        minimized = functional.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
        return Loss(minimized, reported.detach())

    def measure(self, module: nn.Module, batch: PictureBatch) -> Tensor:
        """Loss, pictures, right ones; then of each label hits, decisions and true ones."""
        logits = module(batch.pictures).logits.float()
        true = functional.one_hot(batch.labels, logits.shape[1]).bool()
        decided = decisions(logits.softmax(-1), multi_label=False)
        loss = functional.cross_entropy(logits, batch.labels, reduction="sum")
        hits = (decided & true).sum(0)
        sums = [loss[None], torch.tensor([len(true)], device=loss.device), hits.sum()[None]]
        return torch.cat([x.double() for x in (*sums, hits, decided.sum(0), true.sum(0))])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        loss, pictures, right = sums[:3].tolist()
        hits, decided, true = sums[3:].view(3, -1)
        f1 = 2 * hits / (decided + true)
        return {"loss": loss / pictures, "accuracy": right / pictures, "macro_f1": float(f1[~f1.isnan()].mean())}

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        index = number % len(self.data.valid_records)
        record, (pixels, _) = self.data.valid_records[index], self.data.valid.row(index)
        [chosen] = self._runner(module, {}).classify([np.array(pixels[0])], top=3)
        ranked = ", ".join(f"{label} {probability:.2f}" for label, probability in chosen.labels)
        return [("picture", record.picture), ("label", record.label), ("output", ranked)]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        self._runner(module, {**training, "data": self.data.counts}).save(folder)

    def _runner(self, module: Any, training: Mapping[str, Any]) -> PictureEncoder:
        config = {"labels": self.preparation.labels, "training": dict(training)}
        return PictureEncoder(module, None, config, self.data.processor)

    def _config(self) -> ViTConfig | ConvAttentionConfig:
        """The configuration of a model that starts from random weights."""
        size, model = self.options.size, self.options.model or self.models[0]
        if size is not None and model != "vit":
            raise ConfigError(f"size={size!r}: {model} has no sizes by name; set its fields in model_settings")
        if size is not None and size not in PRESETS:
            raise ConfigError(f"ViT has no size {size!r}; {nearest(size, PRESETS)}")
        settings = {
            **(SMALL[model] if size is None else PRESETS[size]),
            **self._dropout(),
            **(self.options.model_settings or {}),
        }
        config: ViTConfig | ConvAttentionConfig = config_from_plain(model, settings)
        if config.num_channels != 3:
            raise ConfigError(f"model_settings: num_channels={config.num_channels}; pictures are read with 3, RGB")
        return config

    def _dropout(self) -> dict[str, float]:
        return {} if self.options.dropout is None else {"dropout": self.options.dropout}

    def _processor(self) -> tuple[PictureProcessor, tuple[int, int]]:
        """How pictures become inputs, and (H, W) of these."""
        config = self._config() if self.start is None else self.start.module.config
        square = (config.image_size, config.image_size)
        processor = PictureProcessor(size=square) if self.start is None else self.start.processor
        if processor.size is None and processor.crop is None:  # batches need pictures of one size
            processor = replace(processor, shortest_edge=None, size=square)
        return processor, processor.crop or processor.size or square
