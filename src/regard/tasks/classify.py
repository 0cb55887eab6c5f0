"""Classify: a text classifier, its training task and its evaluation."""

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.checkpoints import folder as folders
from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.errors import CheckpointError, ConfigError, DataError
from regard.lens.alignment import Alignment, merged
from regard.lens.explain import explained_view
from regard.lens.record import record
from regard.lens.studies import explain
from regard.lens.view import View
from regard.models.bert import Bert
from regard.models.registry import build, config_from_plain
from regard.models.text_classifier import TextClassifier
from regard.tasks.bag_of_words import BagOfWords, hashed_words
from regard.tasks.batched import batched
from regard.tasks.check import check_texts
from regard.tasks.classify_scores import (
    ClassifyEvaluation,
    confusion_of,
    decisions,
    f1_of,
    score,
)
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.labeled_texts import Labeled, LabeledTexts, labeled_text
from regard.tasks.runner import Runner
from regard.tasks.task import Best, Loss, Progress, Task
from regard.tasks.text_to_text import SUBWORDS

BASELINE = "bag_of_words.safetensors"
MAX_TOKENS = 256  # of a text that are read, unless the model was trained with another limit


class Classification(NamedTuple):
    """A text and the probability of each label, the most probable first."""

    text: str
    labels: list[tuple[str, float]]

    @property
    def label(self) -> str:
        """The most probable."""
        return self.labels[0][0]

    def __str__(self) -> str:
        return self.label


class LabeledBatch(NamedTuple):
    """Batch of texts and labels."""

    inputs: Tensor  # (B, S)
    lengths: Tensor  # (B,)
    labels: Tensor  # (B, labels), 1 for a label that a text has, else 0


