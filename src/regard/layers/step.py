"""Decoding steps with one native call for each part of a layer: norm, linear maps, attention and residual sum.

For a few rows Python and PyTorch take longer to call a part's operations than the processor to compute them. The
layer's own modules compute everything else: other scores or norms, many rows, other devices, hooks, gradients.
"""

from collections.abc import Callable
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from regard.attention.backends.native.mask import conjuncts
from regard.attention.cache import KeyValueCache
from regard.attention.engine import observer
from regard.attention.patterns.pattern import Causal, Full, Pattern, SlidingWindow
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.attention.score import Dot
from regard.attention.spec import PLAIN
from regard.layers.causal_layer import CausalLayer
from regard.layers.linear import KernelWeights, fast, is_few, is_ours, is_plain
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.quantized_linear import is_quantized
from regard.layers.transformer_layer import DecoderLayer, FeedForward

# Activations that the kernels have, by their numbers there.
ACTIVATION_CODES = {"relu": 1, "swish": 2, "gelu-tanh": 3, "gelu": 4}
NO_WEIGHTS = (0, 0, 0, 0, 0, 0, 0, 0)


class DecoderStep(Protocol):
    """What `DecoderLayer.step` does: see there."""

    def __call__(self, x: Tensor, past: KeyValueCache, memory: KeyValueCache, pattern: Pattern) -> Tensor: ...


def decoder_step(layer: DecoderLayer) -> DecoderStep:
    """A layer's step, to be taken many times; its weights are those of now, unless they change in place.

    Args:
        layer: of a decoder, in evaluation mode.

    Returns:
        What gives the same as `layer.step`, and may write into x.
    """
    if not is_usual(layer):
        return layer.step
    past = _attention(layer.around_self.norm, layer.around_self.first, layer.self_attention)
    memory = _attention(layer.around_cross.norm, layer.around_cross.first, layer.cross_attention, memory=True)
    around, network = layer.around_feed_forward, layer.feed_forward
    feed_forward = _feed_forward(around.norm, around.first, network)
    if past is None or memory is None or feed_forward is None:
        return layer.step
    return FusedDecoderStep(layer, past, memory, feed_forward)


CausalStep = Callable[[Tensor, KeyValueCache], Tensor]


def causal_step(layer: CausalLayer) -> CausalStep:
    """A layer's call for one more position with its past, likewise.

    Args:
        layer: of a language model, in evaluation mode.

    Returns:
        What gives the same as `layer(x, past=past)` for x (B, 1, D), and may write into x.
    """
    past = feed_forward = None
    if is_usual(layer):
        past = _attention(layer.attention_norm, True, layer.self_attention)
        feed_forward = _feed_forward(layer.feed_forward_norm, True, layer.feed_forward)
    if past is None or feed_forward is None:
        return lambda x, kept: layer(x, past=kept)
    return FusedCausalStep(layer, past, feed_forward)


@final
class FusedDecoderStep:
    """Step of a decoder layer by its fused parts."""

    def __init__(
        self, layer: DecoderLayer, past: "AttentionStep", memory: "AttentionStep", feed_forward: "FeedForwardStep"
    ) -> None:
        self.layer, self.past, self.memory, self.feed_forward = layer, past, memory, feed_forward

    def __call__(self, x: Tensor, kept: KeyValueCache, source: KeyValueCache, pattern: Pattern) -> Tensor:
        if (
            self.layer.training
            or is_watched()
            or not (self.past.takes(x, kept) and self.memory.takes_memory(x, source, pattern))
        ):
            return self.layer.step(x, kept, source, pattern)
        x = x.contiguous()
        self.past.step(x, kept)
        self.memory.read(x, source, pattern)
        self.feed_forward.step(x)
        return x


@final
class FusedCausalStep:
    """Step of a causal layer by its fused parts."""

    memory = None

    def __init__(self, layer: CausalLayer, past: "AttentionStep", feed_forward: "FeedForwardStep") -> None:
        self.layer, self.past, self.feed_forward = layer, past, feed_forward

    def __call__(self, x: Tensor, kept: KeyValueCache) -> Tensor:
        if self.layer.training or is_watched() or x.shape[1] != 1 or not self.past.takes(x, kept):
            hidden: Tensor = self.layer(x, past=kept)
            return hidden
        x = x.contiguous()
        self.past.step(x, kept)
        self.feed_forward.step(x)
        return x


