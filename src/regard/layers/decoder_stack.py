"""A decoder's step in one native call: embedding, layers, the last norm and logits.

Each step reads all weights, so that Python between two calls runs from cold caches: several times as slow as in a loop.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.engine.tracing import is_traced
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.layers.linear import MAX_DOT_ROWS, KernelWeights, fast, kernel_weights
from regard.layers.output_projection import OutputProjection
from regard.layers.quantized_linear import QuantizedEmbedding, QuantizedWeight, with_bias
from regard.layers.step import (
    NO_WEIGHTS,
    FusedCausalStep,
    FusedDecoderStep,
    is_norm,
    is_usual,
    is_watched,
    norm_arguments,
    shows_sources,
    tensors_of,
)

NO_NORM = (0, 0, 0.0, False)
FusedStep = FusedDecoderStep | FusedCausalStep


class DecoderEnds(NamedTuple):
    """What a decoder computes before and after its layers."""

    embedding: nn.Module  # of tokens
    factor: float  # on the embeddings
    dropout: nn.Module  # of the embeddings
    norm: nn.Module  # after the last layer; nn.Identity for none
    projection: OutputProjection  # to logits


class StepOutput(NamedTuple):
    """Output of a decoder's step."""

    hidden: Tensor  # (B, K, D): last hidden states
    logits: Tensor | None  # (B, K, N); None if they were not asked for


def decoder_stack(steps: Sequence[object], ends: DecoderEnds) -> "DecoderStack | None":
    """The step of a decoder, to be taken many times; its weights are those of now, unless they change in place.

    Args:
        steps: of each layer, from `decoder_step` or `causal_step`.
        ends: what stands before and after the layers.

    Returns:
        The step; None if the kernels don't compute it, or one of its parts has a hook.
    """
    fused = [step for step in steps if isinstance(step, FusedStep)]
    if not fused or len(fused) < len(steps) or not all(map(is_usual, (ends.embedding, ends.dropout, ends.norm))):
        return None
    embedding = _embedding_weights(ends.embedding)
    if embedding is None or not (type(ends.norm) is nn.Identity or is_norm(ends.norm)):
        return None
    return DecoderStack(fused, ends, embedding)


