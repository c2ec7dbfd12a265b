"""What the program around us does with torch for its own purposes: none of it is to reach us."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

CPU = torch.device("cpu")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Be it within `torch.inference_mode`, `torch.autocast`, or with another default device: inside, all is as usual.

    A default dtype cannot be put back for this thread alone: every tensor that is made here names its own.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device() != CPU:  # such a context costs a little with every call of torch
            stack.enter_context(CPU)
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _after_fork() -> None:
    """OpenMP would wait for threads that only the parent has, for ever."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
