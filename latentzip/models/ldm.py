"""The `ldm` family: the first stages of taming-transformers and latent-diffusion, parameter for parameter.

Esser et al. 2021 (arXiv 2012.09841), Rombach et al. 2022 (arXiv 2112.10752); later SD-VAE, SDXL, SD3 and FLUX. Modules
are called as in diffusers, so that its checkpoints fit as they are. Attention and GroupNorm look at the whole image.
"""

import math
import reprlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.errors import ModelError
from latentzip.models.config import MOST_BLOCKS, MOST_CHANNELS, MOST_CODES, MOST_LEVELS, MOST_WIDTH
from latentzip.models.fields import check_fields

NORM_EPSILON = 1e-6  # in all published models
BOUNDS = {
    "latent_channels": (1, MOST_CHANNELS),
    "inner_channels": (1, MOST_CHANNELS),
    "widths": (1, MOST_WIDTH),
    "blocks": (1, MOST_BLOCKS),
    "attention_levels": (0, MOST_LEVELS - 1),
    "norm_groups": (1, MOST_WIDTH),
    "scaling": (1e-6, 1e6),
    "shift": (-1e6, 1e6),
    "latents_mean": (-1e6, 1e6),
    "latents_std": (1e-6, 1e6),
    "codebook_size": (0, MOST_CODES),
}


@dataclass(frozen=True)
class LdmConfig:
    """Architecture of an `ldm` autoencoder. Levels are listed from the finest, at the picture's resolution."""

    family: ClassVar[Literal["ldm"]] = "ldm"
    learns_prior: ClassVar[bool] = False
    stages: ClassVar[int] = 1  # VQ

    regularizer: Literal["kl", "vq"]
    latent_channels: int  # of the latent that is stored: of the posterior's mean, or of a code
    inner_channels: int  # between the networks and the 1x1 convolutions around the latent
    widths: tuple[int, ...]
    blocks: int = 2  # residual blocks a level; the decoder has one more
    attention_levels: tuple[int, ...] = ()  # levels with attention after each block
    middle_attention: bool = True
    quant_conv: bool = True  # a 1x1 convolution before the latent, and one after it
    norm_groups: int = 32
    # what diffusion models see of a KL latent is (mean - shift) * scaling, or with statistics of each channel
    # (mean - latents_mean) * scaling / latents_std
    scaling: float = 1.0
    shift: float = 0.0
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()
    codebook_size: int = 0  # VQ

    def __post_init__(self) -> None:
        check_fields(self, BOUNDS)
        if not 1 <= len(self.widths) <= MOST_LEVELS:
            raise ModelError(f"the model's config has {len(self.widths)} levels, where it wants 1 to {MOST_LEVELS}")
        if any(width % self.norm_groups for width in self.widths):
            raise ModelError(f"widths {self.widths} are no multiples of {self.norm_groups} groups")
        if any(level >= len(self.widths) for level in self.attention_levels):
            raise ModelError(
                f"attention at levels {reprlib.repr(self.attention_levels)}, of which there are {len(self.widths)}"
            )
        if not self.quant_conv and self.inner_channels != self.latent_channels:
            raise ModelError("without quant_conv the networks must have as many channels as the latent")
        if (self.regularizer == "vq") != (self.codebook_size > 1):
            raise ModelError("a VQ model has a codebook, of 2 codes at least, and a KL model has none")
        if {len(self.latents_mean), len(self.latents_std)} not in ({0}, {self.latent_channels}):
            raise ModelError(
                f"latents_mean and latents_std must have a number for each of the {self.latent_channels} channels"
            )
        if self.latents_mean and (self.shift or self.regularizer == "vq"):
            raise ModelError("latents_mean and latents_std are for KL models whose latents are not shifted too")

    @property
    def factor(self) -> int:
        return 1 << (len(self.widths) - 1)

    @property
    def gives_moments(self) -> bool:
        return self.regularizer == "kl"

    def seen(self, mean: Tensor) -> Tensor:
        """A KL posterior's mean (B, C, h, w) -> what diffusion models see, in the order of diffusers' operations."""
        if not self.latents_mean:
            return (mean - self.shift) * self.scaling
        return (mean - _of_channels(self.latents_mean, mean)) * self.scaling / _of_channels(self.latents_std, mean)

    def unseen(self, latent: Tensor) -> Tensor:
        """The inverse of `seen`."""
        if not self.latents_mean:
            return latent / self.scaling + self.shift
        std, mean = _of_channels(self.latents_std, latent), _of_channels(self.latents_mean, latent)
        return latent * std / self.scaling + mean

    def log_variance_change(self, log_variance: Tensor) -> Tensor:
        """What `seen` adds to the posterior's log variance (B, C, h, w): a tensor that is broadcast to it."""
        change = log_variance.new_tensor(2 * math.log(self.scaling))
        return change - 2 * _of_channels(self.latents_std, log_variance).log() if self.latents_std else change


