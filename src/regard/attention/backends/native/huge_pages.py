"""Large CPU tensors in huge pages: new memory takes one page fault per 2 MiB instead of one per 4 KiB."""

import contextlib
import mmap

import torch
from torch import Tensor

PAGE = 1 << 21
FRESH = 1 << 25  # size, in bytes, from which glibc maps new memory for each allocation
SUPPORTED = hasattr(mmap, "MADV_HUGEPAGE")  # Linux


def empty(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialized CPU tensor like `like.new_empty`; in huge pages if it is large enough to need new memory."""
    tensor = like.new_empty(sizes, dtype=dtype)
    if SUPPORTED and tensor.nbytes >= FRESH:  # its memory has not been touched yet
        with contextlib.suppress(OSError):
            return _mapped(tensor.numel(), tensor.dtype).resize_(sizes)  # not a view, which autograd would track
    return tensor


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Flat tensor of new memory that starts at a huge page boundary."""
    memory = mmap.mmap(-1, count * dtype.itemsize + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr() % PAGE
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start)  # keeps the mapping alive
