"""Structural similarity (Wang et al. 2004, doi 10.1109/TIP.2003.819861): errors count by what hides them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, DEVIATION = 11, 1.5  # of the Gaussian, in pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # levels squared
# 1 - SSIM, and distances of features, fall more slowly with the rate than the squared error: weights that grow with
# this power of lambda keep their share of an objective from the lowest rate to the highest.
PERCEPTUAL_POWER = 0.7


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """(B, 3, H, W) float in [-1, 1] twice, sides of at least WINDOW -> (B,) float32 up to 1, which equal pictures have.

    Mean over all places where the window fits, and over R, G and B.
    """
    a, b = ((values.float() + 1) * 127.5 for values in (x_hat, x))
    mean_a, mean_b, square_a, square_b, product = _around(torch.stack([a, b, a * a, b * b, a * b])).unbind()
    covariance = product - mean_a * mean_b
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    return (luminance * (2 * covariance + C2) / (variances + C2)).mean((1, 2, 3))


def _around(planes: Tensor) -> Tensor:
    """Gaussian mean around each place: (..., C, H, W) -> (..., C, H - WINDOW + 1, W - WINDOW + 1)."""
    channels = planes.shape[-3]
    away = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    weights = torch.exp(-(away**2) / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).expand(channels, 1, 1, -1)
    flat = planes.reshape(-1, *planes.shape[-3:])
    flat = flat.contiguous(memory_format=torch.channels_last)  # on a CPU it takes a tenth of the time so
    # a variance is the small difference of large squares: with a mantissa of ten bits nothing would be left of it
    with torch.autocast(planes.device.type, enabled=False), _without_tf32():
        flat = F.conv2d(F.conv2d(flat, weights, groups=channels), weights.mT, groups=channels)
    return flat.view(*planes.shape[:-3], *flat.shape[-3:])


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in full float32 on a GPU; the rest of cuDNN's settings stay as the program has them.

    `cudnn.flags` would set them all, cuDNN itself to off, and fails in programs that use the newer `fp32_precision`.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