def _of_channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(-1, 1, 1)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where the width changes."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, NORM_EPSILON)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, NORM_EPSILON)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        out: Tensor = hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class Attention(nn.Module):
    """x + attention over all positions, one head. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, NORM_EPSILON)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        positions = self.group_norm(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1, H W, C)
        seen = F.scaled_dot_product_attention(self.to_q(positions), self.to_k(positions), self.to_v(positions))
        out: Tensor = self.to_out[0](seen)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + out


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # at the right and the bottom alone
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Residual blocks, each with attention after it or none, then a change of resolution or none."""

    def __init__(
        self, channels: int, out_channels: int, blocks: int, groups: int, attends: bool, change: type[nn.Module] | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(channels if i == 0 else out_channels, out_channels, groups) for i in range(blocks)
        )
        self.attentions = nn.ModuleList(Attention(out_channels, groups) for _ in range(blocks if attends else 0))
        if change is Downsample:
            self.downsamplers = nn.ModuleList([change(out_channels)])
        elif change is Upsample:
            self.upsamplers = nn.ModuleList([change(out_channels)])
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x)
            if len(self.attentions):
                x = self.attentions[i](x)
        if self.change is not None:
            x = (self.downsamplers if self.change is Downsample else self.upsamplers)[0](x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attends else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        if len(self.attentions):
            x = self.attentions[0](x)
        out: Tensor = self.resnets[1](x)
        return out


class LdmEncoder(nn.Module):
    """Image -> moments of the scaled KL latent, or VQ latent."""

    def __init__(self, config: LdmConfig) -> None:
        super().__init__()
        self.config = config
        widths, groups = config.widths, config.norm_groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(
                *(widths[max(i - 1, 0)], width, config.blocks, groups, i in config.attention_levels),
                change=Downsample if i < len(widths) - 1 else None,
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = Middle(widths[-1], groups, config.middle_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPSILON)
        twice = 2 if config.gives_moments else 1
        self.conv_out = nn.Conv2d(widths[-1], twice * config.inner_channels, 3, padding=1)
        self.quant_conv = (
            nn.Conv2d(twice * config.inner_channels, twice * config.latent_channels, 1) if config.quant_conv else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float in [-1, 1], sides multiples of the factor -> (B, C or 2 C, H/f, W/f)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        if self.quant_conv is not None:
            x = self.quant_conv(x)
        if not self.config.gives_moments:
            return x
        mean, log_variance = x.chunk(2, dim=1)
        change = self.config.log_variance_change(log_variance)
        return torch.cat([self.config.seen(mean), log_variance + change], dim=1)


class LdmDecoder(nn.Module):
    """Scaled KL latent, or the codes of a VQ latent -> image."""

    def __init__(self, config: LdmConfig) -> None:
        super().__init__()
        self.config = config
        widths, groups, levels = config.widths[::-1], config.norm_groups, len(config.widths)
        self.post_quant_conv = (
            nn.Conv2d(config.latent_channels, config.inner_channels, 1) if config.quant_conv else None
        )
        self.conv_in = nn.Conv2d(config.inner_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, config.middle_attention)
        self.up_blocks = nn.ModuleList(
            Level(
                *(widths[max(i - 1, 0)], width, config.blocks + 1, groups, levels - 1 - i in config.attention_levels),
                change=Upsample if i < levels - 1 else None,
            )
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor, _rate: Tensor) -> Tensor:
        """latent: (B, C, h, w) -> image (B, 3, f h, f w), about [-1, 1], not clamped. The rate plays no part."""
        x = latent
        if self.config.gives_moments:
            x = self.config.unseen(x)
        if self.post_quant_conv is not None:
            x = self.post_quant_conv(x)
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out
