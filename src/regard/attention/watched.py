"""Whether operations are looked on at, or changed: by a compiler, a tracer, a mode, `torch.func` or forward mode."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


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


def watched() -> bool:
    """Whether anybody does: then only PyTorch's own operations will do, which they know."""
    return recorded() or transformed()


def constant(x: Tensor) -> Tensor:
    """The tensor without derivatives, backward or forward."""
    x = x.detach()
    return x if torch.compiler.is_compiling() else forward_ad.unpack_dual(x).primal
