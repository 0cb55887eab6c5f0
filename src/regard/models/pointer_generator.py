"""Pointer-generator: a summarizer that generates words, or copies them from the source by its attention.

Source: See et al. 2017, "Get To The Point: Summarization with Pointer-Generator Networks", arXiv 1704.04368.

Layout: B sources of S words, K hypotheses of each, T target words, N words of the vocabulary. Words of a source
that the vocabulary lacks have the ids N, N + 1, ... in the order in which the source names them first.
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
from regard.attention.summary import Seen, Summary
from regard.layers.attention_module import AttentionModule
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.output_projection import CHUNK, IGNORED, CrossEntropy, OutputProjection
from regard.layers.recurrent import BidirectionalLSTM
from regard.models.check import TokenId, check_fields
from regard.models.hypotheses import Hypotheses
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary

WEIGHTS = Summary(weights=True)
TINY = 1e-12  # least probability of a label: its logarithm stays finite


@final
@dataclass(frozen=True, kw_only=True)
class PointerGeneratorConfig:
    """The sizes and choices of a pointer-generator.

    Args:
        vocabulary: of source and target together.
        unk: the word that stands for words outside the vocabulary.
        embed_dim: of the words' vectors; 128 in the source.
        hidden_dim: u, of the states of the encoder's directions and of the decoder; 256 in the source.
        copy: whether words are copied; without, it is the source's baseline with attention (section 2.1).
        coverage: whether attention is told where it has been (section 2.3).
        coverage_loss: coefficient of the coverage loss, the source's lambda.
        dropout: of embedded words and of what words are generated from; 0 in the source.

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
    """Outputs of a pointer-generator on whole targets."""

    hidden: Tensor  # (B, T, F): what words are generated from
    projection: OutputProjection
    weights: Tensor  # (B, T, S): attention to the source
    gate: Tensor  # (B, T): probability to generate, p_gen
    coverage: Tensor  # (B, T): attention to what was attended to before, the coverage loss of each step
    sources: Tensor  # (B, S): the source's words
    coefficient: float  # of the coverage loss

    @property
    def logits(self) -> Tensor:
        """(B, T, N + words of the sources outside the vocabulary): log-probabilities. Computed when it is read."""
        return mixture(self.projection.logits(self.hidden), self.weights, self.gate, self.sources)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Negative log-likelihood of labels (B, T), and the coverage loss.

        Args:
            labels: words, those of the source outside the vocabulary included; `IGNORED` where a place does not count.
            label_smoothing: is not applied: a label's probability has two parts, of which one is copied.

        Returns:
            Sums: "smoothed" has the coverage loss, "plain" has not.

        Source: See et al. 2017, sections 2.2 and 2.3, equations 9, 12 and 13.
        """
        counted = labels != IGNORED
        wanted, gate = labels[counted], self.gate[counted].float()
        size = len(self.projection.weight)
        generated = self._label_logs(self.hidden[counted], wanted.clamp(max=size - 1)).exp() * (wanted < size)
        hits = (self.sources[:, None] == labels[..., None]) * self.weights
        copied = hits.sum(-1)[counted].float()
        loss = -torch.log((gate * generated + (1 - gate) * copied).clamp(min=TINY)).sum()
        total = loss + self.coefficient * self.coverage[counted].float().sum()
        return CrossEntropy(total, loss.detach(), len(wanted))

    def _label_logs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Log-probabilities (n,) of generated labels, in chunks whose logits are computed again for gradients."""
        rows = max(1, CHUNK // len(self.projection.weight))
        parts = [
            checkpoint(_label_logs, h, self.projection.weight, self.projection.bias, y, use_reentrant=False)
            for h, y in zip(hidden.split(rows), labels.split(rows), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0)


class Steps(NamedTuple):
    """Outputs of the decoder's cell and attention, for K hypotheses or K steps of each source."""

    input: Tensor  # (B, K, F), x
    hidden: Tensor  # (B, K, u)
    cell: Tensor  # (B, K, u)
    context: Tensor  # (B, K, 2 u), h*
    weights: Tensor  # (B, K, S)
    coverage_loss: Tensor  # (B, K)


@final
class CoverageAttention(AttentionModule):
    """Additive attention that is told how much each source word has been attended to.

    e_i = v tanh(W_h h_i + W_s s + w_c c_i), where c sums the weights of the steps before.

    Args:
        query_dim: of s.
        key_dim: of h.
        coverage: whether c counts.

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
    ) -> Tensor | tuple[Tensor, Seen]:
        """The context and, beside it, its weights, which the model itself needs.

        Args:
            query: s, (R, Q) of R rows.
            keys: W_h h, (R, S, E).
            values: h, (R, S, E).
            covered: c, (R, S).
            pattern: which source words are not padding.
            summary: what else to say of the weights (R, 1, 1, S).

        Returns:
            (R, E + S); with a summary, that and a `Seen`.
        """
        if self.coverage is not None:
            keys = keys + covered[..., None].to(keys.dtype) * self.coverage
        output, seen = attend(
            self.query_proj(query)[:, None, None].to(keys.dtype),
            keys[:, None],
            values[:, None],
            score=Additive(self.vector),
            pattern=pattern,
            summary=WEIGHTS if summary is None else replace(summary, weights=True),
        )
        both = torch.cat([output[:, 0, 0], seen.weights[:, 0, 0].to(output.dtype)], -1)
        return both if summary is None else (both, seen)


@final
class PointerGenerator(Seq2Seq):
    """A bidirectional LSTM reads; an LSTM attends, and generates the next word or copies it.

    With s_t the decoder's state, h*_t the context of its attention a_t, x_t the vector of the word before:
        p_gen = sigmoid(w [h*_t, s_t, x_t]),  P_vocab = softmax(V (V' [s_t, h*_t] + b') + b)
        P(w) = p_gen P_vocab(w) + (1 - p_gen) sum over i with w_i = w of a_ti

    Args:
        config: its sizes and choices.

    Source: See et al. 2017, arXiv 1704.04368, section 2; equations 3 to 13. The context is fed to the next step, as in
    the authors' code.

    >>> model = PointerGenerator(PointerGeneratorConfig(vocabulary=Vocabulary(size=50), hidden_dim=16))
    >>> model(torch.tensor([[5, 50, 51, 2]]), None, torch.tensor([[1, 50, 7]])).logits.shape
    torch.Size([1, 3, 52])
    """

    copies = True  # targets may hold words of their source beyond the vocabulary

    def __init__(self, config: PointerGeneratorConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden = config.embed_dim, config.hidden_dim
        self.embedding = nn.Embedding(config.vocabulary.size, embed)
        nn.init.normal_(self.embedding.weight, std=embed**-0.5)
        self.encoder = BidirectionalLSTM(embed, hidden, 1, dropout=nn.Identity())
        self.first_hidden, self.first_cell = Linear(2 * hidden, hidden), Linear(2 * hidden, hidden)
        self.input_proj = Linear(embed + 2 * hidden, embed)  # the word before, and the context before
        self.cell = nn.LSTMCell(embed, hidden)
        self.cross_attention = CoverageAttention(2 * hidden, 2 * hidden, coverage=config.coverage)
        self.gate = Linear(4 * hidden + embed, 1) if config.copy else None
        self.readout = Linear(3 * hidden, embed)
        self.output_bias = nn.Parameter(torch.zeros(config.vocabulary.size))
        self.dropout = Dropout(config.dropout)

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(self.embedding.weight, self.output_bias)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        states, last_hidden, last_cell = self.encoder(self._embed(inputs), lengths)
        states = states.to(self.embedding.weight.dtype)
        first = [torch.relu(self.first_hidden(last_hidden)), torch.relu(self.first_cell(last_cell))]
        keys = self.cross_attention.key_proj(states).to(states.dtype)  # once, and not in each step
        return Memory(states, lengths, (keys, inputs, torch.stack(first, 1)))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        return self._run(targets, memory).hidden

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> PointerOutput:  # type: ignore[override]
        self.check_inputs(inputs, lengths)
        return self._run(targets, self.encode(inputs, lengths))

    def start(self, memory: Memory) -> Hypotheses:
        batch, length, size = memory.states.shape
        empty = memory.states.new_zeros(batch, length), memory.states.new_zeros(batch, size)
        return Hypotheses(memory, memory.extra[2].to(memory.states.dtype), *empty)

    def advance(self, tokens: Tensor, state: Hypotheses) -> Tensor:
        return self._features(self._step(self._embed(tokens), state))

    def step(self, tokens: Tensor, state: Hypotheses) -> Tensor:
        steps = self._step(self._embed(tokens), state)
        logits = self.projection.logits(self._features(steps))
        return mixture(logits, steps.weights, self._generation_probability(steps), state.memory.extra[1])

    def _run(self, targets: Tensor, memory: Memory) -> PointerOutput:
        state = self.start(memory)
        parts = [self._step(x, state) for x in self._embed(targets).split(1, 1)]
        steps = Steps(*(torch.cat(x, 1) for x in zip(*parts, strict=True)))
        return PointerOutput(
            self._features(steps),
            self.projection.as_called(),
            steps.weights,
            self._generation_probability(steps),
            steps.coverage_loss,
            memory.extra[1],
            self.config.coverage_loss if self.config.coverage else 0.0,
        )

    def _step(self, embedded: Tensor, state: Hypotheses) -> Steps:
        """One more word, from the vectors (B, K, F) of the word before."""
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
        after = torch.stack([hidden, cell], 1), covered + weights, context.to(pair.dtype)
        state.moved(*(y.unflatten(0, (batch, count)) for y in after))
        return Steps(*(y.unflatten(0, (batch, count)) for y in (x, hidden, cell, context, weights, coverage_loss)))

    def _features(self, steps: Steps) -> Tensor:
        """Hidden states from which words are generated."""
        return self.dropout(self.readout(torch.cat([steps.hidden, steps.context.to(steps.hidden.dtype)], -1)))

    def _generation_probability(self, steps: Steps) -> Tensor:
        """p_gen, the probability of generating a word instead of copying one."""
        if self.gate is None:
            return torch.ones_like(steps.coverage_loss)
        parts = steps.context, steps.hidden, steps.cell, steps.input
        return torch.sigmoid(self.gate(torch.cat([part.to(steps.input.dtype) for part in parts], -1)))[..., 0]

    def _embed(self, tokens: Tensor) -> Tensor:
        """Vectors of words; those outside the vocabulary have that of `unk`."""
        known = tokens < self.vocabulary.size
        vectors: Tensor = self.dropout(self.embedding(torch.where(known, tokens, self.config.unk)))
        return vectors


def mixture(logits: Tensor, weights: Tensor, gate: Tensor, sources: Tensor) -> Tensor:
    """Log-probabilities of words that are generated or copied.

    Args:
        logits: (B, T, N), of generated words.
        weights: (B, T, S), attention to the source.
        gate: (B, T), probability to generate.
        sources: (B, S), the source's words.

    Returns:
        (B, T, N + W), where W is the largest number of words outside the vocabulary in a source; float32 at least.

    Source: See et al. 2017, arXiv 1704.04368, equation 9.
    """
    size = logits.shape[-1]
    extra = max(0, int(sources.max()) + 1 - size)
    wide = torch.promote_types(logits.dtype, torch.float32)
    generated = logits.to(wide).softmax(-1) * gate[..., None].to(wide)
    copied = weights.to(wide) * (1 - gate[..., None].to(wide))
    total = functional.pad(generated, (0, extra))
    return total.scatter_add(-1, sources[:, None].expand_as(weights), copied).log()


def _label_logs(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Log-probabilities of labels (n,), from hidden vectors (n, F)."""
    logits = functional.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.gather(1, labels[:, None])[:, 0] - torch.logsumexp(wide, -1)
