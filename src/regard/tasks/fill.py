"""Fill-mask: predict masked words."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regard.attention.check import check_integer
from regard.data.text_tokenizer import TextTokenizer
from regard.errors import DataError, UnsupportedError
from regard.layers.evaluation import in_evaluation
from regard.models.text_encoder import TextEncoder
from regard.tasks.batched import batched
from regard.tasks.check import check_texts


class Word(NamedTuple):
    """A candidate for a mask."""

    text: str
    probability: float  # given the text around it, other masks as they are
    token: int


class Filling(NamedTuple):
    """A text with masks, and the candidates for each, best first."""

    source: str
    mask: str  # the mask token
    places: list[list[Word]]

    @property
    def text(self) -> str:
        """The text with the best candidate for each mask."""
        return self.with_words([words[0] for words in self.places])

    def with_words(self, words: Sequence[Word]) -> str:
        """The text with the masks replaced by words."""
        parts = self.source.split(self.mask)
        return "".join([parts[0], *(word.text + part for word, part in zip(words, parts[1:], strict=True))])

    def __str__(self) -> str:
        return self.text


def fill(
    module: TextEncoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    *,
    top: int = 5,
    batch_size: int = 32,
) -> list[Filling]:
    """The most probable words for the masks of texts.

    Args:
        module: a model with a masked-word head.
        tokenizer: of the model.
        texts: each with at least one mask.
        top: words for each mask.
        batch_size: texts per batch.

    Returns:
        A filling for each text, in order.

    Raises:
        UnsupportedError: a model without such a head, or a vocabulary without a mask.
        DataError: texts that are not a list of strings, or a text without a mask or that is too long.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1, task 1.
    """
    check_integer("fill", "top", top, 1)
    check_integer("fill", "batch_size", batch_size, 1)
    check_texts(texts)
    module = in_evaluation(module)
    if module.project(torch.zeros(0, module.config.embed_dim, device=next(module.parameters()).device)) is None:
        raise UnsupportedError("fill: the checkpoint has no masked-word head; it can embed texts, or be looked into")
    mask = tokenizer.roles.get("mask")
    if mask is None:
        raise UnsupportedError("fill: the vocabulary has no mask token; expected one such as [MASK]")
    marked = tokenizer.encode_batch(texts, marks=True)
    for number, (text, ids) in enumerate(zip(texts, marked, strict=True), start=1):
        if ids.count(tokenizer.mask) != text.count(mask) or mask not in text:
            raise DataError(f"text {number} has no {mask}: {text!r:.60}; write {mask} where a word is to be found")
        if len(ids) > module.max_length:
            raise DataError(f"text {number} has {len(ids)} tokens; expected at most {module.max_length}: shorten it")

    def run(tokens: Tensor, lengths: Tensor, chosen: list[int]) -> list[list[list[Word]]]:
        rows, columns = (tokens == tokenizer.mask).nonzero(as_tuple=True)
        logits = module.project(module.encode(tokens, lengths)[rows, columns])
        best = logits.float().softmax(-1).topk(min(top, logits.shape[-1]))
        places: list[list[list[Word]]] = [[] for _ in chosen]
        for row, chances, ids in zip(rows.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
            words = zip(tokenizer.pieces(ids), chances, ids, strict=True)
            places[row].append([Word(text, chance, i) for text, chance, i in words])
        return places

    rows = batched(module, marked, run, batch_size=batch_size, pad=tokenizer.pad or 0)
    return [Filling(text, mask, places) for text, places in zip(texts, rows, strict=True)]
