"""Running a network on overlapping tiles, for networks that look at the whole picture and pictures that are too large.

What such a network makes of a tile is not what it makes of the whole: where tiles meet, they are blended.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from latentzip.tiling import Size, TilePlan, Window


def run_tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, plan: TilePlan, window: Window, size: Size, scale: int
) -> Tensor:
    """Apply `network` to the tiles of a latent of that size (h, w) that touch a window, and blend linearly.

    x: (1, C, H, W), what lies in `plan.around(window, size)`, some pixels or values a position. The result is
    (1, C', scale rows, scale columns) float32 of the same, and complete within the window. Memory beyond the result is
    that of one tile.
    """
    rows = plan.spans(size[0], window.top, window.bottom)
    columns = plan.spans(size[1], window.left, window.right)
    around = plan.around(window, size)
    per_position = x.shape[2] // around.size[0]
    total: Tensor | None = None
    down = torch.zeros(scale * around.size[0], dtype=torch.float32)  # weights add up along each side apart
    across = torch.zeros(scale * around.size[1], dtype=torch.float32)
    for top, bottom in rows:
        ramp_down = _ramp(top, bottom, size[0], plan.overlap, scale)
        down[scale * (top - around.top) : scale * (bottom - around.top)] += ramp_down
        for left, right in columns:
            tile = Window(top, left, bottom, right).relative_to(around)
            out = network(x[(..., *tile.times(per_position).slices)]).float().cpu()
            ramp_across = _ramp(left, right, size[1], plan.overlap, scale)
            if top == rows[0][0]:
                across[tile.times(scale).slices[1]] += ramp_across
            if total is None:
                total = out.new_zeros(1, out.shape[1], len(down), len(across))
            total[(..., *tile.times(scale).slices)] += out * (ramp_down[:, None] * ramp_across)
    assert total is not None
    return total.div_(down[:, None]).div_(across)


def _ramp(start: int, end: int, length: int, overlap: int, scale: int) -> Tensor:
    """Weights (scale (end - start),) of a tile: rising over the overlap with one before it, falling before the next."""
    weight = torch.ones((end - start) * scale, dtype=torch.float32)
    rise = (torch.arange(overlap * scale, dtype=torch.float32) + 0.5) / max(overlap * scale, 1)
    if start > 0:
        weight[: len(rise)] = rise
    if end < length and overlap:
        weight[-len(rise) :] = torch.minimum(weight[-len(rise) :], rise.flip(0))
    return weight
