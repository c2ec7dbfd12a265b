"""A start that is already a codec: the linear path of a `lite` model set to principal components."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent

PATCHES = 30_000
# For the Lagrangian bpp + lambda * MSE (8-bit units) at high rate, the best step is sqrt(26 / lambda): uniform
# quantisation gives MSE = step**2 / 12, and a bit less per value costs four times the error.
STEP_CONSTANT = 26.0


def start_from_principal_components(
    model: Autoencoder, pictures: list[Pixels], lambdas: tuple[float, float], seed: int
) -> None:
    """Set the linear transforms, the gains and the prior's scales.

    `lambdas` are the Lagrangian weights at rates 0 and 1; between them they are interpolated logarithmically. The
    latent is scaled so that a step of 1 is right in the middle.
    """
    config = model.config
    patches = _random_patches(pictures, config.factor, seed)  # (N, 3 f f) in [-1, 1]
    mean = patches.mean(0)
    variances, vectors = np.linalg.eigh(np.cov((patches - mean).T))
    order = np.argsort(variances)[::-1][: config.latent_channels]
    basis, deviations = vectors[:, order].T, np.sqrt(variances[order])  # (C, 3 f f), (C,)

    middle = math.sqrt(lambdas[0] * lambdas[1])
    to_steps = 127.5 / math.sqrt(STEP_CONSTANT / middle)
    shape = (config.latent_channels, 3, config.factor, config.factor)
    average_color = mean.reshape(3, -1).mean(1)
    with torch.no_grad():
        model.encoder.linear.weight.copy_(torch.from_numpy(basis * to_steps).view(shape))
        bias = -(basis.reshape(*shape[:2], -1).sum(2) * average_color).sum(1) * to_steps
        model.encoder.linear.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
        model.decoder.linear.weight.copy_(torch.from_numpy(basis / to_steps).view(shape))
        model.decoder.linear.bias.copy_(torch.from_numpy(average_color))  # type: ignore[union-attr]
        if isinstance(model.latent, KlLatent):
            gains = torch.linspace(-0.25, 0.25, config.gain_knots) * math.log(lambdas[1] / lambdas[0])
            model.latent.log_gain.copy_(gains[:, None].expand_as(model.latent.log_gain))
            model.latent.prior.start_at(torch.from_numpy(deviations * to_steps * 0.5 + 0.05).float())


def _random_patches(pictures: list[Pixels], side: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, 1])
    patches = np.empty((PATCHES, side, side, 3), dtype=np.float32)
    for patch in patches:
        picture = pictures[rng.integers(len(pictures))]
        top, left = (rng.integers(0, extent - side + 1) for extent in picture.shape[:2])
        patch[:] = picture[top : top + side, left : left + side]
    return (patches.transpose(0, 3, 1, 2).reshape(PATCHES, -1) / 127.5 - 1).astype(np.float64)
