"""Pointer-generator network: a recurrent summarizer that generates words or copies them from the source.

Source: See et al. 2017, "Get To The Point: Summarization with Pointer-Generator Networks", arXiv 1704.04368.

Shapes: B sources of S words, K hypotheses of each, T target words, N words in the vocabulary. Out-of-vocabulary words
of a source have the ids N, N + 1, ... in the order of their first occurrence.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from regard.attention.attend import attend
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.attention.score import Additive
from regard.attention.summary import Summary, SummaryResult
from regard.layers.attention_module import AttentionModule
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.output_projection import CHUNK, IGNORED, CrossEntropy, OutputProjection
from regard.layers.quantized_linear import readable_weight
from regard.layers.recurrent import BidirectionalLSTM
from regard.models.check import TokenId, check_fields
from regard.models.hypothesis_state import HypothesisState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary

WEIGHTS = Summary(weights=True)
MIN_PROBABILITY = 1e-12  # of a label, so that its logarithm is finite


@final
@dataclass(frozen=True, kw_only=True)
class PointerGeneratorConfig:
    """Configuration of a `PointerGenerator`.

    Args:
        vocabulary: joint vocabulary of source and target.
        unk: id of the token for out-of-vocabulary words.
        embed_dim: size of word embeddings; 128 in the paper.
        hidden_dim: u, size of the LSTM states of the decoder and of each direction of the encoder; 256 in the paper.
        copy: whether words are copied; without it, the paper's attention baseline (section 2.1).
        coverage: whether attention uses the sum of its previous weights (section 2.3).
        coverage_loss: coefficient of the coverage loss, lambda in the paper.
        dropout: dropout of embeddings and of hidden states before the output; 0 in the paper.

    Raises:
        ConfigError: a field that is out of range.
    """

    vocabulary: Vocabulary
    unk: TokenId = TokenId(3)  # noqa: RUF009 - an int
    embed_dim: int = 128
    hidden_dim: int = 256
    copy: bool = True
    coverage: bool = True
    coverage_loss: float = 1.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)


class PointerOutput(NamedTuple):
    """Output of a pointer-generator on whole targets."""

    hidden: Tensor  # (B, T, F): last hidden states
    projection: OutputProjection  # from hidden states to logits of generated words
    weights: Tensor  # (B, T, S): attention to the source
    gate: Tensor  # (B, T): p_gen, the probability of generating a word
    coverage: Tensor  # (B, T): coverage loss of each step
    sources: Tensor  # (B, S): word ids of the source
    coefficient: float  # of the coverage loss

    @property
    def logits(self) -> Tensor:
        """Log-probabilities (B, T, N + out-of-vocabulary words of the sources); computed at each access."""
        return mixture(self.projection.logits(self.hidden), self.weights, self.gate, self.sources)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Negative log-likelihood of labels (B, T), and the coverage loss.

        Args:
            labels: word ids, those of out-of-vocabulary words included; `IGNORED` at padding.
            label_smoothing: not applied, since copied words have no logits.

        Returns:
            Sums over the labels: "smoothed" with the coverage loss, "plain" without.

        Source: See et al. 2017, sections 2.2 and 2.3, equations 9, 12 and 13.
        """
        mask = labels != IGNORED
        targets, gate = labels[mask], self.gate[mask].float()
        size = len(self.projection.weight)
        log_probs = self._label_log_probs(self.hidden[mask], targets.clamp(max=size - 1))
        generated = log_probs.exp() * (targets < size)
        copied = ((self.sources[:, None] == labels[..., None]) * self.weights).sum(-1)[mask].float()
        loss = -torch.log((gate * generated + (1 - gate) * copied).clamp(min=MIN_PROBABILITY)).sum()
        total = loss + self.coefficient * self.coverage[mask].float().sum()
        return CrossEntropy(total, loss.detach(), len(targets))

    def _label_log_probs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Log-probabilities (n,) of generated labels, in chunks whose logits are recomputed in the backward pass."""
        rows = max(1, CHUNK // len(self.projection.weight))
        parts = [
            checkpoint(_label_log_probs, h, self.projection, y, use_reentrant=False)
            for h, y in zip(hidden.split(rows), labels.split(rows), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0)


class Steps(NamedTuple):
    """Outputs of the decoder's LSTM cell and attention, for K hypotheses or K steps of each source."""

    input: Tensor  # (B, K, F): x, the cell's input
    hidden: Tensor  # (B, K, u): the cell's hidden state
    cell: Tensor  # (B, K, u): its cell state
    context: Tensor  # (B, K, 2 u): h*
    weights: Tensor  # (B, K, S): of attention
    coverage_loss: Tensor  # (B, K)


