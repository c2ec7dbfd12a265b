"""LPIPS and DISTS: how far apart two pictures are in the features of a network.

LPIPS, version 0.1: Zhang et al. 2018 (arXiv 1801.03924). DISTS: Ding et al. 2020 (arXiv 2004.07728). LPIPS's
shift-tolerant form: Ghildyal and Liu 2022 (arXiv 2207.13686).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.bench.metrics import DISTS, LPIPS_ALEX, LPIPS_VGG, ST_LPIPS, VGG16
from latentzip.bench.perceptual_weights import (
    DISTS_NAMES,
    KERNELS,
    TAPS,
    check_weights,
    fault_of,
    head_names,
    shift_tolerant_file,
)
from latentzip.errors import BenchError

Tensors = Mapping[str, Tensor]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
LENGTH_EPSILON = 1e-10
SIMILARITY_EPSILON = 1e-6  # DISTS's c1 and c2
POOL_EPSILON = 1e-12
# of AlexNet's convolutions, in the package stlpips-pytorch
ST_CONVOLUTIONS = ("net.slice1.0", "net.slice2.5", "net.slice3.9", "net.slice4.11", "net.slice5.13")


class NetworkDistance(ABC):
    """Of pictures (1, 3, H, W) float32 in [-1, 1], 32 a side or more; 0 for equal ones."""

    @abstractmethod
    def reference(self, x: Tensor) -> list[Tensor]:
        """What `compare` takes of a picture that many others are compared with."""

    @abstractmethod
    def compare(self, x_hat: Tensor, reference: list[Tensor]) -> dict[str, float]:
        """By the metric's key: one pass may tell several."""


class Trunk(nn.Module, ABC):
    """Pictures as above -> feature maps of five layers. `name` is that of its convolutions in the weights."""

    name: str

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for i, side in enumerate(KERNELS[self.name]):
            weight, bias = (tensors[f"{self.name}.conv_{i}.{part}"] for part in ("weight", "bias"))
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], side, padding=side // 2)
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.layers.append(layer)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, DEVIATION))
        h = ((x / 2 + 0.5 - mean) / deviation).contiguous(memory_format=torch.channels_last)
        found = []
        for i, layer in enumerate(self.layers):
            h = self.step(i, layer, h)
            if i in TAPS[self.name]:
                found.append(h)
        return found

    @abstractmethod
    def step(self, i: int, layer: nn.Module, h: Tensor) -> Tensor:
        """The convolution `i` and its ReLU, with the pooling before it."""


class AlexNet(Trunk):
    name = "alex"

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.layers[0].stride, self.layers[0].padding = (4, 4), (2, 2)  # type: ignore[assignment]

    def step(self, i: int, layer: nn.Module, h: Tensor) -> Tensor:
        out: Tensor = layer(F.max_pool2d(h, 3, 2) if i in (1, 2) else h)
        return out.relu_()


class ShiftTolerantAlexNet(Trunk):
    """Every stride is a blur and then every second position."""

    name = "alex"

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.layers[0].padding = (2, 2)  # type: ignore[assignment]

    def step(self, i: int, layer: nn.Module, h: Tensor) -> Tensor:
        if i in (1, 2):
            h = _blur_and_halve(F.max_pool2d(h, 3, 1))
        out: Tensor = layer(h)
        return (out if i else _blur_and_halve(out)).relu_()


class Vgg16(Trunk):
    """conv1_2, 2_2, 3_3, 4_3 and 5_3."""

    name = "vgg"

    def __init__(self, tensors: Tensors, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__(tensors)
        self.pool = pool

    def step(self, i: int, layer: nn.Module, h: Tensor) -> Tensor:
        out: Tensor = layer(self.pool(h) if i - 1 in TAPS[self.name] else h)
        return out.relu_()


def l2_pool(h: Tensor) -> Tensor:
    """DISTS's: the root of the mean square under a Hanning window, at every second position."""
    return (_halve(h.square(), (0.5, 1.0, 0.5), padding=1) + POOL_EPSILON).sqrt_()


def _blur_and_halve(h: Tensor) -> Tensor:
    return _halve(F.pad(h, (2, 2, 2, 2), mode="reflect"), (1.0, 2.0, 1.0), padding=0)


def _halve(h: Tensor, weights: Sequence[float], padding: int) -> Tensor:
    """Every second position of each channel under one separable filter, whose sum is made 1."""
    line = torch.tensor(weights) / sum(weights)
    kernel = torch.outer(line, line).expand(h.shape[1], 1, -1, -1)
    return F.conv2d(h, kernel, stride=2, padding=padding, groups=h.shape[1])


class Lpips(NetworkDistance):
    """Features of unit length over channels; squared differences weighed by channel, mean over positions, summed over
    layers. heads: by the metric's key, the weights (C,) of each layer's channels."""

    def __init__(self, trunk: Trunk, heads: Mapping[str, Sequence[Tensor]]) -> None:
        self._trunk, self._heads = trunk, heads

    @torch.inference_mode()
    def reference(self, x: Tensor) -> list[Tensor]:
        return [f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + LENGTH_EPSILON) for f in self._trunk(x)]

    @torch.inference_mode()
    def compare(self, x_hat: Tensor, reference: list[Tensor]) -> dict[str, float]:
        layers = zip(self.reference(x_hat), reference, strict=True)
        errors = [(a - b).square_().mean((0, 2, 3)) for a, b in layers]
        return {
            key: sum(float(error @ head) for error, head in zip(errors, heads, strict=True))
            for key, heads in self._heads.items()
        }


