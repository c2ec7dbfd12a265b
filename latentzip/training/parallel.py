"""More than one process, as torchrun starts them: who one is, and the few things that all must agree on."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from latentzip.errors import LatentzipError, TrainingError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes; with one, every method hands back what it was given."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU  # where what is agreed upon must lie

    @classmethod
    def join(cls, device: torch.device) -> "World":
        """Join the processes that torchrun started, if it did, each with a device of its own. Raises TrainingError."""
        try:
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls(device=device)
            if device.type == "cuda":
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise TrainingError(
                f"the processes cannot find each other, or a device for each ({reason}): start them with torchrun, one"
                " for each device"
            ) from None
        return cls(dist.get_rank(), dist.get_world_size(), device)

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

    def any(self, flag: bool) -> bool:
        """Whether the flag of some process is set."""
        return self.sum(torch.tensor(float(flag), device=self.device)).item() > 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails in one process fails in all when they have come to its end: none goes on, and waits for it.

        The others raise an error that says nothing, as do all but the first where it failed too.
        """
        failure: LatentzipError | None = None
        try:
            yield
        except LatentzipError as error:
            failure = error
        first_failed = self.any(failure is not None and self.writes)
        if self.any(failure is not None):
            raise failure if failure is not None and (self.writes or not first_failed) else TrainingError()
