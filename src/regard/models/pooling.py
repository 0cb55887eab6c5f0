"""How the vectors of a text's tokens become one of the text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from regard.attention.check import show
from regard.errors import ConfigError, nearest

SMALLEST = 1e-9  # sum of weights that a mean is divided by
Pool = Callable[[Tensor, Tensor], Tensor]


def _mean(hidden: Tensor, weights: Tensor) -> Tensor:
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=SMALLEST)


def _by_position(hidden: Tensor, real: Tensor) -> Tensor:
    positions = torch.arange(1, real.shape[1] + 1, device=real.device, dtype=hidden.dtype)
    return _mean(hidden, real * positions[:, None])


def _first(hidden: Tensor, real: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), real[..., 0].int().argmax(1)]


def _last(hidden: Tensor, real: Tensor) -> Tensor:
    places = torch.arange(1, real.shape[1] + 1, device=real.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), (real[..., 0] * places).argmax(1)]


# The vector (B, D) of each text from those of its tokens (B, L, D), of which (B, L, 1) count.
POOLINGS: dict[str, Pool] = {
    "cls": _first,
    "max": lambda hidden, real: hidden.masked_fill(~real, -torch.inf).amax(1),
    "mean": lambda hidden, real: _mean(hidden, real.to(hidden.dtype)),
    "mean_sqrt_len_tokens": lambda hidden, real: (hidden * real).sum(1) / real.sum(1).clamp(min=1).sqrt(),
    "weightedmean": _by_position,
    "lasttoken": _last,
}
TOGETHER = "+"  # between the names of poolings whose vectors stand one after the other


@final
@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How the vectors of tokens become one of a text, as a checkpoint says it.

    Args:
        pooling: of `POOLINGS`, or several joined by "+", whose vectors are joined.
        include_prompt: whether the tokens of a prompt count.
        longest: tokens that are read of a text, marks counted; None for the model's longest.
        prompts: what may stand before a text, by name.
        default_prompt_name: the one that stands there unless another is asked for; None for none.
        similarity: what vectors are compared by: "cosine", "dot", "euclidean" or "manhattan".
        steps: what is done with the text's vector after pooling, one after the other.
    """

    pooling: str = "mean"
    include_prompt: bool = True
    longest: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    steps: tuple[nn.Module, ...] = ()

    def prompt(self, text: str | None, name: str | None) -> str:
        """What stands before each text.

        Args:
            text: itself; None if it is not said.
            name: of one of the prompts; None for the default one.

        Returns:
            The text, empty for nothing.

        Raises:
            ConfigError: a name that there is not, or a name beside a text.
        """
        if text is not None and name is not None:
            raise ConfigError(f"embed: prompt={text!r:.60} and prompt_name={name!r} exclude each other; give one")
        if text is not None:
            return text
        name = self.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = nearest(name, self.prompts) if self.prompts else "it names none"
            raise ConfigError(f"embed: the checkpoint has no prompt {name!r}; {known} (prompt= takes one of your own)")
        return self.prompts[name]


def size_of(embedding: Embedding, size: int) -> int:
    """The numbers of a text's vector, of those of a token's."""
    size *= len(embedding.pooling.split(TOGETHER))
    for step in embedding.steps:
        size = getattr(step, "out_features", size)
    return size


def pools_of(embedding: Embedding, size: int) -> list[Pool]:
    """What makes each part of the vectors, of tokens' vectors of so many numbers.

    Raises:
        ConfigError: an unknown pooling, or one whose vectors the next step does not take.
    """
    names = embedding.pooling.split(TOGETHER)
    for name in names:
        if name not in POOLINGS:
            raise ConfigError(f"embed: unknown pooling {name!r}; {nearest(name, POOLINGS)}")
    pooled = size * len(names)
    for step in embedding.steps:
        taken = getattr(step, "in_features", None)
        if taken is not None:
            if taken != pooled:
                raise ConfigError(
                    f"embed: pooling={show(embedding.pooling)} gives {pooled} numbers, and the checkpoint's next step "
                    f"takes {taken}; leave pooling as the checkpoint says it"
                )
            break
    return [POOLINGS[name] for name in names]
