"""The patch-based adversarial part of the objective: the discriminator and its two losses.

Isola et al. 2017 (arXiv 1611.07004) for the architecture, Esser et al. 2021 (arXiv 2012.09841) for its use here.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AdversarialForm = Literal["hinge", "non-saturating", "relativistic"]

MAX_ADAPTIVE_WEIGHT = 1e4  # Esser et al.'s bound
NORM_CHANNELS = 16  # of a group


class PatchDiscriminator(nn.Module):
    """Real or reconstructed, for each overlapping patch (70x70 pixels with three layers).

    NLayerDiscriminator with group instead of batch normalisation: what it says of a crop does not depend on the crops
    beside it, nor on how many processes share a batch.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for i in range(1, layers + 1):
            wider = width * min(2**i, 8)
            blocks += [
                nn.Conv2d(channels, wider, 4, stride=2 if i < layers else 1, padding=1, bias=False),
                nn.GroupNorm(max(1, wider // NORM_CHANNELS), wider),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        blocks.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.layers = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float in [-1, 1], sides of at least 32 -> logits (B, 1, h, w), positive for real patches."""
        logits: Tensor = self.layers(x)
        return logits.float()


def discriminator_loss(real: Tensor, fake: Tensor, form: AdversarialForm) -> Tensor:
    """What the discriminator minimises, from its logits for pictures and for reconstructions: -log D_psi."""
    if form == "relativistic":  # Jolicoeur-Martineau 2018, arXiv 1807.00734: a picture against its reconstruction
        return F.softplus(fake - real).mean()
    if form == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def adversarial_loss(real: Tensor, fake: Tensor, form: AdversarialForm) -> Tensor:
    """What the autoencoder minimises, -L_adv, from the discriminator's logits for pictures and reconstructions."""
    if form == "relativistic":
        return F.softplus(real - fake).mean()
    return -fake.mean() if form == "hinge" else F.softplus(-fake).mean()


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """How strongly the adversarial loss must count to pull as hard as the reconstruction loss does.

    Both are gradients with respect to the same: the decoder's last layer (Esser et al. 2021, equation 7), where a mean
    over many places can be next to nothing, or the reconstruction (Défossez et al. 2022, arXiv 2210.13438).
    """
    pull, push = (torch.linalg.vector_norm(gradient) for gradient in (reconstruction_gradient, adversarial_gradient))
    weight: Tensor = (pull / (push + 1e-6)).clamp(0.0, MAX_ADAPTIVE_WEIGHT)
    return weight.detach()
