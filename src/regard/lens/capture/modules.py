"""`torch.nn.MultiheadAttention`, `TransformerEncoderLayer` and `TransformerEncoder` on their fused inference paths.

The fused paths call no function that could be seen, and PyTorch leaves them where somebody looks on. So these modules
run out of sight, as they always do, and the attention of a layer runs once more, in sight, for its weights alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[..., Any]
Around = Callable[[nn.Module, Forward, tuple[Any, ...], dict[str, Any]], Any]

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
_lock = Lock()


class _Replaced:
    """A module's `forward` while recorders are around it, each of which acts in its own thread."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.around: list[Around] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward: Forward = lambda *a, **k: type(self.module).forward(self.module, *a, **k)  # noqa: E731
        for around in tuple(self.around):
            forward = self._inside(around, forward)
        return forward(*args, **kwargs)

    def _inside(self, around: Around, forward: Forward) -> Forward:
        return lambda *args, **kwargs: around(self.module, forward, args, kwargs)


@contextmanager
def around_forward(modules: list[nn.Module], around: Around) -> Iterator[None]:
    """Call a function in the place of each module's `forward`, inside the block.

    Args:
        modules: whose `forward` is that of their class.
        around: called with the module, its `forward`, and the arguments.
    """
    with _lock:
        for module in modules:
            vars(module).setdefault("forward", _Replaced(module)).around.append(around)
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                replaced = vars(module)["forward"]
                replaced.around.remove(around)
                if not replaced.around:
                    del vars(module)["forward"]


def fused_modules(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that have fused inference paths of PyTorch's."""
    return [
        part for part in model.modules()
        if type(part) in FUSED and isinstance(vars(part).get("forward", _Replaced(part)), _Replaced)
    ]  # fmt: skip


def is_fused(module: nn.Module) -> bool:
    """Whether the module may take its fused path: in evaluation, without gradients."""
    grads = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters())
    return not module.training and not grads


def run_in_sight(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the attention of a module once more, for those who see the functions that it calls.

    Args:
        module: an nn.MultiheadAttention or nn.TransformerEncoderLayer.
        args, kwargs: of its call.
    """
    if isinstance(module, nn.MultiheadAttention):
        bound = dict(
            zip(("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"), args, strict=False)
        )
        nn.MultiheadAttention.forward(module, **{**bound, **kwargs, "need_weights": False})
    elif isinstance(module, nn.TransformerEncoderLayer):
        bound = dict(zip(("src", "src_mask", "src_key_padding_mask", "is_causal"), args, strict=False)) | kwargs
        src, padding = _padded(bound["src"], bound.get("src_key_padding_mask"))
        x = module.norm1(src) if module.norm_first else src
        nn.MultiheadAttention.forward(
            module.self_attn, x, x, x, attn_mask=bound.get("src_mask"), key_padding_mask=padding, need_weights=False,
            is_causal=bound.get("is_causal", False),
        )  # fmt: skip


def _padded(src: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A nested tensor as a padded one, and True for its padding."""
    if not src.is_nested:
        return src, padding
    lengths = torch.tensor([len(x) for x in src.unbind()], device=src.device)
    dense = src.to_padded_tensor(0.0)
    return dense, torch.arange(dense.shape[1], device=src.device) >= lengths[:, None]
