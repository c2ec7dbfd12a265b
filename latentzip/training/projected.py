"""A discriminator on frozen features: it begins with eyes, and so learns in a fraction of the steps.

Sauer et al. 2021 (Projected GANs converge faster, arXiv 2111.01007): features of a pretrained network at four scales,
mixed by fixed random projections, within each scale and from the coarse to the fine ones, with a small head on each.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from latentzip.training.efficientnet import EfficientNetLite0, read_imagenet_weights

STAGES = (1, 2, 4, 6)  # of EfficientNet-Lite0: maps of 24, 40, 112 and 320 channels at 1/4, 1/8, 1/16 and 1/32
CHANNELS = (24, 40, 112, 320)
MIXED = 64  # channels after the projections
PROJECTION_SEED = 0
# Zhao et al. 2020 (arXiv 2006.10738), without changes of colour: parts of a side by which both pictures are shifted,
# and of the square that is cut out of both.
SHIFT, CUTOUT = 0.125, 0.25


class ProjectedDiscriminator(nn.Module):
    """Real or reconstructed, for each position at four scales."""

    def __init__(self) -> None:
        """Raises TrainingError where the package with EfficientNet-Lite0's weights is not installed."""
        super().__init__()
        self.network = EfficientNetLite0(read_imagenet_weights())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(PROJECTION_SEED)
            self.within = nn.ModuleList(nn.Conv2d(channels, MIXED, 1, bias=False) for channels in CHANNELS)
            self.across = nn.ModuleList(nn.Conv2d(MIXED, MIXED, 3, padding=1, bias=False) for _ in CHANNELS)
        for frozen in (self.network, self.within, self.across):
            frozen.requires_grad_(False)
        self.heads = nn.ModuleList(_head() for _ in CHANNELS)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float in [-1, 1], sides of at least 64 -> logits (B, 1, h_i, w_i) of each scale, fine first.

        Positive for real ones.
        """
        maps = self.network.features(x, STAGES)
        mixed: list[Tensor] = []
        for features, within, across in zip(reversed(maps), reversed(self.within), reversed(self.across), strict=True):
            projected = within(features)
            if mixed:
                projected = projected + F.interpolate(mixed[0], projected.shape[2:], mode="bilinear")
            mixed.insert(0, across(projected))
        return [head(features).float() for head, features in zip(self.heads, mixed, strict=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(MIXED, MIXED, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(MIXED, 1, 3, padding=1)),
    )


def augmented(pictures: list[Tensor], step: int) -> list[Tensor]:
    """The same shift and cut-out square in all of the batches (B, 3, H, W), so that pairs stay pairs.

    A function of the step; zero where there is nothing.
    """
    generator = torch.Generator().manual_seed(step)
    side = pictures[0].shape[-1]
    most, square = int(SHIFT * side), int(CUTOUT * side)
    down, right = (torch.randint(0, 2 * most + 1, (2,), generator=generator) - most).tolist()
    top, left = torch.randint(0, side - square + 1, (2,), generator=generator).tolist()
    kept = pictures[0].new_ones(1, 1, side, side)
    kept[:, :, top : top + square, left : left + square] = 0
    return [F.pad(x, (right, -right, down, -down)) * kept for x in pictures]
