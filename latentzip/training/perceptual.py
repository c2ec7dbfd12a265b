"""Perceptual distances behind one interface (Zhang et al. 2018, arXiv 1801.03924): which one is used is always said.

`none`, `efficientnet` (offline, with the train extra), `lpips` (with its own weights, where it and torchvision are
installed), or the path of a VGG16 trunk.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from latentzip.errors import TrainingError
from latentzip.training.efficientnet import EfficientNetLite0, read_imagenet_weights

EPSILON = 1e-10  # of a squared length
NONE, EFFICIENTNET, LPIPS = "none", "efficientnet", "lpips"


class PerceptualDistance(nn.Module, ABC):
    """(B, 3, H, W) float in [-1, 1] twice -> distance (B,) float, 0 for equal pictures."""

    name: str  # for logs and cards

    @abstractmethod
    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Gradients flow to x_hat alone."""


def load_perceptual(choice: str) -> PerceptualDistance | None:
    """choice: see above. Raises TrainingError where it cannot be had; nothing else is ever taken in its place."""
    if choice == NONE:
        return None
    if choice == EFFICIENTNET:
        return EfficientNetDistance()
    if choice == LPIPS:
        return LpipsDistance()
    from latentzip.training.vgg import VggDistance  # which is built on this module

    return VggDistance(Path(choice))


class FeatureDistance(PerceptualDistance):
    """Features of several layers, each normalised to unit length over channels; squared difference, summed over
    channels and layers, mean over positions: LPIPS, where `heads` has its learned weights of the channels."""

    @property
    def heads(self) -> list[Tensor] | None:
        """(C_i,) of each layer."""
        return None

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float in [-1, 1] -> feature maps (B, C_i, H_i, W_i)."""

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return self.compare(x_hat, self.reference(x))

    @torch.no_grad()
    def reference(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What `compare` takes of a picture that many others are compared with. x: as `features` takes it."""
        return self.normalised(self.features(x))

    def compare(self, x_hat: Tensor, reference: list[tuple[Tensor, Tensor]]) -> Tensor:
        return self.between(self.features(x_hat), reference)

    def normalised(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """What `between` takes of the features of the picture that is held against."""
        return [_unit_length(f.movedim(1, -1)) for f in features]

    def between(self, features: list[Tensor], reference: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The distance (B,) from features."""
        distances = []
        for number, (a, (b, b_square)) in enumerate(zip(features, reference, strict=True)):
            if self.heads is not None:
                distance = _WeightedDistance.apply(a.movedim(1, -1), b, self.heads[number])  # type: ignore[no-untyped-call]
            else:
                distance = _DistanceOfUnits.apply(a.movedim(1, -1), b, b_square)  # type: ignore[no-untyped-call]
            distances.append(distance.mean((1, 2)))
        return torch.stack(distances).sum(0)


def _unit_length(features: Tensor) -> tuple[Tensor, Tensor]:
    """(..., C) -> the same in unit length, and its squared length, float32: zeros and rounding make it other than 1."""
    unit = features * torch.rsqrt(_square_length(features) + EPSILON).to(features.dtype)[..., None]
    return unit, _square_length(unit)


def _square_length(features: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(features, dim=-1, dtype=torch.float32)
    return length.square()


class _DistanceOfUnits(torch.autograd.Function):
    """|a / |a| - b|**2 over the last axis: the sums in float32, the features in their own type.

    Left to autograd, in float32, it takes twice the time of VGG16's convolutions.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor, b_square: Tensor) -> Tensor:
        """a, b: (..., C); b_square: (...,) -> (...,) float32."""
        square = _square_length(a)
        inverse = torch.rsqrt(square + EPSILON)
        distance = _square_length(a * inverse.to(a.dtype)[..., None] - b)
        along = (square * inverse**2 - b_square + distance) / 2  # of the difference, in the direction of a
        ctx.save_for_backward(a, b, inverse, along)
        return distance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        a, b, inverse, along = ctx.saved_tensors
        of_b = 2 * gradient * inverse
        of_a = of_b * inverse * (1 - along)
        return a * of_a.to(a.dtype)[..., None] - b * of_b.to(a.dtype)[..., None], None, None


class _WeightedDistance(torch.autograd.Function):
    """The sum over the last axis of w (a / |a| - b)**2: as `_DistanceOfUnits`, with a weight of each channel."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        """a, b: (..., C); weight: (C,) -> (...,) float32."""
        inverse = torch.rsqrt(_square_length(a) + EPSILON)
        difference = a * inverse.to(a.dtype)[..., None] - b
        ctx.save_for_backward(a, difference, inverse, weight)
        distance: Tensor = difference.square().float() @ weight
        return distance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        a, difference, inverse, weight = ctx.saved_tensors
        of_unit = difference * weight.to(a.dtype)
        along = (of_unit * a).sum(-1, dtype=torch.float32) * inverse.square()
        scale = 2 * gradient * inverse
        return scale.to(a.dtype)[..., None] * (of_unit - along.to(a.dtype)[..., None] * a), None, None


class EfficientNetDistance(FeatureDistance):
    """On the last layers of EfficientNet-Lite0 at 1/2, 1/4, 1/8 and 1/16 of the resolution."""

    def __init__(self) -> None:
        """Raises TrainingError where the package with the weights is not installed."""
        super().__init__()
        self.name = "EfficientNet-Lite0"
        self.network = EfficientNetLite0(read_imagenet_weights())
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> list[Tensor]:
        return self.network.features(x)


class LpipsDistance(PerceptualDistance):
    """The published metric, by its own package."""

    def __init__(self) -> None:
        """Raises TrainingError where the package, or torchvision, is not installed or has no weights."""
        super().__init__()
        self.name = "LPIPS (VGG16)"
        try:
            import lpips
        except ImportError as error:
            raise TrainingError(
                f"--perceptual lpips: not installed ({error}): pip install lpips torchvision, or --perceptual"
                f" {EFFICIENTNET}"
            ) from None
        try:
            self.metric: nn.Module = lpips.LPIPS(net="vgg", verbose=False)
        except OSError as error:  # torchvision's trunk is downloaded on first use
            raise TrainingError(
                f"--perceptual lpips: torchvision's VGG16 weights cannot be had ({error}): use it once with a network"
                f" at hand, or --perceptual {EFFICIENTNET}"
            ) from None
        self.requires_grad_(False).eval()

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        distance: Tensor = self.metric(x_hat, x)
        return distance.flatten()
