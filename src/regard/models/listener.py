"""Listen, Attend and Spell: a pyramid of bidirectional LSTMs, and an LSTM that attends to it and writes the text.

Source: Chan et al. 2015, "Listen, Attend and Spell", arXiv 1508.01211; location-aware attention: Chorowski et al. 2015,
"Attention-Based Models for Speech Recognition", arXiv 1506.07503.

Layout: B utterances, F frames of M mel bands, S encoder states, T target tokens, K hypotheses, n hidden units.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from regard.attention.normalizer import NormalizedSigmoid, Softmax
from regard.attention.patterns.pattern import Pattern
from regard.attention.value import short_repr
from regard.errors import ConfigError
from regard.layers.cross_attention import CrossAttention
from regard.layers.dropout import Dropout
from regard.layers.embeddings import Embeddings
from regard.layers.learned import LearnedAdditive
from regard.layers.linear import Linear
from regard.layers.location_aware_attention import LocationAwareAttention
from regard.layers.output_projection import OutputProjection
from regard.layers.quantized_linear import readable_weight
from regard.layers.recurrent import LSTM, SequenceLSTM, check_positions
from regard.models.check import check_fields
from regard.models.hypothesis_state import HypothesisState
from regard.models.joint_ctc import SpeechOutput, check_ctc_weight, check_spectrograms, halved, without_padding
from regard.models.padding import check_tokens
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ListenerConfig:
    """Configuration of a `Listener`.

    Args:
        vocabulary: of the target.
        num_mels: M, bands of the spectrogram.
        hidden_dim: n, size of the encoder's states, half of it for each direction, and of the decoder's; 512 in the
            paper.
        encoder_layers: number of bidirectional LSTM layers.
        decoder_layers: number of LSTM layers; 2 in the paper.
        reduction: frames of an encoder state, a power of 2: as many of the lowest layers as it takes halve the length;
            8 in the paper. 1 for an encoder without a pyramid, which attends to every frame.
        embed_dim: size of token embeddings and of the readout.
        align_dim: hidden size of the attention's score.
        attention_kind: "content" for an additive score of the decoder's and the encoder's states, as in the paper; or
            "location", whose score also depends on the previous step's weights.
        smoothing: whether the weights are a normalized sigmoid instead of a softmax, which spreads them over more
            states.
        window: states more than this far from the median of the previous step's weights are hidden, with "location";
            None for no window.
        num_filters: filters of the previous weights, with "location".
        kernel_size: states that a filter spans, odd; 201 frames in Chorowski et al., which are 51 states of 4 frames.
        ctc_weight: weight of the CTC loss beside the decoder's; 0 for no CTC, as in the paper.
        dropout: of the inputs of encoder layers but the first, of embeddings and of the readout.
        input_scale: what embedded tokens are multiplied by: 10 gives inputs of unit variance.

    Raises:
        ConfigError: an unknown value or one that is out of range.
    """

    vocabulary: Vocabulary
    num_mels: int = 80
    hidden_dim: int = 256
    encoder_layers: int = 3
    decoder_layers: int = 1
    reduction: int = 4
    embed_dim: int = 128
    align_dim: int = 128
    attention_kind: Literal["content", "location"] = "content"
    smoothing: bool = False
    window: int | None = None
    num_filters: int = 10
    kernel_size: int = 51
    ctc_weight: float = 0.3
    dropout: float = 0.1
    input_scale: float = 10.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        check_ctc_weight("ListenerConfig", self.ctc_weight)
        if self.hidden_dim % 2:
            raise ConfigError(
                f"ListenerConfig: hidden_dim={self.hidden_dim}; expected an even number: half for each direction"
            )
        if self.reduction.bit_count() != 1 or self.reduction > 2**self.encoder_layers:
            raise ConfigError(
                f"ListenerConfig: reduction={self.reduction} with encoder_layers={self.encoder_layers}; expected a "
                f"power of 2 from 1 to {2**self.encoder_layers}: each layer may halve the length"
            )
        if self.window is not None and self.attention_kind != "location":
            raise ConfigError(
                f"ListenerConfig: window={self.window} with attention_kind={self.attention_kind!r}; a window follows "
                "the previous weights: expected attention_kind='location'"
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"ListenerConfig: kernel_size={self.kernel_size} must be odd, with a state in the middle")


@final
class Listener(Seq2Seq):
    """A pyramid of bidirectional LSTM layers, and an LSTM decoder that attends to its states after each step.

    With h the encoder's states, y the target tokens and E their embeddings:
        s_t = LSTM([E y_{t-1}, c_{t-1}]), from states and a context of 0
        c_t = attention of s_t to h,  logits = W_o tanh(W [s_t, c_t])
    A layer of the pyramid reads pairs of states of the one below, side by side.

    Inputs are log-mel spectrograms (B, F, M); `lengths` are numbers of frames.

    Args:
        config: sizes and options.

    Source: Chan et al. 2015, arXiv 1508.01211, sections 3.1 and 3.2; attention by location, smoothing and window:
    Chorowski et al. 2015, arXiv 1506.07503, sections 2.2 and 2.3; CTC: Kim et al. 2016, arXiv 1609.06773.

    >>> model = Listener(ListenerConfig(vocabulary=Vocabulary(size=30), hidden_dim=16)).eval()
    >>> model(torch.zeros(2, 50, 80), torch.tensor([50, 20]), torch.tensor([[1, 7, 8]]).expand(2, -1)).logits.shape
    torch.Size([2, 3, 30])
    """

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        hidden, embed = config.hidden_dim, config.embed_dim
        self.halving_layers = config.reduction.bit_length() - 1
        sizes = [config.num_mels] + [hidden] * (config.encoder_layers - 1)
        self.encoder = nn.ModuleList(
            SequenceLSTM(size * (1 + (i < self.halving_layers)), hidden // 2) for i, size in enumerate(sizes)
        )
        self.embeddings = Embeddings(config.vocabulary.size, embed, shared=True, tied=True, scale=config.input_scale)
        self.cross_attention = _attention(config)
        self.decoder = LSTM(embed + hidden, hidden, config.decoder_layers, dropout=nn.Identity(), gate_gain=1.0)
        self.readout = Linear(2 * hidden, embed)
        self.ctc_proj = Linear(hidden, config.vocabulary.size) if config.ctc_weight else None
        self.dropout = Dropout(config.dropout)

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are spectrograms (B, F, M), and lengths (B,) or None."""
        check_spectrograms("Listener", inputs, lengths, self.config.num_mels)

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> SpeechOutput:  # type: ignore[override]
        self.check_inputs(inputs, lengths)
        check_tokens("targets", targets, rows=len(inputs))
        memory = self.encode(inputs, lengths)
        hidden = self.decode(targets, memory)
        projection = self.projection.as_called()
        return SpeechOutput(hidden, projection, memory, self.ctc, self.config.ctc_weight, self.vocabulary)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        x = without_padding(inputs, lengths)
        for i, layer in enumerate(self.encoder):
            if i < self.halving_layers:
                x, lengths = paired(x), halved(lengths)
            x = without_padding(layer(x if i == 0 else self.dropout(x), lengths), lengths)
        return Memory(x, lengths, (self.cross_attention.project_key(x),))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        check_positions("Listener, targets", targets)
        embedded = self.dropout(self.embeddings.target(targets))[:, None]  # one hypothesis: (B, 1, T, D)
        pattern, tensors, hidden = memory.pattern, self.start(memory).tensors, []
        for x in embedded.unbind(2):
            readout, tensors = self._step(x, tensors, memory, pattern)
            hidden.append(readout)
        return torch.cat(hidden, 1)

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    @property
    def ctc(self) -> OutputProjection | None:
        """The projection from encoder states to logits of CTC; None without it."""
        head = self.ctc_proj
        return None if head is None else OutputProjection(readable_weight(head), head.bias).as_called()

    def start(self, memory: Memory) -> HypothesisState:
        states, config, attention = memory.states, self.config, self.cross_attention
        lstm = states.new_zeros(len(states), 2 * config.decoder_layers, config.hidden_dim)
        is_aware = isinstance(attention, LocationAwareAttention)
        return HypothesisState(memory, lstm, lstm[:, 0], *([attention.initial_weights(states)] if is_aware else []))

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        embedded = self.dropout(self.embeddings.target(tokens))
        hidden, tensors = self._step(embedded, state.tensors, state.memory, state.memory.pattern)
        state.advance(*tensors)
        return hidden

    def _step(
        self, embedded: Tensor, tensors: tuple[Tensor, ...], memory: Memory, pattern: Pattern
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One more token of each hypothesis.

        Args:
            embedded: its embedding, (B, K, D).
            tensors: outputs and cells of all LSTM layers, (B, K, 2 layers, n); the context (B, K, n); and the weights
                (B, K, S) of location-aware attention.
            memory: the encoder's output.
            pattern: hides its padding.

        Returns:
            The readout (B, K, D), and the tensors after the token.
        """
        lstm, context, *weights = tensors
        batch = embedded.shape[:2]
        x = torch.cat([embedded, context.to(embedded.dtype)], -1).flatten(0, 1)[:, None]
        parts = lstm.flatten(0, 1).unbind(1)
        top, history = self.decoder(x, list(zip(parts[::2], parts[1::2], strict=True)))
        lstm = torch.stack([y[:, -1] for layer in history for y in layer], 1).unflatten(0, batch)
        top = top.unflatten(0, batch)  # (B, K, 1, n)
        [keys] = memory.extra
        output = top[:, :, 0]
        if weights:
            context, *weights = self.cross_attention(output, keys, memory.states, *weights, pattern=pattern)
        else:
            context = self.cross_attention(top, keys, memory.states, pattern=pattern)[:, :, 0]
        readout = torch.tanh(self.readout(torch.cat([output, context], -1)))
        return self.dropout(readout), (lstm, context, *weights)


def _attention(config: ListenerConfig) -> CrossAttention | LocationAwareAttention:
    hidden, align = config.hidden_dim, config.align_dim
    if config.attention_kind == "location":
        return LocationAwareAttention(
            hidden, hidden, align_dim=align, num_filters=config.num_filters, kernel_size=config.kernel_size,
            window=config.window, smoothing=config.smoothing,
        )  # fmt: skip
    normalizer = NormalizedSigmoid() if config.smoothing else Softmax()
    return CrossAttention(hidden, hidden, align_dim=align, score=LearnedAdditive(), normalizer=normalizer)


def paired(x: Tensor) -> Tensor:
    """Neighboring positions side by side: (B, S, D) as (B, S / 2, 2 D), the last one beside zeros if S is odd."""
    if x.shape[1] % 2:
        x = nn.functional.pad(x, (0, 0, 0, 1))
    return x.unflatten(1, (-1, 2)).flatten(2)
