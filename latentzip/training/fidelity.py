"""Squared errors where eyes look for them: of pixels, of the means of squares of pixels, and of colour differences.

A squared error of pixels alone cares as little for the means of squares as for the finest detail. People see an error
of means as a stain, and of colours as a fringe.
"""

from torch import Tensor
from torch.nn import functional as F

SIDES = (1, 2, 4, 8, 16)  # of the squares, in pixels
RED, BLUE = 0.713, 0.564  # Cr = RED (R - Y), Cb = BLUE (B - Y), ITU-R BT.601 with full range
LUMA = (0.299, 0.587, 0.114)


def squared_error(difference: Tensor, weights: tuple[float, ...], chroma_weight: float) -> Tensor:
    """difference: (B, 3, H, W) in 8-bit levels, sides multiples of the largest square -> (B,) in levels squared.

    weights: of the squared error of means over squares of each of SIDES, as many as are given. chroma_weight: of the
    squared errors of Cb and Cr beside that of R, G and B.
    """
    total = difference.new_zeros(len(difference))
    for side, weight in zip(SIDES, weights, strict=False):
        means = F.avg_pool2d(difference, side) if side > 1 else difference
        error = means.square().mean((1, 2, 3))
        if chroma_weight:
            error = error + chroma_weight * _chroma(means).square().mean((1, 2, 3)) * 2
        total = total + weight * error
    return total


def _chroma(rgb: Tensor) -> Tensor:
    """Differences of R, G, B (B, 3, H, W) -> of Cb and Cr (B, 2, H, W)."""
    y = (rgb * rgb.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return (rgb[:, [2, 0]] - y) * rgb.new_tensor((BLUE, RED))[:, None, None]
