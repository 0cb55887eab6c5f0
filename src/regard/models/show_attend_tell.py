"""Show, Attend and Tell: an LSTM that writes a caption while it attends to a grid of picture features.

Source: Xu et al. 2015, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", arXiv
1502.03044.

Layout: B pictures, S = h w grid cells with D features, T target tokens, K hypotheses, n hidden units.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.check import show
from regard.attention.hard import Gumbel, Hard, Reinforce, StraightThrough
from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.summary import Summary, SummaryResult
from regard.attention.value import short_repr
from regard.errors import ConfigError, ShapeError
from regard.layers.convolution_2d import ResidualConvolution
from regard.layers.cross_attention import CrossAttention
from regard.layers.dropout import Dropout
from regard.layers.embeddings import Embeddings
from regard.layers.learned import LearnedAdditive
from regard.layers.linear import Linear
from regard.layers.output_projection import IGNORED, CrossEntropy, OutputProjection
from regard.layers.recurrent import LSTM, check_positions
from regard.models.check import check_fields
from regard.models.hypothesis_state import HypothesisState
from regard.models.padding import check_tokens
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary

MOMENTUM = 0.9  # of the moving baseline; equation after (12) in the paper
ATTENTIONS: dict[str, Normalizer] = {
    "soft": Softmax(),
    "hard": Hard(sample=Reinforce()),
    "straight-through": Hard(sample=StraightThrough()),
    "gumbel": Hard(sample=Gumbel()),
}
GROUPS = 8  # of a group normalization, at most
STAGES = 3  # of the convolutional network; each but the first halves the sides
SHRINKING = 2 ** (STAGES - 1)  # pixels of a side for a cell of the grid


class GridConfig:
    """Sizes of pictures and of their grid of features, from the fields of a configuration.

    Raises:
        ConfigError: a field of another type or out of range, or sides that are not multiples of 4.
    """

    image_size: int
    image_width: int | None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("image_size", "image_width"):
            side = getattr(self, name)
            if side is not None and side % SHRINKING:
                raise ConfigError(f"{type(self).__name__}: {name}={side} must be a multiple of {SHRINKING}")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the pictures, in pixels."""
        return self.image_size, self.image_width or self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of features."""
        height, width = self.sides
        return height // SHRINKING, width // SHRINKING


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ShowAttendTellConfig(GridConfig):
    """Configuration of a `ShowAttendTell`.

    Args:
        vocabulary: of the captions.
        image_size: height of the pictures in pixels, a multiple of 4: the grid has a cell for each 4 x 4 of them.
        image_width: width, a multiple of 4; None for square pictures.
        channels: features of the first of three stages of the convolutional network; each further one doubles them.
        embed_dim: size of token embeddings.
        hidden_dim: n, size of the LSTM's states.
        align_dim: hidden size of the attention's score.
        attention_kind: "soft"; or "hard", one cell a word, trained by a policy gradient; or with the gradients of
            "straight-through" or "gumbel".
        doubly_stochastic: coefficient of the term that makes each cell's weights sum to 1 over the words; 0 for none.
        entropy: coefficient of the entropy of the choice, of "hard".
        dropout: of embeddings and of the readout.
        input_scale: what embedded tokens are multiplied by.

    Raises:
        ConfigError: an unknown value or one that is out of range.
    """

    vocabulary: Vocabulary
    image_size: int = 64
    image_width: int | None = None
    channels: int = 32
    embed_dim: int = 128
    hidden_dim: int = 256
    align_dim: int = 128
    attention_kind: Literal["soft", "hard", "straight-through", "gumbel"] = "soft"
    doubly_stochastic: float = 0.1
    entropy: float = 0.01
    dropout: float = 0.1
    input_scale: float = 10.0

    __repr__ = short_repr


class CaptionOutput(NamedTuple):
    """Output of the model on whole captions."""

    hidden: Tensor  # (B, T, F): readout
    projection: OutputProjection
    memory: Memory
    weights: Tensor  # (B, T, S): of attention
    log_probs: Tensor | None  # (B, T): of the chosen cells, of hard attention in training
    entropies: Tensor | None  # (B, T): of the choices
    config: ShowAttendTellConfig
    baseline: Tensor | None  # (): moving mean of the log-likelihood of a caption; updated in training

    @property
    def logits(self) -> Tensor:
        """Logits (B, T, N) of the token after each target token; computed at each access."""
        return self.projection.logits(self.hidden)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, T), with the terms of the attention in the loss to minimize.

        Args:
            labels: token ids; `IGNORED` at padding.
            label_smoothing: as for `OutputProjection.cross_entropy`.

        Returns:
            Sums over the labels: "smoothed" with the terms of the attention, "plain" without.

        Source: Xu et al. 2015, equations 10 to 12 (the policy gradient) and 14 (doubly stochastic attention).
        """
        loss = self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)
        if not torch.is_grad_enabled():
            return loss
        mask, total = (labels != IGNORED).float(), loss.smoothed
        if self.log_probs is not None and self.entropies is not None and self.baseline is not None:
            total = total + self._policy(labels, mask)
        elif self.config.doubly_stochastic:
            sums = (self.weights.float() * mask[..., None]).sum(1)  # (B, S)
            cells = mask.sum(1, keepdim=True) / sums.shape[1]  # equal shares of the caption's words
            total = total + self.config.doubly_stochastic * ((cells - sums) ** 2).sum()
        return CrossEntropy(total, loss.plain, loss.count)

    def _policy(self, labels: Tensor, mask: Tensor) -> Tensor:
        """The policy gradient's loss: the caption's log-likelihood above the baseline is the choices' reward."""
        with torch.no_grad():
            log_likelihood = self.logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
            reward = (log_likelihood * mask).sum(1) / mask.sum(1).clamp(min=1)  # mean of a caption's words
            advantage = reward - self.baseline
            self.baseline.mul_(MOMENTUM).add_((1 - MOMENTUM) * reward.mean())
        chosen = (self.log_probs * mask).sum(1)  # type: ignore[operator]
        spread = (self.entropies * mask).sum()  # type: ignore[operator]
        return -(advantage * chosen).sum() - self.config.entropy * spread


