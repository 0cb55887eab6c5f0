"""What every model that reads a source and writes a target can do: be trained, and be run a token at a time.

Training sees whole targets (`forward`); running goes `encode`, `start`, then `step` after `step`. Both give the same
logits for the same tokens. Sources are padded at the right with `config.pad`; targets start with `config.bos`.

Layout: B sentences, S source tokens, T target tokens, K hypotheses of each sentence, F features, N the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.attention.pattern import Full, Pattern
from regard.attention.sequence_pattern import KeyLengths
from regard.attention.watched import recorded
from regard.errors import ShapeError
from regard.layers.packing import Packing, packing


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """How many tokens there are, and which of them have a duty.

    Args:
        size: N.
        pad: fills the places after the end of a source.
        bos: what every target starts with.
        eos: what every source and target ends with.
        more_eos: other tokens that end what a model writes.
        never: tokens that no target has, however probable.
    """

    size: int
    pad: int = 0
    bos: int = 1
    eos: int = 2
    more_eos: tuple[int, ...] = ()
    never: tuple[int, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """The same as JSON's types; no `more_eos` and no `never` where there are none."""
        plain = {"size": self.size, "pad": self.pad, "bos": self.bos, "eos": self.eos}
        several = {"more_eos": list(self.more_eos), "never": list(self.never)}
        return {**plain, **{name: tokens for name, tokens in several.items() if tokens}}

    def allowed(self, scores: Tensor) -> Tensor:
        """Scores (..., N) with -inf for the tokens that no target has."""
        if not self.never:
            return scores
        return scores.index_fill(-1, torch.tensor(self.never, device=scores.device), -torch.inf)

    def ends(self, tokens: Tensor) -> Tensor:
        """Which of the tokens end a text: booleans of their shape."""
        found = tokens == self.eos
        for token in self.more_eos:
            found |= tokens == token
        return found


class Memory(NamedTuple):
    """What a model knows of its sources: one row a source token."""

    states: Tensor  # (B, S, D)
    lengths: Tensor  # (B,): source tokens that are not padding
    extra: tuple[Tensor, ...] = ()  # (B, ...): what else a model keeps, such as a decoder's first state

    def keep(self, sentences: Tensor) -> "Memory":
        """The memory of some of the sentences, (B',) indices."""
        return Memory(self.states[sentences], self.lengths[sentences], tuple(x[sentences] for x in self.extra))

    @property
    def pattern(self) -> Pattern:
        """Which keys may be attended to: not the padding."""
        full = self.states.shape[1]
        if not recorded() and bool((self.lengths == full).all()):  # what is recorded reads no data
            return Full()
        return KeyLengths(self.lengths)

    def packing(self, module: nn.Module) -> Packing | None:
        """How a module can compute with the states alone, and not with padding; see there."""
        return packing(module, self.lengths, self.states.shape[1])

    def through(self, run: Callable[[Tensor, Pattern], Tensor], packing: Packing | None) -> "Memory":
        """What `run(states, pattern)` makes of the states, (B, S, D) or, packed, (1, N, D)."""
        if packing is None:
            return Memory(run(self.states, self.pattern), self.lengths)
        return Memory(packing.unpack(run(packing.pack(self.states), packing.pattern)), self.lengths)


class Seq2SeqOutput(NamedTuple):
    """What a model says of given targets."""

    logits: Tensor  # (B, T, N): of the token after each target token
    features: Tensor  # (B, T, F): what the logits are projected from
    memory: Memory


class State(ABC):
    """What a model keeps between the steps of B sentences with K hypotheses each."""

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Go on from other hypotheses: the k-th becomes a copy of the parents[b, k]-th of sentence b; (B, K')."""

    @abstractmethod
    def keep(self, sentences: Tensor) -> None:
        """Go on with some of the sentences, (B',) indices in order."""


class Seq2Seq(nn.Module, ABC):
    """A model that reads a source and writes a target."""

    config: Any  # the frozen dataclass that it was built from
    vocabulary: Vocabulary

    @property
    def longest(self) -> int | None:
        """Tokens that a source or a target may have at most, marks counted; None for no bound."""
        return None

    @abstractmethod
    def encode(self, source: Tensor) -> Memory:
        """What the model knows of the sources (B, S)."""

    @abstractmethod
    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """The features (B, T, F) after each token of whole targets (B, T), each of which sees those before it."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """The logits (..., N) of the next token, from features (..., F)."""

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """The state before the first step: one hypothesis a sentence."""

    @abstractmethod
    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The features (B, K, F) after one more token of each hypothesis (B, K); the state moves on."""

    def forward(self, source: Tensor, target: Tensor) -> Seq2SeqOutput:
        """The logits of the token after each target token.

        Args:
            source: token ids (B, S), each source ending with `eos` and then padded with `pad`.
            target: token ids (B, T), each starting with `bos`; what stands after its end is not looked at by what
                stands before.

        Returns:
            A `Seq2SeqOutput`: logits (B, T, N), features (B, T, F) and the memory of the sources.

        Raises:
            ShapeError: something else than two tensors of integers (B, S) and (B, T).
        """
        check_tokens(source, target)
        memory = self.encode(source)
        features = self.decode(target, memory)
        return Seq2SeqOutput(self.project(features), features, memory)

    def lengths(self, source: Tensor) -> Tensor:
        """How many tokens of each source (B, S) are not padding, (B,)."""
        return (source != self.vocabulary.pad).sum(1)


def check_tokens(source: Tensor, target: Tensor) -> None:
    """Raise ShapeError unless these are the token ids of as many sources as targets."""
    for name, x in (("source", source), ("target", target)):
        if not isinstance(x, Tensor) or x.dim() != 2 or x.dtype not in (torch.int64, torch.int32) or not x.numel():
            got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)
            raise ShapeError(f"{name} is {got}; expected token ids, integers of shape (batch, length), not empty")
    if source.shape[0] != target.shape[0]:
        raise ShapeError(f"source has {source.shape[0]} rows and target {target.shape[0]}; expected as many of each")
