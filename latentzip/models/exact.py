"""Layers that give the same on every machine, to the last bit: what a file's probabilities are computed with.

Numbers lie on fixed grids, weights at multiples of 2**-WEIGHT_BITS, activations at multiples of 2**-ACTIVATION_BITS,
and are held in float64. All products and partial sums are representable there, so no order of additions, thread count,
device or library can change a result, as long as it comes from matrix products (no Winograd, no FFT, no TF32).

Activations are counted in units of their grid: integers. They are held position by position, (positions, channels), and
worked on in blocks of positions that stay in a core's cache.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from latentzip.models.config import MAX_TERMS
from latentzip.tiling import Size

# A product lies on a grid of 2**-26 and is at most 2**15, so fewer than MAX_TERMS, 2**12, of them stay below 2**27 and
# every partial sum fits float64's 53 bits.
ACTIVATION_BITS, WEIGHT_BITS = 10, 16
ACTIVATION_LIMIT, WEIGHT_LIMIT = 2.0**12, 2.0**3
UNIT = 2.0**ACTIVATION_BITS
LIMIT = ACTIVATION_LIMIT * UNIT  # of activations in units

BLOCK = 1024  # positions that are worked on at once, for each thread

Taps = Sequence[tuple[int, int]]  # (dy, dx)


def to_grid(x: Tensor, bits: int, limit: float) -> Tensor:
    """Nearest multiple of 2**-bits (halves go up) within [-limit, limit]. Exact for float64."""
    scale = 2.0**bits
    return (x * scale).add_(0.5).floor_().div_(scale).clamp_(-limit, limit)


def units(x: Tensor) -> Tensor:
    """Values -> activations, in float64. What is no multiple of their grid goes to the nearest, halves up."""
    return to_grid(x.double(), ACTIVATION_BITS, ACTIVATION_LIMIT).mul_(UNIT)


class ExactLayer:
    """A trained convolution of stride 1, rounded to the grid, as a matrix product over those taps that are given."""

    def __init__(self, layer: nn.Module, taps: Taps | None = None) -> None:
        assert isinstance(layer, nn.Conv2d)
        side = layer.kernel_size[0]
        assert layer.in_channels * side**2 < MAX_TERMS, "partial sums could leave float64's exact range"
        self.taps = taps or all_taps(side)
        weight = to_grid(layer.weight.detach().double().cpu(), WEIGHT_BITS, WEIGHT_LIMIT)
        chosen = [weight[:, :, side // 2 + dy, side // 2 + dx] for dy, dx in self.taps]
        self.matrix = torch.cat(chosen, dim=1).T.contiguous()  # (taps C, C')
        assert layer.bias is not None
        bias = to_grid(layer.bias.detach().double().cpu(), WEIGHT_BITS + ACTIVATION_BITS, ACTIVATION_LIMIT)
        self.bias = bias * UNIT + 0.5  # the half for rounding

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """x: (n, taps C) activations, of all taps one after the other -> (n, C')."""
        return torch.addmm(self.bias, x, self.matrix).floor_().clamp_(0 if relu else -LIMIT, LIMIT)

    def channel_major(self, x: Tensor) -> Tensor:
        """The same as (C', n)."""
        return torch.addmm(self.bias[:, None], self.matrix.T, x.T).floor_().clamp_(-LIMIT, LIMIT)


class ExactRate:
    """`prior.rate_network`."""

    def __init__(self, network: nn.Sequential) -> None:
        self.first, self.second = ExactLayer(network[0]), ExactLayer(network[2])

    def __call__(self, rate: float) -> Tensor:
        """rate in [0, 1] -> (1, width) activations."""
        return self.second(self.first(units(torch.tensor([[rate]], dtype=torch.float64)), relu=True))


def all_taps(side: int) -> Taps:
    reach = range(-(side // 2), side // 2 + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def odd_taps(side: int) -> Taps:
    """Those that lead from one colour of the checkerboard to the other."""
    return [(dy, dx) for dy, dx in all_taps(side) if (dy + dx) % 2]


class Plane:
    """Activations of a plane (h, w), with zeros around it, for layers that look at neighbours."""

    def __init__(self, size: Size, channels: int, margin: int) -> None:
        self.size, self.margin = size, margin
        self.row = size[1] + 2 * margin
        self.values = torch.zeros((size[0] + 2 * margin) * self.row, channels, dtype=torch.float64)

    def put(self, positions: Tensor, x: Tensor) -> None:
        """x: (n, C) at positions (n,), counted row by row."""
        self.values.index_copy_(0, self._places(positions), x)

    def around(self, positions: Tensor, taps: Taps) -> Tensor:
        """(n, taps C): what an `ExactLayer` with those taps takes."""
        steps = torch.tensor([dy * self.row + dx for dy, dx in taps])
        places = (self._places(positions)[:, None] + steps).flatten()
        return self.values.index_select(0, places).view(len(positions), len(taps) * self.values.shape[1])

    def _places(self, positions: Tensor) -> Tensor:
        rows = positions // self.size[1]
        return positions + (rows * 2 + 1) * self.margin + self.margin * self.row


def upsampled(x: Tensor, size: Size) -> Tensor:
    """Depth to space by 2: (h w, 4 C) of a plane (h, w) -> (4 h w, C)."""
    y = x.view(*size, -1, 2, 2)  # as in PixelShuffle, the place in the square is the last
    return y.permute(0, 3, 1, 4, 2).reshape(4 * len(x), -1)


def colours(size: Size) -> tuple[Tensor, Tensor]:
    """Positions of a plane (h, w), counted row by row, whose row + column is even, and the others."""
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    even = ((rows[:, None] + columns) % 2 == 0).flatten()
    return even.nonzero()[:, 0], (~even).nonzero()[:, 0]


def in_blocks(positions: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of a list of positions, and where they lie in it."""
    step = BLOCK * torch.get_num_threads()
    for start in range(0, len(positions), step):
        place = slice(start, min(start + step, len(positions)))
        yield place, positions[place]
