"""The learned prior of KL latents: how many bits each value costs, in training and in the file.

A hyperlatent (1/4 of the latent's resolution) is sent first; then the latent, channel group by channel group, each in
two checkerboard passes (Balle et al. 2018, arXiv 1802.01436; He et al. 2021, arXiv 2103.15306 and 2203.10886). Every
pass is parallel over positions. This is the prior as it is trained; files are coded with its exact form (exact_prior).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.blocks import zero_init
from latentzip.models.config import AutoencoderConfig
from latentzip.tiling import Size

# Scales are powers of a constant ratio; 64 of them keep the loss against a continuous scale below 0.1 % of the bits.
SCALES, SCALE_MIN, SCALE_MAX = 64, 0.11, 64.0
LOG_RATIO = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)
HYPER_STRIDE = 4
RATE_WIDTH = 32
MEAN_BITS = 4  # means are coded in sixteenths of a step
# Values with this scale index are what the prior expects, and are not coded: a deviation of 0.11 steps makes any other
# symbol a matter of one in 100,000, and with kl-f16 a quarter to two fifths of all values are such.
CERTAIN = 0

# (part, values' mean, scale index, positions to code) -> coded values. All (B, C, h, w) but the mask, bool (h, w).
# Part 0 is the hyperlatent, the others are the latent's channel groups.
CodePass = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def same(in_channels: int, out_channels: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, side, padding=side // 2)


def rate_network(width: int) -> nn.Sequential:
    """Rate (B, 1, 1, 1) in [0, 1] -> what it tells a prior (B, width, 1, 1)."""
    return nn.Sequential(same(1, RATE_WIDTH, 1), nn.ReLU(), same(RATE_WIDTH, width, 1))


class GroupContext(nn.Module):
    """Mean and scale index of one channel group, from what is known everywhere, earlier groups and coded neighbours."""

    def __init__(self, channels: int, earlier: int, width: int, *, deep: bool) -> None:
        super().__init__()
        self.features = same(width, width, 1)
        self.earlier = same(earlier, width, 3) if earlier else None
        # 5x5 where it pays: the first groups carry the low frequencies, whose neighbours tell most
        self.neighbours = same(channels, width, 3 if earlier else 5)
        self.block = Block(width) if deep else None
        self.head = nn.Sequential(nn.ReLU(), same(width, width, 1), nn.ReLU(), same(width, 2 * channels, 1))

    @property
    def last(self) -> nn.Conv2d:
        layer = self.head[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def start_at(self, scales: Tensor) -> None:
        """scales: (channels,), in steps."""
        with torch.no_grad():
            self.last.weight[len(scales) :] *= 0.3
            assert self.last.bias is not None
            self.last.bias[len(scales) :] = index_of_scale(scales)

    def known(self, features: Tensor, coded: list[Tensor]) -> Tensor:
        """What is known of the group before its first pass: hidden activations (B, width, h, w)."""
        hidden: Tensor = self.features(features)
        if self.earlier is not None:
            hidden = hidden + self.earlier(torch.cat(coded, dim=1))
        return self.block(hidden) if self.block is not None else hidden

    def forward(self, known: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean in steps and fractional scale index of a pass, (B, channels, h, w) each.

        known: (B, width, h, w); anchors: (B, channels, h, w), what the pass before coded, zero elsewhere.
        """
        hidden = known if anchors is None else known + self.neighbours(anchors)
        mean, index = self.head(hidden).chunk(2, dim=1)
        return mean, index


