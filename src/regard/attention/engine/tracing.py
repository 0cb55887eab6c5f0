"""Whether operations are looked on at, or changed: by a compiler, a tracer, a mode, `torch.func` or forward mode."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad

T = TypeVar("T")


def traced() -> bool:
    """Whether torch.jit.trace does, to which sizes are tensors and whatever is read from a tensor is a constant."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def recorded() -> bool:
    """Whether a compiler, a tracer or a mode does: they see the operations that PyTorch knows, and nothing else."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def wrapped(x: Tensor) -> bool:
    """Whether a tensor's class has operations of its own: it may have no numbers, as a fake one outside of its mode."""
    return type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__


def transformed() -> bool:
    """Whether forward mode or `torch.func` look on, for which a kernel as one operation has no rule."""
    return forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


def constant_while_compiling(function: Callable[[], T]) -> Callable[[], T]:
    """What torch.compiler.assume_constant_result does, which imports the whole compiler (1.8 s) to do it.

    The compiler calls the function when it meets it, and does not look into it.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


@constant_while_compiling
def transforms() -> tuple[str, ...]:
    """The transforms of `torch.func` that are active, outermost first: "Vmap", "Grad", "Jvp" or "Functionalize"."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return tuple(interpreter.key().name for interpreter in stack)


@constant_while_compiling
def forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is active."""
    return bool(forward_ad._current_level >= 0)


def vmapped() -> bool:
    """Whether `torch.vmap` is active: tensors then stand for one example, and their numbers cannot be read."""
    return "Vmap" in transforms()


def opaque() -> bool:
    """Whether the numbers of tensors cannot be read: where operations are recorded, and under `torch.vmap`."""
    return recorded() or vmapped()


def array(x: Tensor) -> npt.NDArray[Any]:
    """The numbers of a tensor without gradient, also inside of `torch.func.grad` and `jvp`, which wrap it."""
    while torch._C._functorch.is_gradtrackingtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    guard = torch._C._DisableFuncTorch()  # else the copy would be wrapped again
    numbers: npt.NDArray[Any] = x.cpu().numpy()
    del guard
    return numbers


def is_traced() -> bool:
    """Whether anybody does: then only PyTorch's own operations will do, which they know."""
    return recorded() or transformed()


def constant(x: Tensor) -> Tensor:
    """The tensor without derivatives, backward or forward."""
    x = x.detach()
    return x if torch.compiler.is_compiling() else forward_ad.unpack_dual(x).primal
