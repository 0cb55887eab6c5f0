"""Several processes that train one model: who this one is, and sums over all of them.

`torchrun` starts the processes and says to each its rank; without it there is one.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor, distributed

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

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes. A process without a part of the batch adds zeros."""
        if self.size == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        for parameter, gradient in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = gradient.view_as(parameter)

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
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(int(os.environ["RANK"]), size)
    finally:
        distributed.destroy_process_group()
