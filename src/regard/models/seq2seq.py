"""Interface of encoder-decoder models.

Training calls the module itself on whole targets; decoding calls `prefill`, then `step` for each token. Both give the
same logits. Inputs are token ids, or feature vectors in models that say so, padded on the right. Targets start with
`vocabulary.bos`.

Shapes: B sequences, S inputs, T target tokens, K hypotheses of each sequence, F features, N tokens in the vocabulary.
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
    """The number of tokens, and the ids of special tokens.

    Args:
        size: N, number of tokens.
        pad: padding token.
        bos: start token of targets.
        eos: end token of sources and targets.
        more_eos: further end tokens of generated targets.
        never: tokens that are never generated.
    """

    size: int
    pad: int = 0
    bos: int = 1
    eos: int = 2
    more_eos: tuple[int, ...] = ()
    never: tuple[int, ...] = ()

    __repr__ = short_repr

    def to_plain(self) -> dict[str, Any]:
        """The fields as a dictionary of JSON types; empty `more_eos` and `never` are left out."""
        plain = {"size": self.size, "pad": self.pad, "bos": self.bos, "eos": self.eos}
        lists = {"more_eos": list(self.more_eos), "never": list(self.never)}
        return {**plain, **{name: tokens for name, tokens in lists.items() if tokens}}

    def allowed(self, scores: Tensor) -> Tensor:
        """Scores (..., N) with -inf for the tokens in `never`."""
        if not self.never:
            return scores
        return scores.index_fill(-1, torch.tensor(self.never, device=scores.device), -torch.inf)

    def ends(self, tokens: Tensor) -> Tensor:
        """Whether each token is an end token: booleans of the same shape."""
        is_end = tokens == self.eos
        for token in self.more_eos:
            is_end |= tokens == token
        return is_end


class Memory(NamedTuple):
    """Output of the encoder."""

    states: Tensor  # (B, S, D): hidden states
    lengths: Tensor  # (B,): lengths of sources without padding
    extra: tuple[Tensor, ...] = ()  # (B, ...): further tensors, such as the decoder's first state

    def keep(self, sentences: Tensor) -> "Memory":
        """The memory of some of the sentences, as indices (B',)."""
        return Memory(self.states[sentences], self.lengths[sentences], tuple(x[sentences] for x in self.extra))

    @property
    def pattern(self) -> Pattern:
        """The attention pattern that hides padding."""
        full = not opaque() and bool((self.lengths == self.states.shape[1]).all())
        return Full() if full else KeyLengths(self.lengths)

    def packing(self, module: nn.Module) -> Packing | None:
        """The packing with which a module skips padding; None if it cannot. See `layers.packing.packing`."""
        return packing(module, self.lengths, self.states.shape[1])

    def apply(self, layers: Callable[[Tensor, Pattern], Tensor], packing: Packing | None) -> "Memory":
        """The memory with states `layers(states, pattern)`, called on (B, S, D) or, packed, on (1, N, D)."""
        if packing is None:
            return Memory(layers(self.states, self.pattern), self.lengths)
        return Memory(packing.unpack(layers(packing.pack(self.states), packing.pattern)), self.lengths)


class Seq2SeqOutput(NamedTuple):
    """Output of an encoder-decoder on whole targets."""

    hidden: Tensor  # (B, T, F): the decoder's last hidden states
    projection: OutputProjection  # from hidden states to logits
    memory: Memory

    @property
    def logits(self) -> Tensor:
        """Logits (B, T, N) of the token after each target token; computed at each access."""
        return self.projection.logits(self.hidden)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, T); see `OutputProjection.cross_entropy`."""
        return self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)


class State(ABC):
    """Decoding state of B sentences with K hypotheses each, such as KV caches."""

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Replace hypotheses: the k-th of sentence b becomes a copy of its parents[b, k]-th; parents are (B, K')."""

    @abstractmethod
    def keep(self, sentences: Tensor) -> None:
        """Keep some of the sentences, as ascending indices (B',), and drop the others."""


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder model."""

    config: Any  # the frozen dataclass that it was built from
    vocabulary: Vocabulary
    continues_input = False  # whether the target continues the source, as in language models
    copies = False  # whether sources and targets may hold out-of-vocabulary words of a source

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens of a source or target, special tokens included; None if unlimited."""
        return None

    @property
    @abstractmethod
    def projection(self) -> OutputProjection:
        """The projection from the decoder's hidden states to logits."""

    @abstractmethod
    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        """Encode inputs (B, S) of lengths (B,); None for no padding."""

    @abstractmethod
    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        """The decoder's hidden states (B, T, F) on whole targets (B, T), under a causal mask."""

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """The state before the first step, with one hypothesis for each sequence."""

    @abstractmethod
    def advance(self, tokens: Tensor, state: State) -> Tensor:
        """Append a token to each hypothesis (B, K), updating `state`, and return the hidden states (B, K, F)."""

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> Seq2SeqOutput:
        """Run the model on whole targets.

        Args:
            inputs: token ids (B, S), each row ending with `eos` before its padding.
            lengths: (B,), the number of inputs of each row without padding; None for no padding.
            targets: token ids (B, T), each row starting with `bos`.

        Returns:
            A `Seq2SeqOutput`: logits (B, T, N) of the token after each target token, hidden (B, T, F) and the encoder's
            memory.

        Raises:
            ShapeError: inputs, lengths or targets of another shape or type.
        """
        self.check_inputs(inputs, lengths)
        check_tokens("targets", targets, rows=len(inputs))
        memory = self.encode(inputs, lengths)
        return Seq2SeqOutput(self.decode(targets, memory), self.projection.as_called(), memory)

    def prefill(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[State, Tensor]:
        """Encode the inputs for decoding.

        Args:
            inputs: as for `forward`.
            lengths: as for `forward`.

        Returns:
            The state, with one hypothesis for each sequence; and the start token of each, (B,), for the first `step`.
        """
        self.check_inputs(inputs, lengths)
        state = self.start(self.encode(inputs, lengths))
        return state, torch.full((len(inputs),), self.vocabulary.bos, device=inputs.device)

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Append a token to each hypothesis (B, K), updating `state`, and return the logits of the next (B, K, N)."""
        return self.projection.logits(self.advance(tokens, state))

    def collate(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Batch sources of token ids: `inputs` (B, S) with `eos` and padding, and their `lengths` (B,)."""
        rows = [[*source, self.vocabulary.eos] for source in sources]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        return torch.tensor([row + [self.vocabulary.pad] * (width - len(row)) for row in rows]), lengths

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are inputs of the encoder: token ids (B, S), and lengths (B,) or None."""
        check_tokens("inputs", inputs)
        check_lengths(inputs, lengths)

    def source_lengths(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """The lengths (B,) of inputs: `lengths`, or if None that of all rows."""
        return inputs.new_full((len(inputs),), inputs.shape[1], dtype=torch.int64) if lengths is None else lengths
