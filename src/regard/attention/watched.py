"""Whether operations are looked on at, or changed: by a compiler, a tracer, a mode, `torch.func` or forward mode."""

import torch
from torch.autograd import forward_ad


def watched() -> bool:
    """Whether somebody does: then only PyTorch's own operations will do, which they know."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
    )
