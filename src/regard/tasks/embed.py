"""Sentence embeddings by pooling an encoder's hidden states."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer
from regard.data.text_tokenizer import TextTokenizer
from regard.errors import DataError
from regard.layers.evaluation import in_evaluation
from regard.models.pooling import Embedding, pools_of, size_of
from regard.models.text_encoder import TextEncoder
from regard.tasks.batched import batched
from regard.tasks.check import check_texts


class Embedded(NamedTuple):
    """Embeddings of texts."""

    vectors: Tensor  # (texts, D)
    cut: list[int]  # indices of the texts that were truncated


def embed(
    module: TextEncoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    *,
    embedding: Embedding = Embedding(),
    prompt: str = "",
    normalize: bool = True,
    batch_size: int = 32,
) -> Embedded:
    """A vector for each text.

    Args:
        module: the model.
        tokenizer: of the model.
        texts: any texts.
        embedding: pooling of the token vectors, special tokens included.
        prompt: prefix of each text.
        normalize: whether vectors have length 1, so that their products are cosines.
        batch_size: texts per batch.

    Returns:
        The vectors on the CPU, in the order of the texts, and the indices of truncated texts.

    Raises:
        ConfigError: an unknown pooling, or one whose size does not fit the following layer.
        DataError: texts that are not a list of strings, or a text without tokens.

    Source: the mean and its rivals: Reimers and Gurevych 2019, arXiv 1908.10084, section 3; "weightedmean" and
    "lasttoken": Muennighoff 2022, arXiv 2202.08904, section 4.
    """
    pools = pools_of(embedding, module.config.embed_dim)
    check_integer("embed", "batch_size", batch_size, 1)
    check_texts(texts)
    module = in_evaluation(module)
    max_length = min(embedding.max_length or module.max_length, module.max_length)
    bare = tokenizer.encode_batch([prompt + text for text in texts])
    marked = [tokenizer.marked(ids, max_length=max_length) for ids in bare]
    for number, ids in enumerate(marked, start=1):
        if not ids:
            raise DataError(f"text {number} has no tokens: {texts[number - 1]!r:.60}; leave it out")
    skipped = 0 if embedding.include_prompt or not prompt else _before(tokenizer, prompt)

    def run(tokens: Tensor, lengths: Tensor, chosen: list[int]) -> Tensor:
        hidden = module.encode(tokens, lengths)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        real = ((places < lengths[:, None]) & (places >= skipped))[..., None]
        pooled = torch.cat([pool(hidden, real) for pool in pools], -1)
        for step in embedding.steps:
            pooled = step(pooled)
        return (functional.normalize(pooled, dim=-1) if normalize else pooled).cpu()

    rows = batched(module, marked, run, batch_size=batch_size, pad=tokenizer.pad or 0)
    cut = [i for i, (ids, whole) in enumerate(zip(marked, bare, strict=True)) if ids != tokenizer.marked(whole)]
    return Embedded(torch.stack(rows) if rows else torch.empty(0, size_of(embedding, module.config.embed_dim)), cut)


def _before(tokenizer: TextTokenizer, prompt: str) -> int:
    """Number of tokens of a prompt and of the special tokens before it."""
    ids = tokenizer.encode(prompt)
    return next(
        i for i in range(len(tokenizer.marked(ids)) + 1) if tokenizer.marked(ids)[i : i + len(ids)] == ids
    ) + len(ids)