@final
class CoverageAttention(AttentionModule):
    """Additive attention with coverage: e_i = v tanh(W_h h_i + W_s s + w_c c_i), c the sum of previous weights.

    Args:
        query_dim: size of s.
        key_dim: size of h.
        coverage: whether the term w_c c_i is there.

    Source: See et al. 2017, arXiv 1704.04368, equations 1, 2 and 11.
    """

    def __init__(self, query_dim: int, key_dim: int, *, coverage: bool) -> None:
        super().__init__()
        self.query_proj, self.key_proj = Linear(query_dim, key_dim), Linear(key_dim, key_dim, bias=False)
        self.vector = nn.Parameter(torch.empty(key_dim))
        self.coverage = nn.Parameter(torch.zeros(key_dim)) if coverage else None
        nn.init.normal_(self.vector, std=key_dim**-0.5)

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        covered: Tensor,
        pattern: Pattern,
        summary: Summary | None = None,
    ) -> Tensor | tuple[Tensor, SummaryResult]:
        """Attend to the source.

        Args:
            query: s, (R, Q).
            keys: W_h h, (R, S, E).
            values: h, (R, S, E).
            covered: c, (R, S).
            pattern: hides the padding of sources.
            summary: further statistics of the weights (R, 1, 1, S); None for none.

        Returns:
            Context and weights, concatenated, (R, E + S); with a summary, that and a `SummaryResult`.
        """
        if self.coverage is not None:
            keys = keys + covered[..., None].to(keys.dtype) * self.coverage
        output, summary_result = attend(
            self.query_proj(query)[:, None, None].to(keys.dtype),
            keys[:, None],
            values[:, None],
            score=Additive(self.vector),
            pattern=pattern,
            summary=WEIGHTS if summary is None else replace(summary, weights=True),
        )
        both = torch.cat([output[:, 0, 0], summary_result.weights[:, 0, 0].to(output.dtype)], -1)
        return both if summary is None else (both, summary_result)


