"""A convolutional network on a picture, strip by strip, as on the whole of it, in the memory of a strip.

Each layer keeps the few rows that its next ones look back at, so every row of every layer is computed once. The result
is the whole picture's to the last bit, however high the strips are and however wide a part of the picture is taken:
each value comes from the same operations in the same order (see `_convolve` and `_gelu`).
"""

from abc import ABC, abstractmethod
from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.blocks import ResidualBlock
from latentzip.models.noise import Noise, Place, gate, noise_at


class Rows(ABC):
    """A layer, or several, that are fed a picture's rows from the top to the bottom, once."""

    @abstractmethod
    def feed(self, x: Tensor, last: bool) -> Tensor:
        """The picture's next rows (1, C, n, W) -> the result's next rows (1, C', m, W'): those that depend on no more.

        x is channels-last. `last`: x ends at the bottom, and so does what is returned.
        """


def rows_of(layer: nn.Module, place: Place = Place()) -> Rows:  # noqa: B008
    """A fresh start of a layer on a picture's rows: of convolutions, residual blocks, and what works on single rows.

    place: where the first row and column lie, for noise.
    """
    if isinstance(layer, nn.Sequential):
        return Chain([rows_of(part, place) for part in layer])
    if isinstance(layer, Noise):
        return _Noisy(layer, place)
    if isinstance(layer, ResidualBlock):
        return _Residual(layer)
    if isinstance(layer, nn.Conv2d):
        return _Convolution(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        return _Painting(layer)
    return _Apart(layer)


class Sum(Rows):
    """Two ways from the same rows, added up; the second may be behind the first by some rows."""

    def __init__(self, first: Rows, second: Rows) -> None:
        self.first, self.second = first, second
        self.waiting = _Waiting()

    def feed(self, x: Tensor, last: bool) -> Tensor:
        self.waiting.put(self.first.feed(x, last))
        return self.waiting.add_to(self.second.feed(x, last))


class WithPlane(Rows):
    """Rows with one more channel, of the same value everywhere, go into `inner`."""

    def __init__(self, value: Tensor, inner: Rows) -> None:
        self.value, self.inner = value, inner

    def feed(self, x: Tensor, last: bool) -> Tensor:
        plane = self.value.to(x).view(1, 1, 1, 1).expand(1, 1, *x.shape[2:])
        return self.inner.feed(torch.cat([x, plane], dim=1).contiguous(memory_format=torch.channels_last), last)


class Chain(Rows):
    """One after the other."""

    def __init__(self, parts: list[Rows]) -> None:
        self.parts = parts

    def feed(self, x: Tensor, last: bool) -> Tensor:
        for part in self.parts:
            x = part.feed(x, last)
        return x


class _Apart(Rows):
    """A layer whose output at a row needs that row of the input alone (or, of space-to-depth, whole groups of rows)."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def feed(self, x: Tensor, last: bool) -> Tensor:
        out: Tensor = self.layer(x)
        return out.contiguous(memory_format=torch.channels_last)


class _Convolution(Rows):
    """A convolution, of what GELU makes of its input where `activate` says so."""

    def __init__(self, layer: nn.Conv2d, activate: bool = False) -> None:
        self.layer, self.activate = layer, activate
        self.kernel, self.stride = layer.kernel_size[0], layer.stride[0]
        self.padding = _padding_of(layer)
        self.kept: Tensor | None = None  # rows that the next output looks at; first the padding above the picture

    def feed(self, x: Tensor, last: bool) -> Tensor:
        x = self._after_those_kept(x, last)
        count = max(0, (x.shape[2] - self.kernel) // self.stride + 1)
        self.kept = x[:, :, count * self.stride :].clone()
        if count == 0:
            width = (x.shape[3] + 2 * self.padding - self.kernel) // self.stride + 1
            return x.new_empty(1, self.layer.out_channels, 0, width)
        return _convolve(x, self.layer)

    def _after_those_kept(self, x: Tensor, last: bool) -> Tensor:
        channels, height, width = x.shape[1:]
        before = self.padding if self.kept is None else self.kept.shape[2]
        after = self.padding if last else 0
        rows = x.new_empty(1, before + height + after, width, channels).permute(0, 3, 1, 2)  # channels-last
        rows[:, :, :before] = 0 if self.kept is None else self.kept
        rows[:, :, before + height :] = 0
        if self.activate:
            _gelu(x, rows[:, :, before : before + height])
        else:
            rows[:, :, before : before + height] = x
        return rows


class _Residual(Rows):
    def __init__(self, block: ResidualBlock) -> None:
        self.first, self.second = _Convolution(block.first, activate=True), _Convolution(block.second, activate=True)
        self.waiting = _Waiting()

    def feed(self, x: Tensor, last: bool) -> Tensor:
        self.waiting.put(x)
        return self.waiting.add_to(self.second.feed(self.first.feed(x, last), last))


class _Noisy(Rows):
    def __init__(self, layer: Noise, place: Place) -> None:
        self.layer, self.amount = layer, place.noise
        self.row, self.left = place.top * layer.scale, place.left * layer.scale

    def feed(self, x: Tensor, last: bool) -> Tensor:
        height, width = x.shape[2:]
        if not height or not self.amount:
            return x
        rows = torch.arange(self.row, self.row + height, device=x.device)
        columns = torch.arange(self.left, self.left + width, device=x.device)
        self.row += height
        noise = noise_at(rows, columns, self.layer.planes) * self.amount
        strong = (gate(_convolve(x, self.layer.strength)) * noise).contiguous(memory_format=torch.channels_last)
        return x + _convolve(strong, self.layer.mix)


class _Painting(Rows):
    """A transposed convolution whose kernel is its stride: each position paints a square of its own."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        self.side, self.bias = layer.stride[0], layer.bias
        self.squares = nn.Conv2d(layer.in_channels, layer.weight[0].numel(), 1, bias=False, device="meta")
        self.squares.weight = nn.Parameter(layer.weight.flatten(1).T[:, :, None, None], requires_grad=False)

    def feed(self, x: Tensor, last: bool) -> Tensor:
        painted = F.pixel_shuffle(_convolve(x, self.squares), self.side)
        if self.bias is not None:
            painted += self.bias[:, None, None]
        return painted.contiguous(memory_format=torch.channels_last)


class _Waiting:
    """Rows that wait for others to be added to."""

    def __init__(self) -> None:
        self.parts: deque[Tensor] = deque()

    def put(self, x: Tensor) -> None:
        if x.shape[2]:
            self.parts.append(x)

    def add_to(self, y: Tensor) -> Tensor:
        """Add the rows that have waited longest to y, in place."""
        done = 0
        while done < y.shape[2]:
            part = self.parts.popleft()
            count = min(part.shape[2], y.shape[2] - done)
            y[:, :, done : done + count] += part[:, :, :count]
            if count < part.shape[2]:
                self.parts.appendleft(part[:, :, count:].clone())  # a view would keep all of the strip
            done += count
        return y


def _padding_of(layer: nn.Conv2d) -> int:
    assert isinstance(layer.padding, tuple)
    return layer.padding[0]


def _convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution whose padding above and below is in x already.

    On CPUs by oneDNN, whatever the size: F.conv2d would take few rows, or 1x1 kernels on one thread, to another
    algorithm, which adds up in another order.
    """
    padding = [0, _padding_of(layer)]
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return torch.mkldnn_convolution(x, layer.weight, layer.bias, padding, layer.stride, layer.dilation, 1)
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, padding)


# torch computes elements in groups that fill two AVX-512 registers, and what is left of each thread's share one by one,
# with another approximation of erf. A share is at least GRAIN elements.
_LANES, _GRAIN = 32, 32768


def _gelu(x: Tensor, out: Tensor) -> None:
    """GELU into `out`, of each element the same wherever it lies and however many threads there are.

    Both are channels-last. What does not come out even for all threads is computed apart, and filled up.
    """
    source, target = x.permute(0, 2, 3, 1).reshape(-1), out.permute(0, 2, 3, 1).view(-1)
    even = len(source)
    while excess := even % (_LANES * _shares(even)):
        even -= excess
    torch.ops.aten.gelu.out(source[:even], out=target[:even])
    odd = F.pad(source[even:], (0, -(len(source) - even) % _LANES))
    target[even:] = F.gelu(odd)[: len(source) - even]


def _shares(elements: int) -> int:
    """Among how many threads torch shares out an elementwise operation."""
    return max(1, min(torch.get_num_threads(), -(-elements // _GRAIN)))