@final
class Classifier(Runner):
    """A model that gives texts labels, with its tokenizer.

    Args:
        module: the torch module; `module(inputs, lengths)` gives named results, `logits` among them.
        tokenizer: of the model.
        config: fields of config.json: names of the labels under "labels", training settings under "training".
        baseline: logistic regression on the same training rows, or None.

    Raises:
        CheckpointError: a config without the names of the labels.
    """

    job: ClassVar[str] = "classify"

    def __init__(
        self,
        module: TextClassifier,
        tokenizer: Any,
        config: Mapping[str, Any] | None = None,
        baseline: BagOfWords | None = None,
    ) -> None:
        super().__init__(module, tokenizer, config)
        self.baseline = baseline
        labels = self.config.get("labels")
        if not isinstance(labels, list) or len(labels) != module.config.num_labels:
            raise CheckpointError(
                f'"labels" is {labels!r:.80}; expected the names of {module.config.num_labels} labels'
            )
        self.labels: list[str] = labels

    def probabilities(self, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """The probability of each label.

        Args:
            texts: any texts; tokens beyond the maximum length are truncated.
            batch_size: texts per batch.

        Returns:
            (texts, labels); rows sum to 1, except in multi-label models.

        Raises:
            DataError: texts that are not a list of strings.
        """
        check_texts(texts)
        if not len(texts):
            return torch.empty(0, len(self.labels))
        rows = [self.tokenizer.marked(ids, max_length=self.max_length) for ids in self.tokenizer.encode_batch(texts)]

        def run(tokens: Tensor, lengths: Tensor, chosen: list[int]) -> Tensor:
            logits = self.module(tokens, lengths).logits.float().cpu()
            return logits.sigmoid() if self.module.config.multi_label else logits.softmax(-1)

        return torch.stack(batched(self.module, rows, run, batch_size=batch_size, pad=self.tokenizer.pad or 0))

    def classify(self, texts: Sequence[str], *, top: int | None = None, batch_size: int = 32) -> list[Classification]:
        """The labels of texts; `str` of one is its most probable label.

        Args:
            texts: as for `probabilities`.
            top: how many labels of each text; None for all.
            batch_size: as for `probabilities`.

        Returns:
            A `Classification` for each text, in order.

        Raises:
            DataError: texts that are not a list of strings.
        """
        ranked = self.probabilities(texts, batch_size=batch_size).sort(dim=-1, descending=True)
        named = [
            [(self.labels[i], p) for i, p in zip(indices[:top], values[:top], strict=True)]
            for indices, values in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]
        return [Classification(text, labels) for text, labels in zip(texts, named, strict=True)]

    def evaluate(self, records: Iterable[Labeled], *, batch_size: int = 32) -> ClassifyEvaluation:
        """Accuracy, macro F1, confusion and calibration, beside those of the logistic regression on words.

        Args:
            records: texts with their labels.
            batch_size: texts per batch.

        Returns:
            The scores.

        Raises:
            DataError: no records, or a label that the model does not have.
        """
        rows, known = list(records), {label: i for i, label in enumerate(self.labels)}
        if not rows:
            raise DataError("no records to evaluate; give a file with at least one row")
        true = torch.zeros(len(rows), len(known), dtype=torch.bool)
        for number, row in enumerate(rows):
            for label in row.labels:
                if label not in known:
                    raise DataError(f"{row.place}: the model has no label {label!r}; it has {', '.join(known):.200}")
                true[number, known[label]] = True
        start = time.perf_counter()
        probabilities = self.probabilities([row.text for row in rows], batch_size=batch_size)
        seconds = time.perf_counter() - start
        several = self.module.config.multi_label
        decided = decisions(probabilities, multi_label=several)
        baseline = None
        if self.baseline is not None:
            expected = self.baseline.probabilities([hashed_words(row.text) for row in rows])
            baseline = score(expected, true, multi_label=several)
        return ClassifyEvaluation(
            labels=self.labels,
            scores=score(probabilities, true, multi_label=several),
            baseline=baseline,
            confusion=None if several else confusion_of(decided, true),
            f1=f1_of(decided, true).nan_to_num().tolist(),
            counts=true.sum(0).tolist(),
            texts=len(rows),
            seconds=seconds,
        )

    def see(self, text: str) -> Alignment:
        """Weight of each word in the pooled vector, for each hop, with the predicted label.

        Args:
            text: one or a few sentences.

        Returns:
            The pooling weights from the label to the words, one head per hop.

        Raises:
            DataError: a text without tokens.
        """
        [classification] = self.classify([text], top=1)
        ids = self.tokenizer.marked(self.tokenizer.encode(text), max_length=self.max_length)
        device = next(self.module.parameters()).device
        with torch.no_grad(), record(self.module, weights=True) as recording:
            self.module(torch.tensor([ids], device=device))
        words = self.tokenizer.words(ids)
        weights = merged(recording["pooling"].weights[0].float().cpu(), [range(1)], [pieces for _, pieces in words])
        names = [word for word, _ in words]
        return Alignment(source=names, target=[classification.label], weights={"pooling.cross_attention": weights})

    def explain(self, text: str, *, grid: int = 64, top: int = 8) -> View:
        """Which tokens of a text the label that it is given hangs on, by six methods, and how far each can be trusted.

        Args:
            text: one or a few sentences: the model runs several times for each token.
            grid: bins on each side of a map, at most.
            top: largest weights that are kept of each token.

        Returns:
            Attention and attributions, for `rg.lens` pages.

        Raises:
            DataError: a text of fewer than two tokens.
        """
        check_texts([text])
        explained = explain(self, text)
        if len(explained.ids) - len(explained.special) < 2:
            raise DataError(f"{text!r:.80} has fewer than two tokens; give a text of several words")
        if next(self.module.parameters()).device.type != "cpu":  # attributions are computed there
            explained = explained._replace(module=copy.deepcopy(self.module).cpu())
        tokens, label = self.tokenizer.pieces(explained.ids), self.labels[explained.label]
        return explained_view(explained, tokens, label, grid=grid, top=top, title=f"{label}: {text}")

    def extra_files(self) -> Mapping[str, bytes]:
        """The logistic regression, if there is one."""
        return {} if self.baseline is None else {BASELINE: self.baseline.to_bytes()}

    def read_extras(self, folder: Path) -> None:
        """Read the logistic regression, if it is there."""
        if (folder / BASELINE).is_file():
            self.baseline = BagOfWords.load(folder / BASELINE, multi_label=self.module.config.multi_label)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens of a text, special tokens included."""
        trained = self.config.get("training", {}).get("max_tokens", MAX_TOKENS)
        return min(trained, self.module.max_length or trained)


@final
class Classify(Task):
    """Training a classifier, from random weights or from a published encoder."""

    name = Classifier.job
    runner = Classifier
    fields = {"text": "text", "label": "label"}  # noqa: RUF012
    models = ("text-classifier",)
    rows = unit = "texts"
    best = Best("macro_f1", higher=True)
    perplexity = False

    _baseline: BagOfWords | None = None

    def check_options(self) -> None:
        options = self.options
        self.refuse(parallel=options.parallel, size=options.size, attention=options.attention)

    @classmethod
    def convert(cls, record: Record) -> Labeled | BadRow:
        return labeled_text(record)

    def make_preparation(self) -> LabeledTexts:
        options, start = self.options, self.start
        if start is not None and not isinstance(start, Classifier) and not isinstance(start.module, Bert):
            raise ConfigError(
                f"start={options.start!r} is a {type(start).__name__}; expected a published encoder such as BERT, or a "
                "classifier"
            )
        max_length = None if start is None else start.module.max_length
        return LabeledTexts(
            vocab_size=options.vocab_size or SUBWORDS,
            max_tokens=min(options.max_tokens, max_length or options.max_tokens),
            tokenizer=None if start is None else start.tokenizer,
        )

    def prepare(self, folder: Path, progress: Progress) -> None:
        super().prepare(folder, progress)
        if isinstance(self.start, Classifier) and self.start.labels != self.preparation.labels:
            raise ConfigError(
                f"start={self.options.start!r} has the labels {', '.join(self.start.labels):.200}; the records have "
                f"{', '.join(self.preparation.labels):.200}"
            )
        progress("fitting the bag of words", len(self.data.train))
        self._baseline = self._fit_baseline(folder / BASELINE)

    @property
    def summary(self) -> str:
        labels = f"{len(self.preparation.labels):,} labels"
        several = ", any number a text" if self.preparation.multi_label else ""
        return f"{super().summary}; {labels}{several}; {self._baseline_score()}"

    def build(self) -> nn.Module:
        if isinstance(self.start, Classifier):
            module: nn.Module = self.start.module
            return module
        settings: dict[str, Any] = dict(self.options.model_settings or {})
        if self.options.dropout is not None:
            settings.setdefault("dropout", self.options.dropout)
        settings |= {"num_labels": len(self.preparation.labels), "multi_label": self.preparation.multi_label}
        if self.start is None:
            settings["vocabulary"] = vocabulary_of(self.data.processor)
            classifier: nn.Module = build(config_from_plain(self.models[0], settings))
            return classifier
        encoder = replace(self.start.module.config, masked_words=False, pooler=False)
        tokens = {"size": encoder.vocab_size, "pad": self.data.processor.pad or 0, "bos": 0, "eos": 0}
        settings = {"hops": 1, "dropout": 0.1, **settings, "vocabulary": tokens, "encoder": encoder}
        classifier: TextClassifier = build(config_from_plain(self.models[0], settings))
        own = classifier.encoder.state_dict()
        state = {name: x for name, x in self.start.module.state_dict().items() if name in own}
        classifier.encoder.load_state_dict(state)
        return classifier

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        return self.store(split).lengths("text", rows)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> LabeledBatch:
        store = self.store(split)
        texts, labels, _ = zip(*(store.row(int(row)) for row in rows), strict=True)
        lengths = [len(ids) for ids in texts]
        inputs = np.full((len(texts), max(lengths)), self.data.processor.pad or 0, np.int64)
        for i, ids in enumerate(texts):
            inputs[i, : len(ids)] = ids
        return LabeledBatch(torch.from_numpy(inputs), torch.tensor(lengths), self._targets(labels))

    def loss(self, module: nn.Module, batch: LabeledBatch) -> Loss:
        output = module(batch.inputs, batch.lengths)
        logits, count = output.logits.float(), len(batch.lengths)
        smoothing = self.options.label_smoothing if torch.is_grad_enabled() else 0.0
        if self.preparation.multi_label:
            reported = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").sum(1).sum()
            minimized = reported
        else:
            reported = functional.cross_entropy(logits, batch.labels, reduction="sum")
            minimized = functional.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
        return Loss(minimized + count * output.penalty, reported.detach())

    def measure(self, module: nn.Module, batch: LabeledBatch) -> Tensor:
        """Sums (3 + 3 labels,): loss, texts, texts all correct; then true positives, predictions and true labels."""
        logits, true = module(batch.inputs, batch.lengths).logits.float(), batch.labels.bool()
        several = self.preparation.multi_label
        decided = decisions(logits.sigmoid() if several else logits.softmax(-1), multi_label=several)
        if several:
            loss = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").sum()
        else:
            loss = functional.cross_entropy(logits, batch.labels, reduction="sum")
        right = (decided == true).all(1).sum()
        sums = [loss[None], torch.tensor([len(true)], device=loss.device), right[None]]
        return torch.cat([*(x.double() for x in (*sums, (decided & true).sum(0), decided.sum(0), true.sum(0)))])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        loss, texts, right = sums[:3].tolist()
        hits, decided, true = sums[3:].view(3, -1)
        f1 = 2 * hits / (decided + true)
        return {"loss": loss / texts, "accuracy": right / texts, "macro_f1": float(f1[~f1.isnan()].mean())}

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        record = self.data.valid_records[number % len(self.data.valid_records)]
        [classification] = self._runner(module, {}).classify([record.text], top=3)
        ranked = ", ".join(f"{label} {probability:.2f}" for label, probability in classification.labels)
        return [("text", f"{record.text:.200}"), ("label", ", ".join(record.labels)), ("output", ranked)]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        sizes = {"max_tokens": self.preparation.max_tokens, "data": self.data.counts}
        self._runner(module, {**training, **sizes}).save(folder)

    def _runner(self, module: Any, training: Mapping[str, Any]) -> Classifier:
        limits = {"max_tokens": self.preparation.max_tokens}
        config = {"labels": self.preparation.labels, "training": {**limits, **training}}
        return Classifier(module, self.data.processor, config, self._baseline)

    def _targets(self, labels: Iterable[Iterable[int]]) -> Tensor:
        """Label indices as multi-hot rows (B, labels)."""
        rows = list(labels)
        targets = torch.zeros(len(rows), len(self.preparation.labels))
        for i, numbers in enumerate(rows):
            targets[i, [int(number) for number in numbers]] = 1
        return targets

    def _fit_baseline(self, path: Path) -> BagOfWords:
        several = self.preparation.multi_label
        if path.is_file():
            return BagOfWords.load(path, multi_label=several)
        _, labels, words = zip(*(self.data.train.row(i) for i in range(len(self.data.train))), strict=True)
        baseline = BagOfWords.fit(words, self._targets(labels), multi_label=several)
        folders.write_all(path.parent, {path.name: lambda file: file.write_bytes(baseline.to_bytes())})
        return baseline

    def _baseline_score(self) -> str:
        """Scores of the baseline on the held-out texts, as one line."""
        _, labels, words = zip(*(self.data.valid.row(i) for i in range(len(self.data.valid))), strict=True)
        several = self.preparation.multi_label
        scores = score(self._baseline.probabilities(words), self._targets(labels).bool(), multi_label=several)
        return f"bag of words, held out: accuracy {scores.accuracy:.3f}, macro F1 {scores.macro_f1:.3f}"
