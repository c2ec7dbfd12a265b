"""VGG16's features (Simonyan and Zisserman 2014, arXiv 1409.1556), and the distances on them.

With the learned heads of Zhang et al. 2018 (arXiv 1801.03924, version 0.1) in the weights file, the distance is LPIPS;
without, all channels count alike.
"""

import copy
import itertools
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.errors import TrainingError
from latentzip.training.perceptual import FeatureDistance

# convolutions in each block; features are taken after the last of each
BLOCKS = (2, 2, 3, 3, 3)
# torchvision's of ImageNet's pictures in [0, 1]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VggDistance(FeatureDistance):
    """On the layers conv1_2, 2_2, 3_3, 4_3 and 5_3 of a VGG16 trunk."""

    def __init__(self, path: Path, blocks: int = len(BLOCKS)) -> None:
        """Read the trunk from `path`. Raises TrainingError if it is not one.

        Only the first `blocks` layers count. The file has `vgg.conv_0` to `vgg.conv_12` (.weight and .bias), as
        torchvision's, and if it has heads `vgg.lin0` to `vgg.lin4`; or `conv1_1` to `conv5_3`, for BGR in 0..255.
        """
        super().__init__()
        try:
            if path.exists() and not path.is_file():  # to open a pipe would be to wait for ever
                raise OSError("no ordinary file")
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{path}: cannot be read as a VGG16 trunk ({error}): give its safetensors file, see docs/training.md"
            ) from None
        tensors = _as_torchvision(tensors)
        count = sum(BLOCKS)
        missing = [f"vgg.conv_{i}.{part}" for i in range(count) for part in ("weight", "bias")]
        missing = [name for name in missing if name not in tensors]
        if missing:
            raise TrainingError(f"{path}: not a VGG16 trunk, {missing[0]} is missing: see docs/training.md")
        self.blocks = blocks
        self.convolutions = nn.ModuleList()
        channels = 3
        for i in range(count):
            weight, bias = tensors[f"vgg.conv_{i}.weight"].float(), tensors[f"vgg.conv_{i}.bias"].float().flatten()
            _check(path, f"its convolution {i}", weight.shape == (len(bias), channels, 3, 3), weight, bias)
            channels = len(bias)
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.convolutions.append(layer)
        heads = [f"vgg.lin{i}" for i in range(len(BLOCKS))]
        calibrated = all(name in tensors for name in heads)
        self.name = f"{'LPIPS over ' if calibrated else ''}VGG16 ({path.name})"
        if calibrated:
            self.head_weights = nn.ParameterList(tensors[name].float().flatten() for name in heads)
            for head, last in zip(self.head_weights, itertools.accumulate(BLOCKS), strict=True):
                _check(path, "a head", len(head) == len(tensors[f"vgg.conv_{last - 1}.bias"]), head)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.rounded = copy.deepcopy(self.convolutions).bfloat16()  # autocast would round them anew each time
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.calibrated = calibrated

    @property
    def heads(self) -> list[Tensor] | None:
        return list(self.head_weights)[: self.blocks] if self.calibrated else None

    def features(self, x: Tensor) -> list[Tensor]:
        convolutions = self.rounded if torch.is_autocast_enabled(x.device.type) else self.convolutions
        h = ((x + 1) / 2 - self.mean) / self.deviation
        out, layers = [], iter(convolutions)
        for block, count in enumerate(BLOCKS[: self.blocks]):
            if block:
                h = F.max_pool2d(h, 2, ceil_mode=True)
            for _ in range(count):
                h = next(layers)(h).relu_()
            out.append(h)
        return out


def _check(path: Path, what: str, fits: bool, *values: Tensor) -> None:
    if not fits or not all(tensor.isfinite().all() for tensor in values):
        raise TrainingError(
            f"{path}: not a VGG16 trunk, {what} has another shape, or values that are not finite: see docs/training.md"
        )


def _as_torchvision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A trunk for BGR in 0..255 (`conv1_1` and so on) as one for RGB of ImageNet's mean and deviation."""
    first = tensors.get("conv1_1.weight")
    if first is None or first.ndim != 4 or first.shape[1] != 3:
        return tensors
    names = [f"conv{block}_{i}" for block, n in enumerate(BLOCKS, 1) for i in range(1, n + 1)]
    out = {
        f"vgg.conv_{number}.{part}": tensors[f"{name}.{part}"]
        for number, name in enumerate(names)
        for part in ("weight", "bias")
        if f"{name}.{part}" in tensors
    }
    scale = 255 * torch.tensor(DEVIATION)[:, None, None]
    out["vgg.conv_0.weight"] = first.float().flip(1) * scale
    return out