class Block(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3 to half of the channels and 1x1 back. It starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = same(channels, channels // 2, 3), zero_init(same(channels // 2, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


class HyperPrior(nn.Module):
    """Probabilities for latents (B, C, h, w) in units of their quantisation step, and for their hyperlatents.

    It knows the rate. The hyperlatent is coded as the latent's groups are, and nothing is known of it but the rate.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        hyper, width = config.hyper_channels, config.prior_width
        self.parts = (hyper, *config.prior_groups)
        self.rate = rate_network(width)
        self.synthesis = nn.Sequential(
            same(hyper, 4 * hyper, 1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            same(hyper, 4 * hyper, 1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            same(hyper, width, 3),
        )
        self.hyper_context = GroupContext(hyper, 0, width, deep=False)
        self.contexts = nn.ModuleList(
            GroupContext(group, sum(config.prior_groups[:i]), width, deep=True)
            for i, group in enumerate(config.prior_groups)
        )

    def start_at(self, scales: Tensor) -> None:
        """Let every channel's scale start at `scales` (C,), in steps, so that the first steps are not lost on it."""
        self.hyper_context.start_at(torch.ones(self.parts[0]))
        for context, part in zip(self.contexts, torch.split(scales, list(self.parts[1:])), strict=True):
            assert isinstance(context, GroupContext)
            context.start_at(part)

    def sweep(self, rate: Tensor, size: Size, code: CodePass) -> Tensor:
        """Code a latent pass by pass.

        rate: (B,) in [0, 1]; size: (h, w). `code` is called once a pass, in the order of the file, with what the prior
        expects, and returns the coded values; those outside the mask are ignored. The first two passes are those of the
        hyperlatent (B, Ch, ceil(h/4), ceil(w/4)). Returns the whole coded latent (B, C, h, w).
        """
        height, width = size
        of_rate = self.rate(rate.view(-1, 1, 1, 1))
        everywhere = of_rate.expand(-1, -1, *hyper_size(size))
        hyperlatent = _both_passes(0, self.hyper_context, everywhere, [], code)
        features = F.relu(self.synthesis(hyperlatent)[:, :, :height, :width] + of_rate)
        coded: list[Tensor] = []
        for part, context in enumerate(self.contexts, 1):
            assert isinstance(context, GroupContext)
            coded.append(_both_passes(part, context, features, coded, code))
        return torch.cat(coded, dim=1)


def _both_passes(part: int, context: GroupContext, features: Tensor, earlier: list[Tensor], code: CodePass) -> Tensor:
    known = context.known(features, earlier)
    even = checkerboard(known.shape[2], known.shape[3], known.device)
    mean, index = context(known)
    anchors = code(part, mean, index, even)
    anchors = torch.where(even, anchors, torch.zeros_like(anchors))
    mean, index = context(known, anchors)
    return torch.where(even, anchors, code(part, mean, index, ~even))


class HyperAnalysis(nn.Module):
    """Latent in steps (B, C, h, w) -> hyperlatent (B, Ch, ceil(h/4), ceil(w/4)). The encoder's side only."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        hyper = config.hyper_channels
        self.layers = nn.Sequential(
            nn.Conv2d(config.latent_channels, hyper, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hyper, hyper, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(hyper, hyper, 4, stride=2, padding=1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        height, width = latent.shape[2:]
        out: Tensor = self.layers(F.pad(latent, (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE)))
        return out


def hyper_size(size: Size) -> Size:
    """Of the hyperlatent of a latent (h, w)."""
    return -(-size[0] // HYPER_STRIDE), -(-size[1] // HYPER_STRIDE)


def checkerboard(height: int, width: int, device: torch.device) -> Tensor:
    """bool (height, width), true where row + column is even."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return (rows[:, None] + columns) % 2 == 0


def index_of_scale(scale: Tensor) -> Tensor:
    """Scale in steps -> fractional index into the table of scales."""
    return torch.log(scale / SCALE_MIN) / LOG_RATIO


def scale_of_index(index: Tensor) -> Tensor:
    """Inverse of `index_of_scale`, within the table."""
    return SCALE_MIN * torch.exp(LOG_RATIO * index.clamp(0, SCALES - 1))


def coded_index(index: Tensor) -> Tensor:
    """The scale index as the file knows it: int64 in 0..63."""
    return torch.floor(index + 0.5).clamp(0, SCALES - 1).long()


def bits(value: Tensor, mean: Tensor | float, index: Tensor) -> Tensor:
    """Bits of a value at uniform width 1 under a Gaussian: KL(uniform posterior || prior), the rate. Same shapes."""
    scale = scale_of_index(index)
    distance = (value - mean).abs()
    upper = torch.special.ndtr((0.5 - distance) / scale)
    lower = torch.special.ndtr((-0.5 - distance) / scale)
    return -torch.log2((upper - lower).clamp_min(1e-9))


def scale_table() -> Tensor:
    """Integer distributions of the symbols, (64, entries) int32, a row for each scale.

    Entry 0 of a row counts the escapes, entry 1 + R + s the symbol s in -R..R with R = ceil(4.5 scale) + 1; the rest
    are zeros. Each row adds up to 2**16. Stored with the weights, so that every machine has the same.
    """
    with torch.device("cpu"):  # also where the modules around it wait for their tensors on `meta`
        scales = scale_of_index(torch.arange(SCALES, dtype=torch.float64))
        reaches = [math.ceil(4.5 * scale) + 1 for scale in scales.tolist()]
        table = torch.zeros(SCALES, 2 * max(reaches) + 2, dtype=torch.int32)
        for row, scale, reach in zip(table, scales, reaches, strict=True):
            edges = torch.special.ndtr((torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / scale)
            probabilities = torch.cat([1 - (edges[-1:] - edges[:1]), edges.diff()])
            counts = (probabilities * 2**16).round().clamp(min=1).int()
            counts[1 + reach] += 2**16 - counts.sum()
            row[: len(counts)] = counts
    return table