@final
class ShowAttendTell(Seq2Seq):
    """A residual convolutional network, and an LSTM that attends to its grid before each word.

    With a_i the features of cell i, h_t the LSTM's state, y the caption's words and E their embeddings:
        e_ti = v tanh(W h_{t-1} + U a_i),  z_t = sum_i softmax(e_t)_i a_i, or a_i of one chosen cell
        h_t = LSTM([E y_{t-1}, z_t]),  logits = L_o tanh(E y_{t-1} + L_h h_t + L_z z_t)
    The first states are maps of the mean of the a_i.

    Args:
        config: sizes and options.

    Source: Xu et al. 2015, arXiv 1502.03044, section 3; equations 1 to 14. Its features are those of a published
    network on 14 x 14 cells; here the network is small and trained with the rest.

    >>> model = ShowAttendTell(ShowAttendTellConfig(vocabulary=Vocabulary(size=50), image_size=16, channels=4))
    >>> model(torch.zeros(1, 3, 16, 16), None, torch.tensor([[1, 7, 8]])).logits.shape
    torch.Size([1, 3, 50])
    """

    def __init__(self, config: ShowAttendTellConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        features, hidden, embed = features_of(config.channels), config.hidden_dim, config.embed_dim
        self.stem, self.blocks = residual_network(config.channels)
        self.places = nn.Parameter(0.5 * torch.randn(math.prod(config.grid), features))  # positions of the cells
        self.norm = nn.LayerNorm(features)
        self.embeddings = Embeddings(config.vocabulary.size, embed, shared=True, tied=True, scale=config.input_scale)
        self.first_proj = Linear(features, 2 * hidden)
        normalizer = ATTENTIONS[config.attention_kind]
        self.cross_attention = CrossAttention(
            hidden, features, align_dim=config.align_dim, score=LearnedAdditive(), normalizer=normalizer
        )
        self.cell = LSTM(embed + features, hidden, 1, dropout=nn.Identity(), gate_gain=1.0)
        self.readout = Linear(hidden + features, embed)
        self.dropout = Dropout(config.dropout)
        self.register_buffer("baseline", torch.zeros(()))

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> CaptionOutput:  # type: ignore[override]
        self.check_inputs(inputs, lengths)
        check_tokens("targets", targets, rows=len(inputs))
        memory = self.encode(inputs, lengths)
        steps = self._decode(targets, memory)
        return CaptionOutput(
            steps.hidden, self.projection.as_called(), memory, steps.weights, steps.log_probs, steps.entropies,
            self.config, self.baseline,
        )  # fmt: skip

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        features = self.blocks(self.stem(inputs)).flatten(2).transpose(1, 2)  # (B, S, D)
        features = torch.relu(self.norm(features) + self.places)
        first = torch.tanh(self.first_proj(features.mean(1)))
        keys = self.cross_attention.project_key(features)
        return Memory(features, self.source_lengths(features, None), (keys, *first.chunk(2, -1)))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        return self._decode(targets, memory).hidden

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> HypothesisState:
        return HypothesisState(memory, *memory.extra[1:])

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        output, cell = state.tensors  # (B, K, n)
        embedded = self.embeddings.target(tokens)
        context: Tensor = self.cross_attention(output[:, :, None], state.memory.extra[0], state.memory.states)
        new = self._cell(embedded, context[:, :, 0], output, cell)
        state.advance(*new)
        return self._readout(embedded, new[0], context[:, :, 0])

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are pictures (B, 3, H, W) of the configured size, and lengths None."""
        check_pictures("ShowAttendTell", inputs, lengths, self.config.sides)

    def attention_weights(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Weights (B, 1, T, S) of the cells for the token after each target token.

        Args:
            inputs: pictures, as for `forward`.
            targets: token ids (B, T).
        """
        weights: Tensor = self(inputs, None, targets).weights
        return weights[:, None]

    def _decode(self, targets: Tensor, memory: Memory) -> "_Steps":
        check_positions("ShowAttendTell, targets", targets)
        embedded = self.dropout(self.embeddings.target(targets))
        keys, output, cell = memory.extra
        samples = self.training and self.config.attention_kind == "hard"
        steps: list[tuple[Tensor, ...]] = []
        for x in embedded.unbind(1):
            context, summary_result = self._attend(output, keys, memory.states, log_prob=samples)
            parts = [summary_result.weights[:, 0, 0]]
            if samples:
                spread = self._attend(output, keys, memory.states, normalizer=Softmax())[1].entropy
                parts += [summary_result.log_prob[:, 0, 0], spread[:, 0, 0]]
            output, cell = self._cell(x, context, output, cell)
            steps.append((self._readout(x, output, context), *parts))
        joined = [torch.stack(parts, 1) for parts in zip(*steps, strict=True)]
        return _Steps(*joined)

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        features: Tensor,
        *,
        log_prob: bool = False,
        normalizer: Normalizer | None = None,
    ) -> tuple[Tensor, SummaryResult]:
        """Context (B, D) of states (B, n), and the weights; with a normalizer, the entropy of its weights."""
        summary = Summary(entropy=True) if normalizer is not None else Summary(weights=True, log_prob=log_prob)
        context, summary_result = self.cross_attention(
            query[:, None], keys, features, summary=summary, normalizer=normalizer
        )
        return context[:, 0], summary_result

    def _cell(self, embedded: Tensor, context: Tensor, output: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Next output and cell (..., n) of the LSTM."""
        shape = output.shape
        x = torch.cat([embedded, context.to(embedded.dtype)], -1).flatten(0, -2)[:, None]
        _, [(outputs, cells)] = self.cell(x, [(output.flatten(0, -2), cell.flatten(0, -2))])
        return outputs[:, 0].view(shape), cells[:, 0].view(shape)

    def _readout(self, embedded: Tensor, output: Tensor, context: Tensor) -> Tensor:
        """L_o's input: tanh(E y + L_h h + L_z z)."""
        hidden: Tensor = self.dropout(torch.tanh(embedded + self.readout(torch.cat([output, context], -1))))
        return hidden


class _Steps(NamedTuple):
    """Output of the decoder for each target position."""

    hidden: Tensor  # (B, T, F)
    weights: Tensor  # (B, T, S)
    log_probs: Tensor | None = None  # (B, T)
    entropies: Tensor | None = None  # (B, T)


def features_of(channels: int) -> int:
    """Features of the cells that `residual_network(channels)` gives."""
    return channels * SHRINKING


def residual_network(channels: int) -> tuple[nn.Conv2d, nn.Sequential]:
    """A convolution, and three residual stages of which the last two halve the sides and double the features."""
    sizes = [channels * 2**i for i in range(STAGES)]
    blocks = [
        ResidualConvolution(before, after, stride, make_norm=_group_norm)
        for before, after, stride in ((channels, channels, 1), *((*pair, 2) for pair in pairwise(sizes)))
    ]
    return nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.Sequential(*blocks)


def check_pictures(model: str, inputs: Tensor, lengths: Tensor | None, sides: tuple[int, int]) -> None:
    """Raise ShapeError unless these are pictures (B, 3, H, W) of a size, and lengths None."""
    fits = isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.shape[1:] == (3, *sides)
    if not fits or lengths is not None:
        raise ShapeError(
            f"{model}: inputs is {show(inputs)}, lengths {show(lengths)}; expected pictures, floats of shape "
            f"(batch, 3, {sides[0]}, {sides[1]}), and no lengths"
        )


def _group_norm(size: int) -> nn.Module:
    """Group normalization (Wu and He 2018, arXiv 1803.08494) of so many features."""
    return nn.GroupNorm(math.gcd(GROUPS, size), size)
