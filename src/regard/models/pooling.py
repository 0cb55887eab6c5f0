"""Pooling of token vectors into one vector for each text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from regard.attention.check import show
from regard.errors import ConfigError, nearest

MIN_WEIGHT_SUM = 1e-9  # avoids division by 0 in a mean over no tokens
Pool = Callable[[Tensor, Tensor], Tensor]


def _mean(hidden: Tensor, weights: Tensor) -> Tensor:
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=MIN_WEIGHT_SUM)


def _position_weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=hidden.dtype)
    return _mean(hidden, mask * positions[:, None])


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), mask[..., 0].int().argmax(1)]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), (mask[..., 0] * positions).argmax(1)]


# Functions from hidden (B, L, D) and a boolean mask (B, L, 1), True at the tokens that are pooled, to (B, D).
POOLINGS: dict[str, Pool] = {
    "cls": _first,
    "max": lambda hidden, mask: hidden.masked_fill(~mask, -torch.inf).amax(1),
    "mean": lambda hidden, mask: _mean(hidden, mask.to(hidden.dtype)),
    "mean_sqrt_len_tokens": lambda hidden, mask: (hidden * mask).sum(1) / mask.sum(1).clamp(min=1).sqrt(),
    "weightedmean": _position_weighted_mean,
    "lasttoken": _last,
}
SEPARATOR = "+"  # between the names of poolings whose vectors are concatenated


@final
@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a checkpoint computes text embeddings from token vectors.

    Args:
        pooling: a key of `POOLINGS`, or several joined by "+", whose vectors are concatenated.
        include_prompt: whether the tokens of a prompt are pooled.
        max_length: maximum number of tokens of a text, special tokens included; None for the model's.
        prompts: texts that may be put before a text, by name.
        default_prompt_name: the prompt that is used by default; None for none.
        similarity: measure for comparing embeddings: "cosine", "dot", "euclidean" or "manhattan".
        steps: modules that are applied to the pooled vector, in order.
    """

    pooling: str = "mean"
    include_prompt: bool = True
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    steps: tuple[nn.Module, ...] = ()

    def prompt(self, text: str | None, name: str | None) -> str:
        """The prompt that is put before each text.

        Args:
            text: the prompt itself; None to use a named one.
            name: a key of `prompts`; None for the default prompt.

        Returns:
            The prompt, empty for none.

        Raises:
            ConfigError: an unknown name, or both a text and a name.
        """
        if text is not None and name is not None:
            raise ConfigError(f"embed: got both prompt={text!r:.60} and prompt_name={name!r}; pass only one")
        if text is not None:
            return text
        name = self.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = nearest(name, self.prompts) if self.prompts else "it has no prompts"
            raise ConfigError(f"embed: the checkpoint has no prompt {name!r}; {known} (prompt= takes any text)")
        return self.prompts[name]


def size_of(embedding: Embedding, size: int) -> int:
    """The size of a text embedding, from the size of token vectors."""
    size *= len(embedding.pooling.split(SEPARATOR))
    for step in embedding.steps:
        size = getattr(step, "out_features", size)
    return size


def pools_of(embedding: Embedding, size: int) -> list[Pool]:
    """The pooling functions of an embedding, whose vectors are concatenated.

    Args:
        embedding: which poolings, and the steps after them.
        size: of token vectors.

    Returns:
        Values of `POOLINGS`.

    Raises:
        ConfigError: an unknown pooling, or one whose output has another size than the next step's input.
    """
    names = embedding.pooling.split(SEPARATOR)
    for name in names:
        if name not in POOLINGS:
            raise ConfigError(f"embed: unknown pooling {name!r}; {nearest(name, POOLINGS)}")
    pooled = size * len(names)
    for step in embedding.steps:
        in_features = getattr(step, "in_features", None)
        if in_features is not None:
            if in_features != pooled:
                raise ConfigError(
                    f"embed: pooling={show(embedding.pooling)} gives vectors of size {pooled}, and the checkpoint's "
                    f"next step expects {in_features}; use the checkpoint's own pooling"
                )
            break
    return [POOLINGS[name] for name in names]
