"""Process group of a distributed run: rank, size and reductions.

`torchrun` starts the processes and sets their ranks; without it there is one process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Group:
    """Processes of a run.

    Args:
        rank: rank of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and messages."""
        return self.rank == 0

    def add(self, x: Tensor) -> Tensor:
        """Sum of a tensor over the processes, in place."""
        if self.size > 1:
            distributed.all_reduce(x)
        return x

    def broadcast(self, x: T) -> T:
        """Plain data of the first process."""
        if self.size == 1:
            return x
        objects = [x]
        distributed.broadcast_object_list(objects, src=0)
        return objects[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Context with the process group of torchrun's environment; a group of one process without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    store, rank, size = next(rendezvous("env://"))
    # A restarted process must not read addresses of processes that have died.
    store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
