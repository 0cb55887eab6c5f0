"""RNNsearch: a GRU encoder-decoder with additive attention; and its baseline RNNenc, without attention.

Source: Bahdanau et al. 2014, "Neural Machine Translation by Jointly Learning to Align and Translate",
arXiv 1409.0473; RNNenc: Cho et al. 2014, arXiv 1406.1078.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from regard.attention.patterns.pattern import Pattern
from regard.attention.value import short_repr
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.layers.cross_attention import CrossAttention
from regard.layers.dropout import Dropout
from regard.layers.embeddings import Embeddings
from regard.layers.learned import LearnedAdditive
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.recurrent import GRU, check_positions, last, reverse
from regard.models.check import check_fields
from regard.models.hypothesis_state import HypothesisState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class RNNConfig:
    """Configuration of an `RNN`.

    Args:
        vocabulary: joint vocabulary of source and target.
        embed_dim: size of token embeddings and of the readout; 620 and 500 in the paper.
        hidden_dim: n, size of the GRU states of the decoder and of each direction of the encoder; 1000 in the paper.
        align_dim: hidden size of the score; 1000 in the paper.
        context: "attention", or "fixed" for one vector of the whole source, the baseline RNNenc.
        dropout: dropout of embeddings and of the readout; 0 in the paper.
        input_scale: what embedded tokens are multiplied by: 10 gives inputs of unit variance.
        share_embeddings: whether source and target share token embeddings.
        tie_output: whether the output projection shares the target embeddings.
        attention: score, normalizer and other values that replace the default attention's.

    Raises:
        ConfigError: an unknown value or one that is out of range, or `attention` with context="fixed".
    """

    vocabulary: Vocabulary
    embed_dim: int = 256
    hidden_dim: int = 512
    align_dim: int = 256
    context: Literal["attention", "fixed"] = "attention"
    dropout: float = 0.2
    input_scale: float = 10.0
    share_embeddings: bool = True
    tie_output: bool = True
    attention: AttentionConfig = AttentionConfig()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.context == "fixed" and self.attention != AttentionConfig():
            raise ConfigError(
                f"RNNConfig: context='fixed' has no attention; got {self.attention}; leave it out, or use "
                "context='attention'"
            )


@final
class RNN(Seq2Seq):
    """A bidirectional GRU encoder, and a GRU decoder that attends to its states before each word.

    With h_j the encoder's state at source word j, y the target words and E their embeddings:
        e_ij = v tanh(W s_{i-1} + U h_j),  c_i = sum_j softmax(e_i)_j h_j
        s_i = GRU(E y_{i-1}, c_i, s_{i-1}),  s_0 = tanh(W_s h_1 of the backward encoder)
        t_i = maxout(U_o s_i + V_o E y_{i-1} + C_o c_i),  logits = W_o t_i

    The readout uses s_i, as the paper's equation 4 and RNNenc do; its appendix A.2.2 has s_{i-1}.

    With context="fixed" the encoder is unidirectional and c_i = c = tanh(V h_S), s_0 = tanh(V' c).

    Args:
        config: sizes and options.

    Raises:
        ConfigError: an `attention` with values of the wrong type.

    Source: Bahdanau et al. 2014, arXiv 1409.0473, sections 2 and 3, appendix A; the fixed context: Cho et al. 2014,
    arXiv 1406.1078, appendix A.

    >>> model = RNN(RNNConfig(vocabulary=Vocabulary(size=100), embed_dim=16, hidden_dim=16))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden = config.embed_dim, config.hidden_dim
        attends = config.context == "attention"
        context = 2 * hidden if attends else hidden
        self.embeddings = Embeddings(
            config.vocabulary.size, embed, shared=config.share_embeddings, tied=config.tie_output,
            scale=config.input_scale,
        )  # fmt: skip
        self.encoder = GRU(embed, hidden)
        self.backward_encoder = GRU(embed, hidden) if attends else None
        self.first_proj = Linear(hidden, hidden)
        self.context_proj = None if attends else Linear(hidden, hidden)
        self.cross_attention: CrossAttention | None = None
        if attends:
            self.cross_attention = CrossAttention.chosen(
                hidden, context, config.attention, score=LearnedAdditive(), align_dim=config.align_dim
            )
        self.cell = GRU(embed, hidden, context_dim=context)
        self.readout = Linear(hidden + embed + context, 2 * embed)  # U_o, V_o and C_o side by side
        self.dropout = Dropout(config.dropout)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        embedded = self.dropout(self.embeddings.source(inputs))
        states = self.encoder(embedded)
        if self.context_proj is not None:
            context = torch.tanh(self.context_proj(last(states, lengths)))
            return Memory(states, lengths, (torch.tanh(self.first_proj(context)), context))
        back = reverse(self.backward_encoder(reverse(embedded, lengths)), lengths)
        states = torch.cat([states, back], -1)
        first = torch.tanh(self.first_proj(back[:, 0]))  # the backward encoder's last state
        return Memory(states, lengths, (first, self.cross_attention.project_key(states)))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        check_positions("RNN, targets", targets)
        embedded = self.dropout(self.embeddings.target(targets))
        pattern, state = memory.pattern, memory.extra[0][:, None]
        states, contexts = [], []
        for i, projected in enumerate(self.cell.input_proj(embedded).split(1, 1)):
            context = self._context(state, memory, pattern, i)
            state = self.cell.step(projected, state, context)
            states.append(state)
            contexts.append(context)
        return self._readout(torch.cat(states, 1), embedded, torch.cat(contexts, 1))

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> HypothesisState:
        return HypothesisState(memory, memory.extra[0])

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        embedded = self.dropout(self.embeddings.target(tokens))
        [previous] = state.tensors
        context = self._context(previous, state.memory, state.memory.pattern, state.position)
        new = self.cell.step(self.cell.input_proj(embedded), previous, context)
        state.advance(new)
        return self._readout(new, embedded, context)

    def _context(self, state: Tensor, memory: Memory, pattern: Pattern, position: int) -> Tensor:
        """The context (B, K, C) of K hypotheses for the word at a target position."""
        _, source = memory.extra
        if self.cross_attention is None:
            return source[:, None].expand(-1, state.shape[1], -1)
        context: Tensor = self.cross_attention(
            state[:, :, None], source, memory.states, pattern=pattern, query_start=position
        )
        return context[:, :, 0]

    def _readout(self, states: Tensor, embedded: Tensor, contexts: Tensor) -> Tensor:
        """The readout: maxout over pairs of units."""
        pairs = self.readout(torch.cat([states, embedded, contexts], -1)).unflatten(-1, (-1, 2))
        hidden: Tensor = self.dropout(pairs.amax(-1))
        return hidden
