"""A perceptual distance on the features of a VGG16 trunk (Zhang et al. 2018, arXiv 1801.03924, without its weights)."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.errors import TrainingError

# Convolutions in each block; features are taken after the last of each.
BLOCKS = (2, 2, 3, 3, 3)
BGR_MEAN = (103.939, 116.779, 123.68)


class VggDistance(nn.Module):
    """Distance of two pictures: features normalised over channels, squared difference, mean over positions,
    summed over channels and the five layers conv1_2, 2_2, 3_3, 4_3, 5_3."""

    def __init__(self, path: Path) -> None:
        """Read the trunk from `path`: conv{block}_{i}.weight / .bias. Raises TrainingError if it is not one."""
        super().__init__()
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{path}: cannot be read as a VGG16 trunk ({error}): give its safetensors file"
            ) from None
        names = [f"conv{block}_{i}" for block, n in enumerate(BLOCKS, 1) for i in range(1, n + 1)]
        missing = [f"{n}.{part}" for n in names for part in ("weight", "bias") if f"{n}.{part}" not in tensors]
        if missing:
            raise TrainingError(f"{path}: not a VGG16 trunk, {missing[0]} is missing: see docs/training.md")
        self.convolutions = nn.ModuleDict()
        for name in names:
            weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.convolutions[name] = layer
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(BGR_MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float in [-1, 1] -> five feature maps, each of unit length over channels."""
        h = (x.flip(1) + 1) * 127.5 - self.mean
        out = []
        for block, count in enumerate(BLOCKS, 1):
            if block > 1:
                h = F.max_pool2d(h, 2, ceil_mode=True)
            for i in range(1, count + 1):
                h = F.relu(self.convolutions[f"conv{block}_{i}"](h))
            features = h.float()
            out.append(features * torch.rsqrt(features.square().sum(1, keepdim=True) + 1e-10))
        return out

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] each -> distance (B,), 0 for equal pictures. Gradients flow to x_hat alone."""
        with torch.no_grad():
            reference = self.features(x)
        layers = zip(self.features(x_hat), reference, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in layers]).sum(0)
