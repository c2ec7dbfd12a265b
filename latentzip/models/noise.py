"""Noise that the decoder paints texture from, and that costs no bits: a function of the place alone.

A decoder that knows nothing but a coarse latent paints grass as one green, or as the same blades everywhere. Given
noise it can paint some grass, which no one tells from other grass (common randomness: Ballé et al. 2024, arXiv
2412.00505). The noise follows from absolute positions by integer arithmetic, so it is the same in every strip, tile and
region and on every machine.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentzip.models.blocks import zero_init

# Those of a sum of four even bytes: nearly Gaussian, and exact in float32.
MEAN, DEVIATION = 510.0, 147.8
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Place:
    """Where in the picture's latent a decoder begins, in positions, and how much of its noise it is to use."""

    top: int = 0
    left: int = 0
    noise: float = 1.0  # 0: none, the faithful picture


def noise_at(rows: Tensor, columns: Tensor, planes: int) -> Tensor:
    """Values (1, planes, H, W) float32 of mean 0 and variance 1 at absolute places. rows: (H,), columns: (W,), int64.

    They are sums of the bytes of an integer hash, whose multipliers and shifts are those of "lowbias32" (C. Wellons
    2018, github.com/skeeto/hash-prospector, public domain).
    """
    plane = torch.arange(planes, device=rows.device)[:, None, None]
    h = (columns * 0x9E3779B1 + rows[:, None] * 0x85EBCA77 + plane * 0xC2B2AE3D) & _LOW
    h = ((h ^ h >> 16) * 0x7FEB352D) & _LOW
    h = ((h ^ h >> 15) * 0x846CA68B) & _LOW
    h = h ^ h >> 16
    total = (h & 255) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24)
    return ((total.float() - MEAN) / DEVIATION)[None]


class Noise(nn.Module):
    """x + M (s(x) n): planes of noise n, as strong as the features say, mixed into all channels. M begins at zero."""

    def __init__(self, channels: int, planes: int, scale: int) -> None:
        """scale: how many of the layer's positions lie in one of the latent's, a side."""
        super().__init__()
        self.planes, self.scale = planes, scale
        self.strength = nn.Conv2d(channels, planes, 1)
        self.mix = zero_init(nn.Conv2d(planes, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), which begins at the picture's first row and column. In training noise is drawn anew."""
        if self.training:
            noise = torch.randn(len(x), self.planes, *x.shape[2:], device=x.device, dtype=x.dtype)
        else:
            rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
            noise = noise_at(rows, columns, self.planes)
        out: Tensor = x + self.mix(gate(self.strength(x)) * noise)
        return out


def gate(x: Tensor) -> Tensor:
    """A sigmoid with values in (0, 1), of operations that are rounded alike wherever an element lies."""
    return 0.5 + 0.5 * x / (1 + x.abs())
