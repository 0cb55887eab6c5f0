"""Luong et al.'s recurrent encoder-decoder with global or local attention.

Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", arXiv 1508.04025.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.sequence_pattern import Around
from regard.attention.prior import Gaussian
from regard.attention.score import Dot, Score
from regard.attention.value import short_repr
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.layers.cross_attention import CrossAttention
from regard.layers.dropout import Dropout
from regard.layers.embeddings import Embeddings
from regard.layers.learned import Learned, LearnedAdditive, LearnedBilinear, LearnedLocation
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.recurrent import LSTM, BidirectionalLSTM, check_positions, last
from regard.models.check import check_fields
from regard.models.hypothesis_state import HypothesisState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class LuongConfig:
    """Configuration of a `Luong` model.

    Args:
        vocabulary: joint vocabulary of source and target.
        embed_dim: size of token embeddings and of the attentional state; 1000 in the paper.
        hidden_dim: n, size of the LSTM states; 1000 in the paper.
        num_layers: number of LSTM layers in encoder and decoder each; 4 in the paper.
        score: "dot", "general", "concat" or "location" (section 3.1).
        window: "global" attention; or local attention around a position p, the target position ("local-m") or a
            predicted one ("local-p") (section 3.2).
        window_size: D, half width of the local window: keys from p - D to p + D.
        input_feeding: whether the attentional state is fed to the next step (section 3.3). Without it, training is
            faster.
        max_length: maximum length of a source with score="location".
        bidirectional: whether the encoder reads in both directions, n / 2 units each; the paper's reads forward only.
        dropout: dropout of the inputs of each layer and of the output projection.
        input_scale: what embedded tokens are multiplied by: 10 gives inputs of unit variance.
        gate_gain: gain of Xavier's initialization of the gates' input maps.
        share_embeddings: whether source and target share token embeddings.
        tie_output: whether the output projection shares the target embeddings.
        attention: score, normalizer and other values that replace the default attention's; its score replaces `score`.

    Raises:
        ConfigError: an unknown value or one that is out of range, or a normalizer with "local-p", which needs softmax.
    """

    vocabulary: Vocabulary
    embed_dim: int = 256
    hidden_dim: int = 512
    num_layers: int = 2
    score: Literal["dot", "general", "concat", "location"] = "general"
    window: Literal["global", "local-m", "local-p"] = "global"
    window_size: int = 10
    input_feeding: bool = True
    max_length: int = 512
    bidirectional: bool = False
    dropout: float = 0.2
    input_scale: float = 10.0
    gate_gain: float = 2.0
    share_embeddings: bool = True
    tie_output: bool = True
    attention: AttentionConfig = AttentionConfig()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bidirectional and self.hidden_dim % 2:
            raise ConfigError(
                f"LuongConfig: bidirectional=True with hidden_dim={self.hidden_dim}; expected an even number"
            )
        if self.window == "local-p" and self.attention.normalizer is not None:
            raise ConfigError(
                f"LuongConfig: window='local-p' needs softmax, times a Gaussian; got normalizer="
                f"{self.attention.normalizer}; leave it out, or use window='local-m'"
            )


@final
class Luong(Seq2Seq):
    """A stacked LSTM encoder-decoder whose decoder attends after each step.

    With h_t the decoder's top state, y the target words, E their embeddings and H the encoder's S top states:
        h_t = LSTM([E y_{t-1}, a_{t-1}]), from the encoder's last states and a_0 = 0; a only with input feeding
        c_t = attention of h_t to H
        a_t = tanh(W_c [c_t, h_t]),  logits = W_s a_t
    local-m attends to the keys from t - D to t + D; local-p to those around p_t = S sigmoid(v_p tanh(W_p h_t)), with
    weights times exp(-(s - p_t)^2 / (2 (D / 2)^2)) at key s. Positions count from 0; the context of a window outside of
    the source is 0.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: an `attention` with values of the wrong type.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3; comments in the code name its equations.

    >>> model = Luong(LuongConfig(vocabulary=Vocabulary(size=100), embed_dim=16, hidden_dim=16, window="local-p"))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: LuongConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden = config.embed_dim, config.hidden_dim
        self.embeddings = Embeddings(
            config.vocabulary.size, embed, shared=config.share_embeddings, tied=config.tie_output,
            scale=config.input_scale,
        )  # fmt: skip
        self.dropout = Dropout(config.dropout)
        encoder_options: dict[str, Any] = {"dropout": self.dropout, "gate_gain": config.gate_gain}
        self.encoder: LSTM | BidirectionalLSTM = (
            BidirectionalLSTM(embed, hidden // 2, config.num_layers, **encoder_options)
            if config.bidirectional
            else LSTM(embed, hidden, config.num_layers, **encoder_options)
        )
        feeding = embed if config.input_feeding else 0
        self.decoder = LSTM(
            embed + feeding, hidden, config.num_layers, dropout=self.dropout, gate_gain=config.gate_gain
        )
        scores: dict[str, Score | Learned] = {
            "dot": Dot(scale=1.0),
            "general": LearnedBilinear(),
            "concat": LearnedAdditive(),  # W_a [h; H] = W h + U H
            "location": LearnedLocation(config.max_length),
        }
        self.cross_attention = CrossAttention.chosen(hidden, hidden, config.attention, score=scores[config.score])
        self.center_proj = Linear(hidden, hidden, bias=False) if config.window == "local-p" else None  # W_p
        self.center_vector = Linear(hidden, 1, bias=False) if config.window == "local-p" else None  # v_p
        self.attentional = Linear(2 * hidden, embed)  # W_c
        nn.init.xavier_uniform_(self.attentional.weight)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        embedded = self.dropout(self.embeddings.source(inputs))
        if isinstance(self.encoder, BidirectionalLSTM):
            states, ends = self.encoder(embedded, lengths)
        else:
            states, history = self.encoder(embedded)
            ends = [(last(outputs, lengths), last(cells, lengths)) for outputs, cells in history]
        first = torch.stack([x for layer in ends for x in layer], 1)  # (B, 2 layers, n)
        return Memory(states, lengths, (self.cross_attention.project_key(states), first))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        check_positions("Luong, targets", targets)
        embedded = self.embeddings.target(targets)[:, None]  # one hypothesis: (B, 1, T, D)
        pattern, state = memory.pattern, memory.extra[1][:, None]
        if not self.config.input_feeding:
            top, _ = self._run(embedded, state)
            return self._attend(top, memory, pattern, 0)[:, 0]
        states, attentional = [], torch.zeros_like(embedded[:, :, :1])
        for i, x in enumerate(embedded.split(1, 2)):
            top, state = self._run(torch.cat([x, attentional], -1), state)
            attentional = self._attend(top, memory, pattern, i)
            states.append(attentional)
        return torch.cat(states, 2)[:, 0]

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> HypothesisState:
        first = memory.extra[1]
        return HypothesisState(memory, first, first.new_zeros(len(first), 1, self.config.embed_dim))

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        lstm_state, attentional = state.tensors
        x = self.embeddings.target(tokens)[:, :, None]
        top, lstm_state = self._run(torch.cat([x, attentional], -1) if self.config.input_feeding else x, lstm_state)
        attentional = self._attend(top, state.memory, state.memory.pattern, state.position)
        state.advance(lstm_state, attentional)
        return attentional[:, :, 0]

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder's LSTM.

        Args:
            x: inputs (B, K, L, F).
            state: hidden and cell states of all layers, (B, K, 2 layers, n).

        Returns:
            The top layer's outputs (B, K, L, n), and the states after the last input.
        """
        parts = state.flatten(0, 1).unbind(1)
        top, history = self.decoder(self.dropout(x).flatten(0, 1), list(zip(parts[::2], parts[1::2], strict=True)))
        last_state = torch.stack([y[:, -1] for layer in history for y in layer], 1)
        return top.unflatten(0, x.shape[:2]), last_state.unflatten(0, x.shape[:2])

    def _attend(self, top: Tensor, memory: Memory, pattern: Pattern, start: int) -> Tensor:
        """The attentional states (B, K, L, D) of top states (B, K, L, n), the first at target position `start`."""
        normalizer: Normalizer | None = None
        window = self.config.window_size
        if self.config.window == "local-m":
            center = torch.arange(start, start + top.shape[2], device=top.device)
            pattern = pattern & Around(center, left=window, right=window)
        elif self.center_proj is not None and self.center_vector is not None:
            fraction = torch.sigmoid(self.center_vector(torch.tanh(self.center_proj(top)))[..., 0].to(top.dtype))
            center = memory.lengths[:, None, None] * fraction  # equation 9
            pattern = pattern & Around(center, left=window, right=window)
            normalizer = Softmax(prior=Gaussian(center, sigma=window / 2))  # equation 10
        context = self.cross_attention(
            top, memory.extra[0], memory.states, pattern=pattern, normalizer=normalizer, query_start=start
        )
        attentional: Tensor = self.dropout(torch.tanh(self.attentional(torch.cat([context, top], -1))))  # equation 5
        return attentional