@final
class PointerGenerator(Seq2Seq):
    """A bidirectional LSTM encoder, and an LSTM decoder that generates the next word or copies it from the source.

    With s_t the decoder's state, h*_t the context of its attention a_t, and x_t the embedding of the previous word:
        p_gen = sigmoid(w [h*_t, s_t, x_t]),  P_vocab = softmax(V (V' [s_t, h*_t] + b') + b)
        P(w) = p_gen P_vocab(w) + (1 - p_gen) sum over i with w_i = w of a_ti

    Args:
        config: sizes and options.

    Source: See et al. 2017, arXiv 1704.04368, section 2; equations 3 to 13. The context is fed to the next step, as in
    the authors' code.

    >>> model = PointerGenerator(PointerGeneratorConfig(vocabulary=Vocabulary(size=50), hidden_dim=16))
    >>> model(torch.tensor([[5, 50, 51, 2]]), None, torch.tensor([[1, 50, 7]])).logits.shape
    torch.Size([1, 3, 52])
    """

    copies = True  # targets may hold out-of-vocabulary words of their source

    def __init__(self, config: PointerGeneratorConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden = config.embed_dim, config.hidden_dim
        self.embedding = nn.Embedding(config.vocabulary.size, embed)
        nn.init.normal_(self.embedding.weight, std=embed**-0.5)
        self.encoder = BidirectionalLSTM(embed, hidden, 1, dropout=nn.Identity())
        self.first_hidden, self.first_cell = Linear(2 * hidden, hidden), Linear(2 * hidden, hidden)
        self.input_proj = Linear(embed + 2 * hidden, embed)  # of the previous word and context
        self.cell = nn.LSTMCell(embed, hidden)
        self.cross_attention = CoverageAttention(2 * hidden, 2 * hidden, coverage=config.coverage)
        self.gate = Linear(4 * hidden + embed, 1) if config.copy else None
        self.readout = Linear(3 * hidden, embed)
        self.output_bias = nn.Parameter(torch.zeros(config.vocabulary.size))
        self.dropout = Dropout(config.dropout)

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding), self.output_bias)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        states, [(last_hidden, last_cell)] = self.encoder(self._embed(inputs), lengths)
        states = states.to(self.output_bias.dtype)
        first = [torch.relu(self.first_hidden(last_hidden)), torch.relu(self.first_cell(last_cell))]
        keys = self.cross_attention.key_proj(states).to(states.dtype)  # once for all steps
        return Memory(states, lengths, (keys, inputs, torch.stack(first, 1)))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        return self._run(targets, memory).hidden

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> PointerOutput:  # type: ignore[override]
        self.check_inputs(inputs, lengths)
        return self._run(targets, self.encode(inputs, lengths))

    def start(self, memory: Memory) -> HypothesisState:
        batch, length, size = memory.states.shape
        empty = memory.states.new_zeros(batch, length), memory.states.new_zeros(batch, size)
        return HypothesisState(memory, memory.extra[2].to(memory.states.dtype), *empty)

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        return self._hidden(self._step(self._embed(tokens), state))

    def step(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        steps = self._step(self._embed(tokens), state)
        logits = self.projection.logits(self._hidden(steps))
        return mixture(logits, steps.weights, self._generation_probability(steps), state.memory.extra[1])

    def _run(self, targets: Tensor, memory: Memory) -> PointerOutput:
        state = self.start(memory)
        parts = [self._step(x, state) for x in self._embed(targets).split(1, 1)]
        steps = Steps(*(torch.cat(x, 1) for x in zip(*parts, strict=True)))
        return PointerOutput(
            self._hidden(steps),
            self.projection.as_called(),
            steps.weights,
            self._generation_probability(steps),
            steps.coverage_loss,
            memory.extra[1],
            self.config.coverage_loss if self.config.coverage else 0.0,
        )

    def _step(self, embedded: Tensor, state: HypothesisState) -> Steps:
        """Run the decoder on the embeddings (B, K, F) of the previous words, updating `state`."""
        batch, count, _ = embedded.shape
        memory = state.memory
        pair, covered, context = (x.flatten(0, 1) for x in state.tensors)
        keys, values = (
            x[:, None].expand(-1, count, -1, -1).flatten(0, 1) if count > 1 else x
            for x in (memory.extra[0], memory.states)
        )
        pattern = KeyLengths(memory.lengths.repeat_interleave(count))
        x = self.input_proj(torch.cat([embedded.flatten(0, 1), context.to(embedded.dtype)], -1))
        hidden, cell = self.cell(x.to(pair.dtype), (pair[:, 0], pair[:, 1]))
        attended = self.cross_attention(torch.cat([hidden, cell], -1), keys, values, covered, pattern)
        context, weights = attended.split([values.shape[-1], values.shape[1]], -1)
        weights = weights.to(covered.dtype)
        coverage_loss = torch.minimum(weights, covered).sum(-1)
        new_state = torch.stack([hidden, cell], 1), covered + weights, context.to(pair.dtype)
        state.advance(*(y.unflatten(0, (batch, count)) for y in new_state))
        return Steps(*(y.unflatten(0, (batch, count)) for y in (x, hidden, cell, context, weights, coverage_loss)))

    def _hidden(self, steps: Steps) -> Tensor:
        """The last hidden states (B, K, F)."""
        return self.dropout(self.readout(torch.cat([steps.hidden, steps.context.to(steps.hidden.dtype)], -1)))

    def _generation_probability(self, steps: Steps) -> Tensor:
        """p_gen, the probability of generating a word instead of copying one."""
        if self.gate is None:
            return torch.ones_like(steps.coverage_loss)
        parts = steps.context, steps.hidden, steps.cell, steps.input
        return torch.sigmoid(self.gate(torch.cat([part.to(steps.input.dtype) for part in parts], -1)))[..., 0]

    def _embed(self, tokens: Tensor) -> Tensor:
        """Word embeddings; that of `unk` for out-of-vocabulary words."""
        known = tokens < self.vocabulary.size
        embedded: Tensor = self.dropout(self.embedding(torch.where(known, tokens, self.config.unk)))
        return embedded


def mixture(logits: Tensor, weights: Tensor, gate: Tensor, sources: Tensor) -> Tensor:
    """Log-probabilities of the mixture of generating and copying.

    Args:
        logits: (B, T, N), of generated words.
        weights: (B, T, S), attention to the source.
        gate: (B, T), probability of generating.
        sources: (B, S), word ids of the source.

    Returns:
        (B, T, N + W), with W the largest number of out-of-vocabulary words in a source; at least float32.

    Source: See et al. 2017, arXiv 1704.04368, equation 9.
    """
    size = logits.shape[-1]
    extra = max(0, int(sources.max()) + 1 - size)
    wide = torch.promote_types(logits.dtype, torch.float32)
    generated = logits.to(wide).softmax(-1) * gate[..., None].to(wide)
    copied = weights.to(wide) * (1 - gate[..., None].to(wide))
    total = functional.pad(generated, (0, extra))
    return total.scatter_add(-1, sources[:, None].expand_as(weights), copied).log()


def _label_log_probs(hidden: Tensor, projection: OutputProjection, labels: Tensor) -> Tensor:
    """Log-probabilities of labels (n,), from hidden states (n, F)."""
    logits = projection.logits(hidden)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.gather(1, labels[:, None])[:, 0] - torch.logsumexp(wide, -1)
