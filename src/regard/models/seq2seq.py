"""Encoder-decoder models: trained on whole targets, decoded a token at a time.

Training calls the module itself, on whole targets; decoding calls `prefill`, then `step` after `step`. Both give the
same logits for the same tokens. Inputs are token ids, or feature vectors where a model says so; they are padded at the
right, where `lengths` ends. Targets start with `vocabulary.bos`.

Layout: B sequences, S inputs, T target tokens, K hypotheses of each sequence, F features, N the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.attention.engine.tracing import opaque
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.attention.value import short_repr
from regard.layers.output_projection import CrossEntropy, OutputProjection
from regard.layers.packing import Packing, packing
from regard.models.padding import check_lengths, check_tokens


@dataclass(frozen=True, kw_only=True, repr=False)
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

    __repr__ = short_repr

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
        full = not opaque() and bool((self.lengths == self.states.shape[1]).all())
        return Full() if full else KeyLengths(self.lengths)

    def packing(self, module: nn.Module) -> Packing | None:
        """How a module can compute with the states alone, and not with padding; see there."""
        return packing(module, self.lengths, self.states.shape[1])

    def through(self, run: Callable[[Tensor, Pattern], Tensor], packing: Packing | None) -> "Memory":
        """What `run(states, pattern)` makes of the states, (B, S, D) or, packed, (1, N, D)."""
        if packing is None:
            return Memory(run(self.states, self.pattern), self.lengths)
        return Memory(packing.unpack(run(packing.pack(self.states), packing.pattern)), self.lengths)


class Seq2SeqOutput(NamedTuple):
    """Outputs of an encoder-decoder on whole targets."""

    hidden: Tensor  # (B, T, F): the decoder's last states
    projection: OutputProjection  # of these to logits
    memory: Memory

    @property
    def logits(self) -> Tensor:
        """(B, T, N): of the token after each target token. Computed when it is read."""
        return self.projection.logits(self.hidden)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, T), see `OutputProjection.cross_entropy`."""
        return self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)


class State(ABC):
    """What a model keeps between the steps of B sentences with K hypotheses each."""

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Go on from other hypotheses: the k-th becomes a copy of the parents[b, k]-th of sentence b; (B, K')."""

    @abstractmethod
    def keep(self, sentences: Tensor) -> None:
        """Go on with some of the sentences, (B',) indices in order."""


class Seq2Seq(nn.Module, ABC):
    """A model that reads a sequence and writes another."""

    config: Any  # the frozen dataclass that it was built from
    vocabulary: Vocabulary
    continues_input = False  # whether what it writes goes on from what it reads, as a language model's does
    copies = False  # whether sources and targets may hold words of a source beyond the vocabulary

    @property
    def longest(self) -> int | None:
        """Tokens that a source or a target may have at most, marks counted; None for no bound."""
        return None

    @property
    @abstractmethod
    def projection(self) -> OutputProjection:
        """The map from the decoder's states to logits."""

    @abstractmethod
    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        """The encoder's states of inputs (B, S), of which lengths (B,) are not padding; None for all."""

    @abstractmethod
    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        """The decoder's states (B, T, F) at each token of whole targets (B, T), each of which sees those before it."""

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """The state before the first step: one hypothesis a sequence."""

    @abstractmethod
    def advance(self, tokens: Tensor, state: State) -> Tensor:
        """The decoder's states (B, K, F) after one more token of each hypothesis (B, K); `state` moves on."""

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> Seq2SeqOutput:
        """The decoder's states and logits at each target token.

        Args:
            inputs: token ids (B, S), each row ending with `eos` before its padding.
            lengths: (B,), how many inputs of each row are not padding; None for all.
            targets: token ids (B, T), each row starting with `bos`; no token sees those after it.

        Returns:
            A `Seq2SeqOutput`: logits (B, T, N), hidden (B, T, F) and the encoder's memory.

        Raises:
            ShapeError: inputs, lengths or targets of another shape or type.
        """
        self.check_inputs(inputs, lengths)
        check_tokens("targets", targets, rows=len(inputs))
        memory = self.encode(inputs, lengths)
        return Seq2SeqOutput(self.decode(targets, memory), self.projection.as_called(), memory)

    def prefill(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[State, Tensor]:
        """The state before the first step, and the token (B,) that each sequence starts with.

        Args:
            inputs: as for `forward`.
            lengths: as for `forward`.

        Returns:
            The state, one hypothesis a sequence; and `bos` (B,).
        """
        self.check_inputs(inputs, lengths)
        state = self.start(self.encode(inputs, lengths))
        return state, torch.full((len(inputs),), self.vocabulary.bos, device=inputs.device)

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The logits (B, K, N) after one more token of each hypothesis (B, K); `state` moves on."""
        return self.projection.logits(self.advance(tokens, state))

    def collate(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Sources of token ids as `inputs` (B, S), ended with `eos` and padded, and their `lengths` (B,)."""
        ends = [[*source, self.vocabulary.eos] for source in sources]
        lengths = torch.tensor([len(row) for row in ends])
        width = int(lengths.max())
        return torch.tensor([row + [self.vocabulary.pad] * (width - len(row)) for row in ends]), lengths

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are what the encoder reads: token ids (B, S), and lengths (B,)."""
        check_tokens("inputs", inputs)
        check_lengths(inputs, lengths)

    def source_lengths(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Lengths (B,): those given, or those of inputs without padding."""
        return inputs.new_full((len(inputs),), inputs.shape[1], dtype=torch.int64) if lengths is None else lengths
