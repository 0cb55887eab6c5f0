"""Texts as vectors, by a model that reads a text as a whole."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer
from regard.data.text_tokenizer import TextTokenizer
from regard.errors import ConfigError, DataError, nearest
from regard.layers.evaluation import in_evaluation
from regard.models.text_encoder import TextEncoder
from regard.tasks.batched import batched
from regard.tasks.translate import check_texts

Pool = Callable[[Tensor, Tensor], Tensor]


def _mean(hidden: Tensor, real: Tensor) -> Tensor:
    weights = real.to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


# The vector (B, D) of each text from those of its tokens (B, L, D), of which (B, L, 1) are real.
POOLINGS: dict[str, Pool] = {
    "mean": _mean,
    "cls": lambda hidden, real: hidden[:, 0],
    "max": lambda hidden, real: hidden.masked_fill(~real, -torch.inf).amax(1),
}


class Embedded(NamedTuple):
    """Texts as vectors."""

    vectors: Tensor  # (texts, D)
    cut: list[int]  # the numbers of the texts that were too long, from 0


def embed(
    module: TextEncoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    *,
    pooling: str = "mean",
    normalize: bool = True,
    longest: int | None = None,
    batch_size: int = 32,
) -> Embedded:
    """A vector for each text.

    Args:
        module: the model.
        tokenizer: of the model.
        texts: any texts.
        pooling: how a text's vector comes from those of its tokens, marks included: "mean", "max", or "cls", the
            first one's.
        normalize: whether vectors have length 1, so that their products are cosines.
        longest: tokens that are read of a text, marks counted; the model's longest by default. The rest is cut.
        batch_size: texts that run together.

    Returns:
        The vectors on the CPU, in the order of the texts, and which texts were cut.

    Raises:
        ConfigError: an unknown pooling.
        DataError: something else than a list of texts, or a text without tokens.

    Source: the mean and its rivals: Reimers and Gurevych 2019, arXiv 1908.10084, section 3.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"embed: unknown pooling {pooling!r}; {nearest(pooling, POOLINGS)}")
    check_integer("embed", "batch_size", batch_size, 1)
    check_texts(texts)
    module = in_evaluation(module)
    longest = min(longest or module.longest, module.longest)
    bare = tokenizer.encode_batch(texts)
    marked = [tokenizer.marked(ids, longest=longest) for ids in bare]
    for number, ids in enumerate(marked, start=1):
        if not ids:
            raise DataError(f"text {number} has no tokens: {texts[number - 1]!r:.60}; leave it out")

    def run(tokens: Tensor, lengths: Tensor, chosen: list[int]) -> Tensor:
        hidden = module.encode(tokens, lengths)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        pooled = POOLINGS[pooling](hidden, real[..., None])
        return (functional.normalize(pooled, dim=-1) if normalize else pooled).cpu()

    rows = batched(module, marked, run, batch_size=batch_size, pad=tokenizer.pad or 0)
    cut = [i for i, (ids, whole) in enumerate(zip(marked, bare, strict=True)) if ids != tokenizer.marked(whole)]
    size: int = module.config.embed_dim
    return Embedded(torch.stack(rows) if rows else torch.empty(0, size), cut)
