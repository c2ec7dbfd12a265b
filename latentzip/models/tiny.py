"""The `tiny` family: TAESD and its like (github.com/madebyollin/taesd), small autoencoders of other models' latents.

Layers are numbered as in diffusers' AutoencoderTiny. The latents are those that diffusion models see: there is nothing
to scale. TAEF2, for FLUX.2, has a branch with GroupNorm in its innermost blocks, which looks at the whole image.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from latentzip.errors import ModelError
from latentzip.models.config import MOST_BLOCKS, MOST_CHANNELS, MOST_LEVELS, MOST_WIDTH
from latentzip.models.fields import check_fields

REACH = 3.0  # latents are squeezed smoothly into ±3 before they are decoded
BRANCH_GROUPS = 4
BOUNDS = {
    "latent_channels": (1, MOST_CHANNELS),
    "width": (1, MOST_WIDTH),
    "encoder_blocks": (0, MOST_BLOCKS),
    "decoder_blocks": (0, MOST_BLOCKS),
}


@dataclass(frozen=True)
class TinyConfig:
    """Architecture of a `tiny` autoencoder. Blocks are listed from the finest level."""

    family: ClassVar[Literal["tiny"]] = "tiny"
    regularizer: ClassVar[Literal["kl"]] = "kl"  # made for KL latents, without a posterior of its own
    learns_prior: ClassVar[bool] = False
    gives_moments: ClassVar[bool] = False
    scaling: ClassVar[float] = 1.0
    shift: ClassVar[float] = 0.0
    latents_mean: ClassVar[tuple[float, ...]] = ()
    latents_std: ClassVar[tuple[float, ...]] = ()

    latent_channels: int
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    inner_norm: bool = False  # the GroupNorm branch of the innermost blocks

    def __post_init__(self) -> None:
        check_fields(self, BOUNDS)
        if len(self.encoder_blocks) != len(self.decoder_blocks) or not 1 <= len(self.encoder_blocks) <= MOST_LEVELS:
            raise ModelError(
                f"the model's config has {len(self.encoder_blocks)} and {len(self.decoder_blocks)} levels, where it"
                f" wants as many twice, 1 to {MOST_LEVELS}"
            )

    @property
    def factor(self) -> int:
        return 1 << (len(self.encoder_blocks) - 1)


class TinyBlock(nn.Module):
    """relu(x + three 3x3 convolutions of x), after a branch with GroupNorm or none. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, inner_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        if inner_norm:
            self.pool = nn.Sequential(
                nn.Conv2d(channels, 4 * channels, 1, bias=False),
                nn.GroupNorm(BRANCH_GROUPS, 4 * channels),
                nn.ReLU(),
                nn.Conv2d(4 * channels, channels, 1, bias=False),
            )
        self.inner_norm = inner_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.inner_norm:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class TinyEncoder(nn.Module):
    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, last = config.width, len(config.encoder_blocks) - 1
        layers: list[nn.Module] = []
        for level, blocks in enumerate(config.encoder_blocks):
            if level == 0:
                layers.append(nn.Conv2d(3, width, 3, padding=1))
            else:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            layers += [TinyBlock(width, config.inner_norm and level == last) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.latent_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float in [-1, 1], sides multiples of the factor -> latent (B, C, H/f, W/f)."""
        out: Tensor = self.layers((x + 1) / 2)
        return out


class TinyDecoder(nn.Module):
    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, last = config.width, len(config.decoder_blocks) - 1
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
        for level, blocks in reversed(list(enumerate(config.decoder_blocks))):
            layers += [TinyBlock(width, config.inner_norm and level == last) for _ in range(blocks)]
            if level > 0:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, latent: Tensor, _rate: Tensor) -> Tensor:
        """latent: (B, C, h, w) -> image (B, 3, f h, f w), about [-1, 1], not clamped. The rate plays no part."""
        out: Tensor = self.layers(torch.tanh(latent / REACH) * REACH)
        return out * 2 - 1
