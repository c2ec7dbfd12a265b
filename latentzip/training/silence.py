"""Hidden channels of residual blocks that have gone silent, and how they are begun anew.

Where all that goes into a GELU is far below zero, nothing comes out, and no gradient goes back: such a channel adds a
constant, for ever. Muon, whose steps are as large however small the gradient is, drives channels there: in 35,000 steps
without weight decay two thirds of those of kl-f16 (docs/training.md).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from latentzip.models.blocks import ResidualBlock

SILENT_BELOW = -4.0  # a GELU's input: nothing above 2e-4 comes out, and a gradient of 5e-4 goes back


class Listener:
    """How often the hidden channels of a model's residual blocks are heard, in what passes while it listens."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Tensor, int]] = {}

    def hear(self, name: str, hidden: Tensor) -> None:
        """hidden: (B, C, H, W), what goes into the second GELU of the block `name`."""
        share = hidden.detach().gt(SILENT_BELOW).float().mean((0, 2, 3))
        total, times = self._heard.get(name, (torch.zeros_like(share), 0))
        self._heard[name] = total + share, times + 1

    @property
    def shares(self) -> dict[str, Tensor]:
        """For each block, of each hidden channel's values those that are heard, (channels,) in 0..1."""
        return {name: total / times for name, (total, times) in self._heard.items()}

    @property
    def silent_share(self) -> float:
        """Of all hidden channels those that are never heard, 0..1."""
        return torch.cat(list(self.shares.values())).eq(0).float().mean().item()


@contextlib.contextmanager
def listening(model: nn.Module) -> Iterator[Listener]:
    """Listen to the model while inside."""
    listener = Listener()

    def hook(name: str) -> Any:
        return lambda _layer, _inputs, output: listener.hear(name, output)

    blocks = {name: module for name, module in model.named_modules() if isinstance(module, ResidualBlock)}
    handles = [block.first.register_forward_hook(hook(name)) for name, block in blocks.items()]
    try:
        yield listener
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def revive(model: nn.Module, listener: Listener) -> int:
    """Begin silent channels anew, as those of a fresh block, which adds nothing at first; returns how many there were.

    Pictures stay what they are, as far as silence is.
    """
    count = 0
    for name, share in listener.shares.items():
        block = model.get_submodule(name)
        assert isinstance(block, ResidualBlock)
        silent = share == 0
        fresh = ResidualBlock(block.first.in_channels).to(block.first.weight)
        assert block.first.bias is not None
        assert fresh.first.bias is not None
        block.first.weight[silent] = fresh.first.weight[silent]
        block.first.bias[silent] = fresh.first.bias[silent]
        block.second.weight[:, silent] = 0
        count += int(silent.sum())
    return count