class Dists(NetworkDistance):
    """1 - the similarity of each channel's means and of its structure, weighed over the picture's own channels and
    those of all layers. alpha, beta: (3 + channels of the layers,), the weights of both."""

    def __init__(self, trunk: Vgg16, alpha: Tensor, beta: Tensor) -> None:
        self._trunk = trunk
        self._weights = torch.stack([alpha, beta]) / (alpha.sum() + beta.sum())

    @torch.inference_mode()
    def reference(self, x: Tensor) -> list[Tensor]:
        return [x / 2 + 0.5, *self._trunk(x)]

    @torch.inference_mode()
    def compare(self, x_hat: Tensor, reference: list[Tensor]) -> dict[str, float]:
        # of each channel 1 - (2 ab + c) / (a² + b² + c) = (a - b)² / (a² + b² + c), with its means and its deviations
        # from them: written so, equal pictures are at 0 exactly
        parts = []
        for a, b in zip(self.reference(x_hat), reference, strict=True):
            mean_a, mean_b = (f.mean((0, 2, 3), keepdim=True) for f in (a, b))
            a, b = a - mean_a, b - mean_b
            means = (mean_a - mean_b).square() / (mean_a.square() + mean_b.square() + SIMILARITY_EPSILON)
            square_a, square_b, apart = (f.square().mean((0, 2, 3)) for f in (a, b, a - b))
            parts.append(torch.stack([means.flatten(), apart / (square_a + square_b + SIMILARITY_EPSILON)]))
        return {DISTS.key: float((self._weights * torch.cat(parts, dim=1)).sum())}


def load_distance(key: str, weights: Path | None) -> NetworkDistance:
    """What measures the metric `key`, by the user's file or, of ST-LPIPS, the package's. Raises BenchError."""
    if key == ST_LPIPS.key:
        tensors = read_shift_tolerant()
        return Lpips(ShiftTolerantAlexNet(tensors), {key: _heads(tensors, "alex")})
    assert weights is not None
    tensors = read_weights(weights)
    if key == LPIPS_ALEX.key:
        return Lpips(AlexNet(tensors), {key: _heads(tensors, "alex")})
    if key == DISTS.key:
        alpha, beta = (tensors[name].flatten() for name in DISTS_NAMES)
        return Dists(Vgg16(tensors, l2_pool), alpha, beta)
    trunk = Vgg16(tensors, lambda h: F.max_pool2d(h, 2))
    heads = {VGG16.key: [torch.ones(len(tensors[f"vgg.conv_{i}.bias"])) for i in TAPS["vgg"]]}
    if head_names("vgg")[0] in tensors:  # with the same pass
        heads[LPIPS_VGG.key] = _heads(tensors, "vgg")
    return Lpips(trunk, heads)


def read_weights(path: Path) -> Tensors:
    """All tensors of the user's file, in float32. Raises BenchError."""
    check_weights(path)
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def read_shift_tolerant() -> Tensors:
    """Those of the package, by the names of AlexNet's in a file of the user's. Raises BenchError."""
    path = shift_tolerant_file()
    if path is None:
        raise BenchError("stlpips-pytorch is not installed: pip install 'latentzip[lpips]'")
    try:
        theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        ours = {f"alex.lin{i}": theirs[f"lin{i}.model.1.weight"].flatten() for i in range(5)}
        for i, name in enumerate(ST_CONVOLUTIONS):
            ours |= {f"alex.conv_{i}.{part}": theirs[f"{name}.{part}"] for part in ("weight", "bias")}
        fault = fault_of({name: tuple(tensor.shape) for name, tensor in ours.items()})
    except (OSError, RuntimeError, UnpicklingError, LookupError, TypeError):  # torch's own text advises to trust it
        fault = "cannot be read"
    if fault is not None:
        raise BenchError(f"{path}: {fault}: install stlpips-pytorch anew")
    return ours


def _heads(tensors: Tensors, trunk: str) -> list[Tensor]:
    return [tensors[name] for name in head_names(trunk)]
