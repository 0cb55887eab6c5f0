"""Detection of compilers, tracers, dispatch modes, `torch.func` transforms and forward-mode autodiff."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad

T = TypeVar("T")


def is_jit_tracing() -> bool:
    """Whether torch.jit.trace is active, which turns sizes into tensors and values read from tensors into constants."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def is_recorded() -> bool:
    """Whether a compiler, tracer or dispatch mode records operations; it sees PyTorch operations only."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def has_own_dispatch(x: Tensor) -> bool:
    """Whether the tensor's class overrides `__torch_dispatch__`; such a tensor may have no data, as a fake tensor."""
    return type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__


def is_transformed() -> bool:
    """Whether forward-mode autodiff or `torch.func` is active, for which the kernels have no rule."""
    return forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


def constant_while_compiling(function: Callable[[], T]) -> Callable[[], T]:
    """Decorator like torch.compiler.assume_constant_result, without importing the compiler, which takes 1.8 s.

    The compiler calls the function at compile time and treats the result as a constant.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


@constant_while_compiling
def transforms() -> tuple[str, ...]:
    """Active transforms of `torch.func`, outermost first: "Vmap", "Grad", "Jvp" or "Functionalize"."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return tuple(interpreter.key().name for interpreter in stack)


@constant_while_compiling
def forward_mode() -> bool:
    """Whether forward-mode autodiff is active."""
    return bool(forward_ad._current_level >= 0)


def vmapped() -> bool:
    """Whether `torch.vmap` is active; tensors then represent one example, and their values cannot be read."""
    return "Vmap" in transforms()


def opaque() -> bool:
    """Whether tensor values cannot be read: operations are recorded, or `torch.vmap` is active."""
    return is_recorded() or vmapped()


def array(x: Tensor) -> npt.NDArray[Any]:
    """NumPy array of a tensor without gradient, also inside `torch.func.grad` and `jvp`, which wrap the tensor."""
    while torch._C._functorch.is_gradtrackingtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    guard = torch._C._DisableFuncTorch()  # otherwise the copy would be wrapped again
    values: npt.NDArray[Any] = x.cpu().numpy()
    del guard
    return values


def is_traced() -> bool:
    """Whether operations are recorded or transformed, so that only PyTorch's own operations may be used."""
    return is_recorded() or is_transformed()


def constant(x: Tensor) -> Tensor:
    """The tensor detached from both reverse-mode and forward-mode autodiff."""
    x = x.detach()
    return x if torch.compiler.is_compiling() else forward_ad.unpack_dual(x).primal
