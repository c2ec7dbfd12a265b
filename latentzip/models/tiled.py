"""Running a network on overlapping tiles, for networks that look at the whole picture and pictures that are too large.

What such a network makes of a tile is not what it makes of the whole: where tiles meet, they are blended.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from latentzip.tiling import TilePlan


def run_tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, plan: TilePlan, grid: tuple[int, int], scale: int
) -> Tensor:
    """Apply `network` tile by tile, and blend linearly across overlaps.

    x: (1, C, H, W), a multiple of `grid`, the latent's (h, w); the result is (1, C', scale h, scale w) float32. Memory
    beyond the result is that of one tile.
    """
    per_position = x.shape[2] // grid[0]
    total: Tensor | None = None
    weights = torch.zeros(1, 1, grid[0] * scale, grid[1] * scale)
    for top, bottom in plan.spans(grid[0]):
        for left, right in plan.spans(grid[1]):
            tile = x[:, :, top * per_position : bottom * per_position, left * per_position : right * per_position]
            out = network(tile).float().cpu()
            rows = _ramp(top, bottom, grid[0], plan.overlap, scale)
            weight = rows[:, None] * _ramp(left, right, grid[1], plan.overlap, scale)
            if total is None:
                total = out.new_zeros(1, out.shape[1], *weights.shape[2:])
            place = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            total[place] += out * weight
            weights[place] += weight
    assert total is not None
    return total / weights


def _ramp(start: int, end: int, length: int, overlap: int, scale: int) -> Tensor:
    """Weights (scale (end - start),) of a tile: rising over the overlap with one before it, falling before the next."""
    weight = torch.ones((end - start) * scale)
    rise = (torch.arange(overlap * scale) + 0.5) / max(overlap * scale, 1)
    if start > 0:
        weight[: len(rise)] = rise
    if end < length and overlap:
        weight[-len(rise) :] = torch.minimum(weight[-len(rise) :], rise.flip(0))
    return weight
