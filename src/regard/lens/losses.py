"""The loss of a model on records, as studies of heads need it: one call of each attention."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.errors import DataError, UnsupportedError
from regard.models.pointer_generator import PointerGenerator
from regard.models.seq2seq import Seq2Seq
from regard.models.text_classifier import TextClassifier

IGNORED = -100  # a target that is padding


def loss_of(runner: Any, records: Sequence[Sequence[str]]) -> Callable[[nn.Module], Tensor]:
    """The mean loss over records, as a function of the module.

    Args:
        runner: a translator or summarizer on subwords, or a classifier.
        records: source and target, or text and label, of each.

    Returns:
        From a module to its loss.

    Raises:
        DataError: no records, one without a second column, or an unknown label.
        UnsupportedError: another model.
    """
    if not records:
        raise DataError("no records; give a file with at least one line")
    for number, record in enumerate(records, start=1):
        if len(record) < 2:
            raise DataError(f"record {number} has one column; expected two, with a tab between them")
    if isinstance(runner.module, TextClassifier):
        return _classifier_loss(runner, records)
    if isinstance(runner.module, Seq2Seq) and not isinstance(runner.module, PointerGenerator):
        return _translator_loss(runner, records)
    raise UnsupportedError(f"lens heads: a {type(runner).__name__} has no loss here; give a translator or a classifier")


def _classifier_loss(runner: Any, records: Sequence[Sequence[str]]) -> Callable[[nn.Module], Tensor]:
    rows = [
        runner.tokenizer.marked(runner.tokenizer.encode(text), max_length=runner.max_length) for text, *_ in records
    ]
    unknown = {label for _, label, *_ in records} - set(runner.labels)
    if unknown:
        raise DataError(f"the model has no label {min(unknown)!r}; it has {', '.join(runner.labels):.200}")
    labels = torch.tensor([runner.labels.index(label) for _, label, *_ in records])
    tokens, lengths = _padded(rows, runner.tokenizer.pad or 0)
    return lambda module: functional.cross_entropy(module(tokens, lengths).logits.float(), labels)


def _translator_loss(runner: Any, records: Sequence[Sequence[str]]) -> Callable[[nn.Module], Tensor]:
    vocabulary, tokenizer = runner.module.vocabulary, runner.tokenizer
    sources = [[*tokenizer.encode(source), vocabulary.eos] for source, *_ in records]
    targets = [[*tokenizer.encode(target, target=True), vocabulary.eos] for _, target, *_ in records]
    inputs, lengths = _padded(sources, vocabulary.pad)
    read, _ = _padded([[vocabulary.bos, *target[:-1]] for target in targets], vocabulary.pad)
    expected, _ = _padded(targets, IGNORED)

    def loss(module: nn.Module) -> Tensor:
        logits = module(inputs, lengths, read).logits.float()
        return functional.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=IGNORED)

    return loss


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    tensors = [torch.tensor(list(row)) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=pad), torch.tensor([len(x) for x in rows])
