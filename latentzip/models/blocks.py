"""The few layers that the networks are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), 3x3 both. It starts as the identity. (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.gelu(self.first(F.gelu(x))))
        return out


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a layer at zero, so that what it adds to grows in from nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


# Grids of the exact layers, in bits after the binary point. A product lies on a grid of 2**-26 and is at most 2**15, so
# fewer than 2**12 of them stay below 2**27 and every partial sum fits float64's 53 bits.
ACTIVATION_BITS, WEIGHT_BITS = 10, 16
ACTIVATION_LIMIT, WEIGHT_LIMIT, MAX_TERMS = 2.0**12, 2.0**3, 2**12


def to_grid(x: Tensor, bits: int, limit: float) -> Tensor:
    """Nearest multiple of 2**-bits (halves go up) within [-limit, limit]. Exact for float64."""
    scale = 2.0**bits
    return (x * scale).add_(0.5).floor_().div_(scale).clamp_(-limit, limit)


class ExactConv2d(nn.Conv2d):
    """A convolution that can be made exact: the same result on every machine, to the last bit.

    In training it is an ordinary convolution. After `make_exact` its weights lie on a grid, it takes float64 inputs
    that are multiples of 2**-ACTIVATION_BITS, and it gives such multiples. All products and partial sums are then
    representable, so that no order of additions, thread count, device or library can change the result.
    """

    exact = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        assert in_channels * kernel_size**2 < MAX_TERMS, "partial sums could leave float64's exact range"

    def make_exact(self) -> None:
        with torch.no_grad():
            self.double()
            self.weight.copy_(to_grid(self.weight, WEIGHT_BITS, WEIGHT_LIMIT))
            if self.bias is not None:
                self.bias.copy_(to_grid(self.bias, WEIGHT_BITS + ACTIVATION_BITS, ACTIVATION_LIMIT))
        self.exact = True

    def forward(self, input: Tensor) -> Tensor:
        if not self.exact:
            return super().forward(input)
        side = self.weight.shape[2]
        taps = [(dy, dx) for dy in range(side) for dx in range(side)]
        out = self._sum_of_products(input, taps, slice(None))
        return out.view(len(out), self.out_channels, *input.shape[2:])

    def at_other_colour(self, input: Tensor, mask: Tensor) -> Tensor:
        """The exact result at `mask` alone, one colour of a checkerboard, where `input` is zero: (B, C, n).

        An even step leads to the same colour, so half of the taps meet nothing but zeros.
        """
        assert self.exact
        side = self.weight.shape[2]
        odd = [(dy, dx) for dy in range(side) for dx in range(side) if (dy + dx) % 2]
        return self._sum_of_products(input, odd, mask.flatten().nonzero()[:, 0])

    def _sum_of_products(self, x: Tensor, taps: list[tuple[int, int]], positions: Tensor | slice) -> Tensor:
        """(B, C, h, w) -> (B, C', n), at those of the h * w positions.

        One matrix product per tap: no library algorithm (Winograd, FFT, TF32) can come between.
        """
        batch, _, height, width = x.shape
        x = F.pad(x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT), [self.weight.shape[2] // 2] * 4)
        out: Tensor | None = None
        for dy, dx in taps:
            window = x[:, :, dy : dy + height, dx : dx + width].reshape(batch, self.in_channels, -1)[:, :, positions]
            product = self.weight[:, :, dy, dx].contiguous() @ window
            out = product if out is None else out.add_(product)
        assert out is not None
        if self.bias is not None:
            out += self.bias[:, None]
        return to_grid(out, ACTIVATION_BITS, ACTIVATION_LIMIT)
