"""Several processes that train one model: who this one is, and sums over all of them.

`torchrun` starts the processes and says to each its rank; without it there is one.
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
    """The processes of a run.

    Args:
        rank: of this one.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def add(self, x: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            distributed.all_reduce(x)
        return x

    def first_says(self, x: T) -> T:
        """Plain data as the first process has it."""
        if self.size == 1:
            return x
        said = [x]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group that torchrun's environment describes, left at the end; one process without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    store, rank, size = next(rendezvous("env://"))
    # A restarted process must not read the addresses of processes that have died.
    store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
