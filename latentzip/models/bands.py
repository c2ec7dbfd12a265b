"""What neighbouring latent vectors share is told once for all of them: two levels of a Haar transform.

Vectors that are coded each for itself tell a sky's colour at every position. Of an encoder's latent three directions
are much alike at neighbouring positions, those of the average colour (of all of kl-f16's variance they have 84 %; a
neighbour tells 95 % of it), and no others are. They are its first channels, and are sent as averages of 4x4 positions
and differences from them. The transform is orthonormal, so squared errors stay what they are, and it lets every
position still be coded for itself: the differences of even grounds are no codes at all.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from latentzip.tiling import Window

SHARED = 3  # channels that are transformed, the first ones
BLOCK = 4  # side of a block of positions that are transformed together
# What stands at a position: the average of a block, the differences of its quarters, those within a quarter.
KINDS = 3


def to_bands(latent: Tensor) -> Tensor:
    """(B, C, h, w) -> the same shape; blocks may be cut off at the lower and right border."""
    out = latent.clone()
    shared = out[:, :SHARED]
    for stride in (1, 2):
        level = shared[:, :, ::stride, ::stride]
        level.copy_(_forth(_forth(level, 2), 3))
    return out


def from_bands(bands: Tensor) -> Tensor:
    """The inverse of `to_bands`."""
    out = bands.clone()
    shared = out[:, :SHARED]
    for stride in (2, 1):
        level = shared[:, :, ::stride, ::stride]
        level.copy_(_back(_back(level, 3), 2))
    return out


def kinds(height: int, width: int, device: torch.device) -> Tensor:
    """What stands at each position: int64 (height, width) in 0..KINDS - 1."""
    rows, columns = _rows_and_columns(height, width, device)
    return ((rows % BLOCK + columns % BLOCK) > 0).long() + ((rows % 2 + columns % 2) > 0).long()


def places_in_block(height: int, width: int, device: torch.device) -> Tensor:
    """Of each position, counted row by row in its block: int64 (height, width) in 0..BLOCK**2 - 1."""
    rows, columns = _rows_and_columns(height, width, device)
    return rows % BLOCK * BLOCK + columns % BLOCK


def blocks_around(window: Window) -> Window:
    """The whole blocks that a window of a latent lies in."""
    return window.over(BLOCK).times(BLOCK)


def _rows_and_columns(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.arange(height, device=device)[:, None], torch.arange(width, device=device)


def _forth(x: Tensor, dim: int) -> Tensor:
    """Sums and differences of pairs, each at a place of the pair. The last of an odd number stands for a pair of it."""
    x = x.transpose(dim, -1)
    pairs = F.pad(x, (0, x.shape[-1] % 2))
    first, second = pairs[..., 0::2], pairs[..., 1::2].clone()
    if x.shape[-1] % 2:
        second[..., -1] = first[..., -1]
    out = torch.stack([first + second, first - second], dim=-1).flatten(-2) * math.sqrt(0.5)
    return out[..., : x.shape[-1]].transpose(dim, -1)


def _back(x: Tensor, dim: int) -> Tensor:
    x = x.transpose(dim, -1)
    pairs = F.pad(x, (0, x.shape[-1] % 2))  # the difference that was not sent is zero
    total, difference = pairs[..., 0::2], pairs[..., 1::2]
    out = torch.stack([total + difference, total - difference], dim=-1).flatten(-2) * math.sqrt(0.5)
    return out[..., : x.shape[-1]].transpose(dim, -1)
