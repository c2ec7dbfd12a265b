"""The objective of the first stage: L = L_rec + L_perceptual + L_reg, each term by its name in the paper.

For KL models L_reg is the rate in bits per pixel (KL of the posterior to the learned prior), and the others carry the
Lagrangian weight of the picture's rate; for VQ models it is the commitment.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentzip.models.autoencoder import TrainingOutput
from latentzip.training.perceptual import VggDistance
from latentzip.training.settings import TrainSettings

# A perceptual distance falls more slowly with the rate than the squared error: its weight grows with this power of
# lambda, so that both keep their share of the loss from the lowest rate to the highest.
PERCEPTUAL_POWER = 0.7


@dataclass(frozen=True)
class Losses:
    """Scalars, all with gradients but those for the log."""

    total: Tensor
    reconstruction: Tensor  # mean squared error in 8-bit units, unweighted
    perceptual: Tensor  # unweighted
    bpp: Tensor
    commitment: Tensor  # unweighted


class Objective:
    def __init__(self, settings: TrainSettings, perceptual: VggDistance | None) -> None:
        self.settings = settings
        self.perceptual = perceptual

    def __call__(self, x: Tensor, out: TrainingOutput, rate: Tensor, progress: float, step: int) -> Losses:
        """x: (B, 3, H, W) in [-1, 1]; rate: (B,); progress of the run in 0..1."""
        s = self.settings
        low, high = (math.log(value) for value in s.lambdas)
        weight = torch.exp(low + rate * (high - low))  # (B,)
        with_perceptual = self.perceptual is not None and progress >= s.perceptual_start
        share = s.reconstruction_share if with_perceptual else 1.0

        reconstruction = (out.x_hat - x).square().mean((1, 2, 3)) * 127.5**2
        total = out.bpp + s.reconstruction_weight * share * weight * reconstruction
        total = (total + s.commitment_weight * out.commitment).mean()
        perceptual = x.new_zeros(())
        if with_perceptual:
            distance, chosen = self._perceptual_loss(x, out.x_hat, step)
            relative = (weight[chosen] / math.exp((low + high) / 2)) ** PERCEPTUAL_POWER
            total = total + s.perceptual_weight * (relative * distance).mean()
            perceptual = distance.mean()
        return Losses(total, reconstruction.mean(), perceptual, out.bpp.mean(), out.commitment.mean())

    def _perceptual_loss(self, x: Tensor, x_hat: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Distance (n,) on parts of some of the batch, and which pictures they are. The choice follows the step."""
        s = self.settings
        generator = torch.Generator().manual_seed(s.seed + step)
        batch, side = len(x), x.shape[-1]
        chosen = torch.randperm(batch, generator=generator)[: s.perceptual_crops]
        small = min(s.perceptual_crop, side)
        top, left = torch.randint(0, side - small + 1, (2,), generator=generator).tolist()
        window = (..., slice(top, top + small), slice(left, left + small))
        assert self.perceptual is not None
        return self.perceptual(x_hat[chosen][window], x[chosen][window]), chosen
