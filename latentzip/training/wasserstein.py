"""Wasserstein distortion: whether two pictures have the same texture, rather than the same pixels.

Around each place, means and deviations of features are compared over a neighbourhood of a chosen size: an error within
it that leaves both alone costs nothing (Qiu et al. 2023, arXiv 2310.03629; Ballé et al. 2024, arXiv 2412.00505, for its
use in compression).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LAYERS = 4  # of VGG16: relu1_2, 2_2, 3_3 and 4_3
# Added to a variance before its root is taken, whose slope would otherwise have no bound.
VARIANCE_FLOOR = 1e-4
# A square of so many pixels a side counts as even where the deviation of its luminance is below so many 8-bit levels:
# there, and on type, what moves within a wide neighbourhood is seen.
EVEN_SIDE, EVEN_DEVIATION = 16, 2.0
FINE = 1.0  # log2 of sigma there
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def wasserstein_distortion(f_hat: list[Tensor], f: list[Tensor], log_sigma: Tensor) -> Tensor:
    """Features (B, C_i, H_i, W_i) of two pictures, and log2 of a neighbourhood's deviation -> distortion (B,) float32.

    log_sigma: (B, 1, H, W) from 0 up, at the pictures' resolution, in positions of each layer. Sum over layers of the
    mean over positions and channels. Gradients flow to `f_hat` alone.
    """
    total = torch.zeros(len(log_sigma), device=log_sigma.device)
    with torch.autocast(log_sigma.device.type, enabled=False):  # a variance is the small difference of large squares
        for a, b in zip(f_hat, f, strict=True):
            total = total + _of_layer(a.float(), b.float(), F.adaptive_avg_pool2d(log_sigma, (a.shape[2], a.shape[3])))
    return total


def _of_layer(a: Tensor, b: Tensor, log_sigma: Tensor) -> Tensor:
    """Level i of the pyramid stands for sigma = 2^i; between two levels both count in part."""
    total = _weighted((a - b).square(), log_sigma, 0)
    moments_a, moments_b = (a, a.square()), (b, b.square())
    for level in range(1, int(log_sigma.max().ceil().item()) + 1):
        if min(a.shape[2:]) < 3:
            break
        moments_a, moments_b = ((_halve(m), _halve(s)) for m, s in (moments_a, moments_b))
        log_sigma = _halve(log_sigma)
        a = moments_a[0]
        error = (a - moments_b[0]).square() + (_deviation(*moments_a) - _deviation(*moments_b)).square()
        total = total + _weighted(error, log_sigma, level)
    return total


def _weighted(error: Tensor, log_sigma: Tensor, level: int) -> Tensor:
    weight = F.relu(1 - (log_sigma - level).abs())
    return (weight * error.mean(1, keepdim=True)).mean((1, 2, 3))


def _halve(x: Tensor) -> Tensor:
    """Binomial [1 2 1] / 4 both ways at every other place, where it fits: (B, C, H, W) -> about (B, C, H/2, W/2)."""
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 2)


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    return (F.relu(square - mean.square()) + VARIANCE_FLOOR).sqrt()


@torch.no_grad()
def log_sigma_of(x: Tensor, widest: float, type_mask: Tensor | None = None) -> Tensor:
    """A map (B, 1, H, W) for pictures x (B, 3, H, W) in [-1, 1]: `widest`, but FINE on even grounds and type.

    type_mask: (B, 1, H, W), 1 where there is type.
    """
    luma = (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True) * 127.5
    mean, square = (F.avg_pool2d(v, EVEN_SIDE, EVEN_SIDE, ceil_mode=True) for v in (luma, luma.square()))
    even = (square - mean.square() < EVEN_DEVIATION**2).to(x.dtype)
    fine = F.interpolate(even, x.shape[2:], mode="nearest")
    if type_mask is not None:
        fine = torch.maximum(fine, type_mask.to(x.dtype))
    return torch.lerp(torch.full_like(fine, widest), torch.full_like(fine, min(FINE, widest)), fine)
