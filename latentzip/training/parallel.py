"""More than one process, as torchrun starts them: who one is, and the few things that all must agree on."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from latentzip.errors import TrainingError


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes; with one, every method hands back what it was given."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> tuple["World", torch.device]:
        """Join the processes that torchrun started, if it did: (world, this process's device). Raises TrainingError."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(), device
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if device.type == "cuda":
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"the processes cannot find each other ({error}): start them with torchrun") from None
        return cls(dist.get_rank(), dist.get_world_size()), device

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's part of a batch that all of them know."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        return self.sum(tensor) / self.size

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first process's value, in place."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor
