"""Large tensors on the CPU, in large pages: fresh memory costs a page fault for each 2 MiB, not for each 4 KiB."""

import contextlib
import mmap

import torch
from torch import Tensor

PAGE = 1 << 21
FRESH = 1 << 25  # bytes from which on glibc asks the system for each allocation
CAN = hasattr(mmap, "MADV_HUGEPAGE")  # Linux


def empty(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """A new tensor on the CPU, as another is, not filled; in large pages where it takes fresh memory anyway."""
    made = like.new_empty(sizes, dtype=dtype)
    if CAN and made.nbytes >= FRESH:  # none of which has been touched
        with contextlib.suppress(OSError):
            return _mapped(made.numel(), made.dtype).resize_(sizes)  # no view, of which autograd would take note
    return made


def _mapped(numbers: int, dtype: torch.dtype) -> Tensor:
    """From the start of a large page on: what lies before or after whole ones would be small pages."""
    memory = mmap.mmap(-1, numbers * dtype.itemsize + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr() % PAGE
    return torch.frombuffer(memory, dtype=dtype, count=numbers, offset=start)  # which holds the memory
