"""The recurrent translator that attends after each of its steps: to the whole source, or to a window of it.

Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", arXiv 1508.04025.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

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
from regard.layers.recurrent import LSTM, check_positions, last
from regard.models.check import check_fields
from regard.models.hypotheses import Hypotheses
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class LuongConfig:
    """The sizes and choices of Luong's model.

    Args:
        vocabulary: of source and target together.
        embed_dim: of the tokens' vectors and of the attentional state; 1000 in the source.
        hidden_dim: n, of the states of encoder and decoder; 1000 in the source.
        num_layers: of each of them; 4 in the source.
        score: "dot", "general", "concat" or "location", the source's section 3.1.
        window: "global"; or around a position p, which is the target word's own with "local-m" and predicted with
            "local-p", the source's section 3.2.
        window_size: D: keys from p - D to p + D.
        input_feeding: whether each step is told the attentional state before it, the source's section 3.3. Without,
            training is faster.
        max_length: the longest source that score="location" has weights for.
        dropout: of what goes into each layer and into the output.
        share_embeddings: whether source and target tokens have the same vectors.
        tie_output: whether the output's vectors are those of the target tokens.
        attention: other values for its attention; a score there takes the place of `score`.

    Raises:
        ConfigError: a field that is out of range or unknown, or a normalizer beside "local-p", which is softmax.
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
    dropout: float = 0.2
    share_embeddings: bool = True
    tie_output: bool = True
    attention: AttentionConfig = AttentionConfig()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.window == "local-p" and self.attention.normalizer is not None:
            raise ConfigError(
                f"LuongConfig: window='local-p' multiplies softmax by a Gaussian; got normalizer="
                f"{self.attention.normalizer}; leave it out, or take window='local-m'"
            )


@final
class Luong(Seq2Seq):
    """A stacked LSTM that attends with its newest state and predicts from what it then knows.

    With h_t the decoder's top state, y the target words, E their vectors and H the encoder's top states, S of them:
        h_t = LSTM([E y_{t-1}, a_{t-1}]),  from the encoder's last states, a_0 = 0     a only with input feeding
        c_t = attention of h_t to H
        a_t = tanh(W_c [c_t, h_t]),  logits = W_s a_t
    local-m: the keys from t - D to t + D. local-p: those around p_t = S sigmoid(v_p tanh(W_p h_t)), and weights times
    exp(-(s - p_t)^2 / (2 (D / 2)^2)) at key s. Positions count from 0; a window beyond the source reads 0.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: an attention that is made of values of the wrong kind.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3; the numbers of its equations stand in the code.

    >>> model = Luong(LuongConfig(vocabulary=Vocabulary(size=100), embed_dim=16, hidden_dim=16, window="local-p"))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: LuongConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden = config.embed_dim, config.hidden_dim
        self.embeddings = Embeddings(
            config.vocabulary.size, embed, shared=config.share_embeddings, tied=config.tie_output
        )
        self.dropout = Dropout(config.dropout)
        self.encoder = LSTM(embed, hidden, config.num_layers, dropout=self.dropout)
        fed = embed if config.input_feeding else 0
        self.decoder = LSTM(embed + fed, hidden, config.num_layers, dropout=self.dropout)
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

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        states, history = self.encoder(self.dropout(self.embeddings.source(inputs)))
        first = torch.stack([last(x, lengths) for layer in history for x in layer], 1)  # (B, 2 layers, n)
        return Memory(states, lengths, (self.cross_attention.project_key(states), first))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        check_positions("Luong, targets", targets)
        embedded = self.embeddings.target(targets)[:, None]  # one hypothesis: (B, 1, T, D)
        pattern, state = memory.pattern, memory.extra[1][:, None]
        if not self.config.input_feeding:
            top, _ = self._run(embedded, state)
            return self._attend(top, memory, pattern, 0)[:, 0]
        found, fed = [], torch.zeros_like(embedded[:, :, :1])
        for i, x in enumerate(embedded.split(1, 2)):
            top, state = self._run(torch.cat([x, fed], -1), state)
            fed = self._attend(top, memory, pattern, i)
            found.append(fed)
        return torch.cat(found, 2)[:, 0]

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> Hypotheses:
        first = memory.extra[1]
        return Hypotheses(memory, first, first.new_zeros(len(first), 1, self.config.embed_dim))

    def advance(self, tokens: Tensor, state: Hypotheses) -> Tensor:
        before, fed = state.tensors
        x = self.embeddings.target(tokens)[:, :, None]
        top, after = self._run(torch.cat([x, fed], -1) if self.config.input_feeding else x, before)
        found = self._attend(top, state.memory, state.memory.pattern, state.position)
        state.moved(after, found)
        return found[:, :, 0]

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder over (B, K, L, D) from states (B, K, 2 layers, n): top outputs (B, K, L, n), states after."""
        parts = state.flatten(0, 1).unbind(1)
        top, history = self.decoder(self.dropout(x).flatten(0, 1), list(zip(parts[::2], parts[1::2], strict=True)))
        after = torch.stack([y[:, -1] for layer in history for y in layer], 1)
        return top.unflatten(0, x.shape[:2]), after.unflatten(0, x.shape[:2])

    def _attend(self, top: Tensor, memory: Memory, pattern: Pattern, start: int) -> Tensor:
        """The attentional states (B, K, L, D) of top states (B, K, L, n), the first of which stands at `start`."""
        normalizer: Normalizer | None = None
        reach = self.config.window_size
        if self.config.window == "local-m":
            center = torch.arange(start, start + top.shape[2], device=top.device)
            pattern = pattern & Around(center, left=reach, right=reach)
        elif self.center_proj is not None and self.center_vector is not None:
            share = torch.sigmoid(self.center_vector(torch.tanh(self.center_proj(top)))[..., 0].to(top.dtype))
            center = memory.lengths[:, None, None] * share  # equation 9
            pattern = pattern & Around(center, left=reach, right=reach)
            normalizer = Softmax(prior=Gaussian(center, sigma=reach / 2))  # equation 10
        context = self.cross_attention(
            top, memory.extra[0], memory.states, pattern=pattern, normalizer=normalizer, query_start=start
        )
        found: Tensor = self.dropout(torch.tanh(self.attentional(torch.cat([context, top], -1))))  # equation 5
        return found
