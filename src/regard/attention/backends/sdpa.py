"""Backend `sdpa`: PyTorch's fused kernels, for calls that they compute exactly."""

import threading
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from regard.attention.backends.protocol import Cost
from regard.attention.engine.call import Call
from regard.attention.engine.formula import shield
from regard.attention.engine.tile_sum import any_dual
from regard.attention.engine.tracing import forward_mode, transforms
from regard.attention.normalizer import Softmax
from regard.attention.patterns.pattern import Causal, Full
from regard.attention.score import Dot
from regard.attention.summary import SummaryResult

MAX_NORM = 1e10  # norm up to which hidden keys and values cannot overflow float32
# With a mask on a GPU, all kernels except cuDNN's, whose gradient is NaN for rows with scores far below 0 in PyTorch
# 2.11 (pytorch/pytorch#196678).
MASK_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_KERNEL_CHOICE = threading.Lock()


@final
class SDPA:
    """torch.nn.functional.scaled_dot_product_attention, with a dense mask unless Full or top-left aligned Causal."""

    name = "sdpa"

    def refusals(self, call: Call) -> list[str]:
        spec, reasons = call.spec, []
        if not isinstance(spec.score, Dot):
            reasons.append(f"score: computes Dot only, not {spec.score}")
        elif spec.score.softcap is not None:
            reasons.append("score: does not support a softcap")
        elif isinstance(spec.score.scale, Tensor):
            reasons.append("score: supports a number as scale, not a tensor")
        if not isinstance(spec.normalizer, Softmax):
            reasons.append(f"normalizer: computes Softmax only, not {spec.normalizer}")
        else:
            if spec.normalizer.sink is not None:
                reasons.append("normalizer: does not support a sink")
            if spec.normalizer.prior is not None:
                reasons.append("normalizer: does not support a prior")
        if call.seed is not None:
            reasons.append("dropout: cannot drop the entries defined by the seed")
        if call.summary is not None:
            reasons.append("summary: returns the output only")
        dual = forward_mode() and (torch.compiler.is_compiling() or any_dual((call.query, call.key, call.value)))
        if dual or "Jvp" in transforms():
            reasons.append("derivatives: does not support forward mode")
        if transforms().count("Grad") > 1:
            reasons.append("derivatives: does not support second derivatives")
        return reasons

    def cost(self, call: Call) -> Cost:
        batch, heads, num_queries, _ = call.query.shape
        pairs = num_queries * call.key.shape[2]
        if needs_mask(call):
            masks = batch * heads if call.spec.bias is not None or call.spec.pattern.tensor_fields else 1
            return Cost(pairs, masks * pairs * (1 + call.query.element_size()))  # booleans, and floats to add
        return Cost(pairs // 2 if isinstance(call.spec.pattern, Causal) else pairs, 0)

    def run(self, call: Call) -> tuple[Tensor, SummaryResult | None]:
        query, key, value, spec = call.query, call.key, call.value, call.spec
        grouped = query.shape[1] != key.shape[1]
        scale = spec.score.scale if isinstance(spec.score, Dot) else None
        scale = None if isinstance(scale, Tensor) else scale
        if not needs_mask(call):
            causal = isinstance(spec.pattern, Causal)
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped
            ), None
        query_BL, key_S = call.positions()
        visible = sees = mask = None
        if not isinstance(spec.pattern, Full):
            mask = visible = spec.pattern.visible(query_BL, key_S)
            if not _can_stay(query, key, value, visible):
                query, key, value, sees = shield(query, key, value, visible)
        if spec.bias is not None:
            mask = spec.bias.bias(query_BL, key_S, query.dtype)
            if visible is not None:
                mask = torch.where(visible, mask, -torch.inf)
        # sdpa_kernel sets and restores a global, so only one thread at a time may use it.
        with (
            _KERNEL_CHOICE if query.is_cuda and not torch.compiler.is_compiling() else nullcontext(),
            sdpa_kernel(MASK_KERNELS) if query.is_cuda else nullcontext(),
        ):
            output = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped
            )
        return output if sees is None else torch.where(sees, output, 0), None


def _can_stay(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> bool:
    """Whether hidden keys need no replacement by 0: no entry can overflow, and every query sees a key. Reads data.

    This check takes a tenth of the time of the replacement.
    """
    inputs = (query, key, value)
    if torch.compiler.is_compiling() or any(type(x) is not Tensor or x.device.type != "cpu" for x in inputs):
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # values cannot be read under vmap
        return False
    with torch.no_grad():
        norms = [torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (key, value)]
        return bool((norms[0] < MAX_NORM) & (norms[1] < MAX_NORM) & visible.any(-1).all())  # False for NaN


def needs_mask(call: Call) -> bool:
    """Whether PyTorch's kernel needs an L x S mask for the pattern and bias of the call."""
    if call.spec.bias is not None:
        return True
    aligned = isinstance(call.query_start, int) and call.query_start == call.key_start
    return not (isinstance(call.spec.pattern, Full) or (isinstance(call.spec.pattern, Causal) and aligned))