@final
class DecoderStack:
    """Step of a decoder in one native call; made by `decoder_stack`."""

    def __init__(self, steps: Sequence[FusedStep], ends: DecoderEnds, embedding: KernelWeights) -> None:
        self.like = torch.empty(0, device="cpu", dtype=torch.float32)
        self._steps, self._size = steps, embedding[1]
        self._modes = [*(step.layer for step in steps), ends.dropout]
        norm = NO_NORM if type(ends.norm) is nn.Identity else norm_arguments(ends.norm, before=True)
        output = _projection_weights(ends.projection) or NO_WEIGHTS
        self._tokens = output[0]
        self._native = fast().DecoderStack(embedding, ends.factor, norm, output)
        for step in steps:
            memory = step.memory
            self._native.add(
                step.past.part, step.past.heads, None if memory is None else memory.part,
                step.past.heads if memory is None else memory.heads, step.feed_forward.part,
            )  # fmt: skip
        any_rows = all(step.past.any_rows for step in steps) and isinstance(ends.projection.weight, QuantizedWeight)
        self._most_rows = None if any_rows else MAX_DOT_ROWS
        self._kept = [*tensors_of(ends.embedding, ends.norm), ends.projection]
        self._past: list[Tensor | None] = [None] * len(steps)  # the buffers that the kernels have
        self._memory: list[Tensor | None] = [None] * len(steps)
        self._sizes = (0, 0, 0)  # hypotheses, sentences and source positions in these buffers

    def step(
        self,
        tokens: Tensor,
        slots: Tensor | None,
        past: Sequence[KeyValueCache],
        memory: Sequence[KeyValueCache],
        pattern: Pattern,
        position: Tensor | None,
        *,
        logits: bool,
    ) -> StepOutput | None:
        """Append a token to each hypothesis.

        Args:
            tokens: (B, K), K hypotheses of each of B sentences.
            slots: (B, K), the sequence of each hypothesis in `past`; None if they are in order.
            past: KV cache of self-attention of each layer, B K sequences, which are updated.
            memory: KV cache of cross-attention of each layer, B sequences; empty for language models.
            pattern: padding pattern of the sources.
            position: (D,), added to the embeddings; None for none.
            logits: whether logits are wanted.

        Returns:
            The output; None, without an effect, if the layers' own steps must be taken.

        Raises:
            IndexError: a token that the embedding does not have.
        """
        batch, hypotheses = tokens.shape
        rows = batch * hypotheses
        if not self._takes(tokens, rows) or (logits and not self._tokens) or not shows_sources(pattern, batch):
            return None
        if (memory and not self._bind_memory(batch, memory)) or (spans := self._reserve(rows, past)) is None:
            return None
        hidden = self.like.new_empty(batch, hypotheses, self._size)
        output = self.like.new_empty(batch, hypotheses, self._tokens) if logits else None
        tokens = tokens.contiguous()
        self._native.step(
            (batch, hypotheses), tokens.data_ptr(), 0 if slots is None else slots.data_ptr(),
            0 if position is None else position.data_ptr(), spans, self._sizes[2],
            pattern.lengths.data_ptr() if isinstance(pattern, KeyLengths) else 0, hidden.data_ptr(),
            0 if output is None else output.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        for cache in past:
            cache.advance(1)
        return StepOutput(hidden, output)

    def _takes(self, tokens: Tensor, rows: int) -> bool:
        """Whether no recorder, hook, training or autocast is active, and the kernels take these tokens."""
        if is_watched() or torch.is_grad_enabled() or is_traced() or torch._C._is_any_autocast_enabled():
            return False
        plain = type(tokens) is Tensor and tokens.is_cpu and tokens.dtype is torch.int64 and rows > 0
        few = self._most_rows is None or rows <= self._most_rows
        return plain and few and not any(module.training for module in self._modes)

    def _reserve(self, rows: int, past: Sequence[KeyValueCache]) -> list[tuple[int, int]] | None:
        """Make room for a token in each cache; returns what it may see, or None if a cache does not fit."""
        spans, same = [], rows == self._sizes[0]
        for number, (step, cache) in enumerate(zip(self._steps, past, strict=True)):
            groups, dim = step.past.groups, step.past.dim
            known = same and cache.length > 0 and cache.buffers[0] is self._past[number]
            fits = known or (cache.lookback == step.past.lookback and cache.goes_with((rows, groups, dim), self.like))
            if not fits:
                return None
            shape = (rows, groups, 1, dim)
            spans.append(cache.reserve(shape, shape, self.like))
            same = same and cache.buffers[0] is self._past[number]
        if not same:
            self._native.bind_past([_buffer_arguments(*cache.buffers) for cache in past])
            self._past = [cache.buffers[0] for cache in past]
            self._sizes = (rows, *self._sizes[1:])
        return spans

    def _bind_memory(self, batch: int, memory: Sequence[KeyValueCache]) -> bool:
        """Pass the caches of the sources to the kernels, unless they have them; returns whether they can read them."""
        length = memory[0].length
        if self._sizes[1:] == (batch, length) and all(
            cache.length == length and cache.buffers[0] is buffer
            for cache, buffer in zip(memory, self._memory, strict=True)
        ):
            return True
        for step, cache in zip(self._steps, memory, strict=True):
            heads = step.memory
            if heads is None or cache.lookback is not None or not 0 < cache.length == length:
                return False
            if not cache.goes_with((batch, heads.groups, heads.dim), self.like):
                return False
        self._native.bind_memory([_buffer_arguments(*cache.buffers) for cache in memory])
        self._memory = [cache.buffers[0] for cache in memory]
        self._sizes = (self._sizes[0], batch, length)
        return True


def _embedding_weights(embedding: nn.Module) -> KernelWeights | None:
    """Kernel arguments of an embedding; None if the kernels cannot read it."""
    if isinstance(embedding, QuantizedEmbedding):
        return embedding.quantized.kernel_weights
    if type(embedding) is not nn.Embedding or embedding.max_norm is not None:
        return None
    return kernel_weights(embedding.weight, None)


def _projection_weights(projection: OutputProjection) -> KernelWeights | None:
    """Kernel arguments of the projection to logits; None if the kernels don't compute it."""
    weight, bias = projection.weight, projection.bias
    if projection.scale != 1:
        return None
    if isinstance(weight, QuantizedWeight):
        return with_bias(weight, bias)
    return kernel_weights(weight, bias)


def _buffer_arguments(key: Tensor, value: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (key.data_ptr(), *key.stride()), (value.data_ptr(), *value.stride())
