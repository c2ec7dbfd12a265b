"""The `lite` family: a linear transform that is a codec from the first step, and a lean deep path that learns the rest.

Nothing here looks at the whole image (no attention, no normalisation), so the receptive field is bounded, and a picture
can go through strip by strip.
"""

import math

import torch
from torch import Tensor, nn

from latentzip.models.blocks import residual_blocks, zero_init
from latentzip.models.config import AutoencoderConfig
from latentzip.models.noise import Noise, Place
from latentzip.models.strips import Chain, Rows, Sum, WithPlane, rows_of


class LiteEncoder(nn.Module):
    """E(x) = A x + N(x): a strided linear transform and a deep path whose last layer starts at zero."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        (first, count), *deeper = _levels(config.widths, config.encoder_blocks)
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(3 * config.patch**2, first, 3, padding=1),
            residual_blocks(first, count),
        ]
        finer = first
        for width, count in deeper:
            layers += [nn.Conv2d(finer, width, 4, stride=2, padding=1), residual_blocks(width, count)]
            finer = width
        layers.append(zero_init(nn.Conv2d(finer, config.moments, 1)))
        self.deep = nn.Sequential(*layers)
        self.linear = nn.Conv2d(3, config.moments, config.factor, stride=config.factor)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float in [-1, 1], H and W multiples of the factor -> latent (B, C, H/f, W/f), unbounded.

        With a normal prior: moments (B, 2 C, H/f, W/f) of the posterior.
        """
        out: Tensor = self.linear(x) + self.deep(x)
        return out

    def rows(self) -> Rows:
        """The same, for one picture strip by strip, of heights that are multiples of the factor."""
        return Sum(rows_of(self.linear), rows_of(self.deep))


class LiteDecoder(nn.Module):
    """D(z) = B z + N(z, rate): the way back. The rate goes in as a constant plane, for what is left to clean up."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        *finer_levels, (width, count) = _levels(config.widths, config.decoder_blocks)
        layers: list[nn.Module] = [
            nn.Conv2d(config.latent_channels + 1, width, 3, padding=1),
            residual_blocks(width, count),
        ]
        for finer, count in reversed(finer_levels):
            layers += [nn.Conv2d(width, 4 * finer, 1), nn.PixelShuffle(2), residual_blocks(finer, count)]
            width = finer
        _give_noise(layers[-1], width, config.noise_planes, config.factor // config.patch)
        layers += _paint(width, config.patch)
        self.deep = nn.Sequential(*layers)
        self.linear = nn.ConvTranspose2d(config.latent_channels, 3, config.factor, stride=config.factor)
        self.detail: nn.Sequential | None = None
        if config.detail_width:
            self.detail = nn.Sequential(
                nn.Conv2d(width, 4 * config.detail_width, 1),
                nn.PixelShuffle(2),
                residual_blocks(config.detail_width, config.detail_blocks),
                *_paint(config.detail_width, config.patch // 2),
            )
            scale = config.factor // config.patch * 2
            _give_noise(self.detail[2], config.detail_width, config.noise_planes, scale)

    @property
    def last_layer(self) -> Tensor:
        """The kernel that paints the pixels: where the gradients of two losses are compared."""
        layer = self.deep[-2]
        assert isinstance(layer, nn.Conv2d)
        return layer.weight

    def forward(self, latent: Tensor, rate: Tensor) -> Tensor:
        """latent: (B, C, h, w); rate: (B,) in [0, 1] -> image (B, 3, f h, f w), about [-1, 1], not clamped."""
        plane = rate.to(latent.dtype).view(-1, 1, 1, 1).expand(-1, 1, *latent.shape[2:])
        features = self.deep[:-2](torch.cat([latent, plane], dim=1))
        out: Tensor = self.linear(latent)
        if self.detail is not None:
            out = out + self.detail(features)
        painted: Tensor = self.last_layers(features)
        return out + painted

    def last_layers(self, features: Tensor) -> Tensor:
        """Features (B, width, f h / patch, f w / patch) -> what they paint (B, 3, f h, f w)."""
        out: Tensor = self.deep[-2:](features)
        return out

    def rows(self, rate: Tensor, place: Place = Place()) -> Rows:  # noqa: B008
        """The same, for one latent strip by strip, at a rate (1,), from `place` on."""
        features, painted = rows_of(self.deep[:-2], place), rows_of(self.deep[-2:])
        if self.detail is not None:
            painted = Sum(painted, rows_of(self.detail, place))
        return Sum(rows_of(self.linear), WithPlane(rate, Chain([features, painted])))

    @property
    def reach(self) -> int:
        """How many latent positions away, to each side, a pixel still sees."""
        features, painted = _reach(self.deep[:-2], 0.0, 1), [self.deep[-2:]]
        if self.detail is not None:
            painted.append(self.detail)
        return math.ceil(max(_reach(path, *features)[0] for path in painted))


def _levels(widths: tuple[int, ...], blocks: int | tuple[int, ...]) -> list[tuple[int, int]]:
    """Channels and residual blocks of each level, finest first."""
    return list(zip(widths, blocks if isinstance(blocks, tuple) else [blocks] * len(widths), strict=True))


def _give_noise(blocks: nn.Module, width: int, planes: int, scale: int) -> None:
    """Let residual blocks begin with noise. The blocks keep their names, and so their tensors."""
    if planes:
        assert isinstance(blocks, nn.Sequential)
        old = dict(blocks.named_children())
        blocks._modules.clear()
        blocks.add_module("noise", Noise(width, planes, scale))
        for name, block in old.items():
            blocks.add_module(name, block)


def _paint(width: int, patch: int) -> list[nn.Module]:
    """From features to squares of pixels. It starts at zero."""
    return [zero_init(nn.Conv2d(width, 3 * patch**2, 3, padding=1)), nn.PixelShuffle(patch)]


def _reach(path: nn.Module, seen: float, scale: int) -> tuple[float, int]:
    """How far the path's outputs see, in positions of the latent, and how many of them lie in one, a side."""
    for layer in path.modules():
        if isinstance(layer, nn.Conv2d):
            seen += layer.kernel_size[0] // 2 / scale
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
    return seen, scale