@final
class AttentionStep:
    """Attention of one more token, with its norm and the sum with its input."""

    def __init__(self, norm: nn.Module, before: bool, attention: MultiHeadAttention, *, memory: bool) -> None:
        scale = attention.score.scale
        self._scale = attention.head_dim**-0.5 if scale is None else float(scale)
        self._heads, self.groups, self.dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        self._size, self.lookback = attention.embed_dim, attention.pattern.lookback
        query, key, value, output = (_weights(part) or NO_WEIGHTS for part in _maps(attention))
        if memory:
            key = value = NO_WEIGHTS
        self.part = fast().FusedAttention(norm_arguments(norm, before=before), query, key, value, output)
        self._kept = tensors_of(norm, *_maps(attention))
        self.any_rows = all(map(is_quantized, _maps(attention)))

    @property
    def heads(self) -> tuple[int, int, int, float]:
        """Kernel arguments of the heads."""
        return self._heads, self.groups, self.dim, self._scale

    def takes(self, x: Tensor, past: KeyValueCache) -> bool:
        """Whether K hypotheses of each of B sentences, x (B, K, D), can go on from their past."""
        sizes = (x.shape[0] * x.shape[1], self.groups, self.dim)
        usable = is_ours(x) if self.any_rows else is_few(x, self._size)
        return usable and past.lookback == self.lookback and past.goes_with(sizes, x)

    def step(self, x: Tensor, past: KeyValueCache) -> None:
        """Go on with one more token of each, x (B, K, D), which changes in place; its keys and values are kept."""
        batch = x.shape[0] * x.shape[1]
        shape = (batch, self.groups, 1, self.dim)
        keys, values, _ = past.room(shape, shape, x)
        self._run(x, (batch, 1), keys, values, None)

    def takes_memory(self, x: Tensor, memory: KeyValueCache, pattern: Pattern) -> bool:
        """Whether K hypotheses of each of B sentences, x (B, K, D), can see what the pattern shows of their sources."""
        some = memory.lookback is None and memory.length > 0 and shows_sources(pattern, len(x))
        return some and memory.goes_with((x.shape[0], self.groups, self.dim), x)

    def read(self, x: Tensor, memory: KeyValueCache, pattern: Pattern) -> None:
        """What the hypotheses, x (B, K, D), find in what the pattern shows of B sources; in place."""
        keys, values, _ = memory.contents
        lengths = pattern.lengths if isinstance(pattern, KeyLengths) else None
        self._run(x, (x.shape[0], x.shape[1]), keys, values, lengths)

    def _run(self, x: Tensor, batch: tuple[int, int], keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        self.part.step(
            x.data_ptr(), (batch[0], self._heads, self.groups, batch[1], keys.shape[2], self.dim, self.dim),
            (keys.data_ptr(), *keys.stride()), (values.data_ptr(), *values.stride()), self._scale,
            0 if lengths is None else lengths.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip


@final
class FeedForwardStep:
    """A feed-forward network of a few rows, with its norm and the sum with its input."""

    def __init__(self, norm: nn.Module, before: bool, network: FeedForward) -> None:
        maps = (network.expand, network.contract)
        of_norm, activation = norm_arguments(norm, before=before), ACTIVATION_CODES[network.activation]
        self.part = fast().FusedFeedForward(of_norm, *(_weights(part) or NO_WEIGHTS for part in maps), activation)
        self._kept = tensors_of(norm, *maps)

    def step(self, x: Tensor) -> None:
        """The network at each of the rows of x (B, K, D), which change in place."""
        self.part.step(x.data_ptr(), x.shape[0] * x.shape[1], torch.get_num_threads())


def _attention(
    norm: nn.Module, before: bool, attention: MultiHeadAttention, *, memory: bool = False
) -> AttentionStep | None:
    """The part of a layer; None if the kernels don't compute it."""
    score = attention.score
    plain = (
        isinstance(score, Dot)
        and not isinstance(score.scale, Tensor)
        and score.softcap is None
        and attention.normalizer == PLAIN.normalizer  # not "is": a copy of a model has copies of its values
        and attention.position_bias is attention.positions is attention.query_norm is None
        and attention.backend == "auto"
    )
    # The newest token sees all that is kept.
    supported = Full if memory else Full | Causal | SlidingWindow
    plain = plain and all(isinstance(part, supported) for part in conjuncts(attention.pattern))
    if not (plain and is_norm(norm) and all(map(_weights, _maps(attention)))):
        return None
    return AttentionStep(norm, before, attention, memory=memory)


def _feed_forward(norm: nn.Module, before: bool, network: nn.Module) -> FeedForwardStep | None:
    if not (isinstance(network, FeedForward) and network.activation in ACTIVATION_CODES and is_norm(norm)):
        return None
    if not (_weights(network.expand) and _weights(network.contract)):
        return None
    return FeedForwardStep(norm, before, network)


def shows_sources(pattern: Pattern, batch: int) -> bool:
    """Whether the kernels know the pattern of so many sources: full, or by lengths."""
    if not isinstance(pattern, KeyLengths):
        return isinstance(pattern, Full)
    lengths = pattern.lengths
    return lengths.shape == (batch,) and lengths.dtype is torch.int64 and lengths.is_contiguous()


def is_watched() -> bool:
    """Whether a recorder or a global hook sees all calls of attention or of modules."""
    return bool(observer.count or torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def is_usual(module: nn.Module) -> bool:
    """Whether kernels run, the module is in evaluation mode, and no hook or observer is active."""
    if fast() is None or module.training or is_watched():
        return False
    return not any(x._forward_hooks or x._forward_pre_hooks or "forward" in vars(x) for x in _parts(module))


def _parts(module: nn.Module) -> list[nn.Module]:
    """As `module.modules()`, in a third of the time, with parts that are shared listed more than once."""
    parts = [module]
    for part in parts:
        parts.extend(x for x in part._modules.values() if x is not None)
    return parts


def is_norm(norm: nn.Module) -> bool:
    """Whether it is a LayerNorm over one dimension with float32 weight and bias on the CPU."""
    if type(norm) is not nn.LayerNorm or len(norm.normalized_shape) != 1 or norm.weight is None or norm.bias is None:
        return False
    return all(is_plain(x) and x.is_contiguous() for x in (norm.weight, norm.bias))


def _maps(attention: MultiHeadAttention) -> tuple[nn.Linear, ...]:
    return attention.query_proj, attention.key_proj, attention.value_proj, attention.output_proj


def norm_arguments(norm: Any, *, before: bool) -> tuple[int, int, float, bool]:
    """Kernel arguments of a norm: addresses of weight and bias, epsilon, and whether it comes first."""
    return norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps, before


def _weights(one: nn.Module) -> KernelWeights | None:
    """Kernel arguments of a linear map; None if the kernels cannot compute it."""
    weights: KernelWeights | None = getattr(one, "kernel_weights", None)
    return weights


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    """Tensors whose addresses the kernels hold; they must outlive the addresses."""
    parts = [part for module in modules for part in _parts(module)]
    return [x for part in parts for x in (*part._parameters.values(), *part._buffers.values()) if x is not None]
