"""Measures a decoded picture against its original."""

import io
import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from latentzip.bench.frechet import Patches, patch_features
from latentzip.bench.metrics import EFFICIENTNET, LPIPS, MS_SSIM, PSNR, SSIMULACRA2, VGG16, Metric
from latentzip.images import Pixels
from latentzip.training.perceptual import EFFICIENTNET as EFFICIENTNET_CHOICE
from latentzip.training.perceptual import LPIPS as LPIPS_CHOICE
from latentzip.training.perceptual import EfficientNetDistance, FeatureDistance, PerceptualDistance, load_perceptual

HIGHEST_PSNR = 100.0  # of equal pictures it would be infinite
# Side of the windows in which a network sees large pictures, so that its memory has a bound; a multiple of 64.
WINDOW = 1024
MS_SSIM_SIDE = 160  # five scales of an 11-pixel window need more
SSIMULACRA2_SIDE = 8  # of its largest scale

Values = dict[str, float | None]


class Meter:
    """The chosen metrics, their networks loaded when first needed. Equal on every number of processes."""

    def __init__(self, metrics: Collection[Metric], vgg: Path | None) -> None:
        self._metrics = {metric.key: metric for metric in metrics}
        self._vgg = vgg
        self._distances: dict[str, _WindowedDistance] = {}

    def measure(self, original: Pixels, decoded: Pixels, wanted: Collection[str]) -> Values:
        """Both (H, W, 3) uint8 of one size -> the wanted metrics by key; None where one has no value for such a
        picture. Raises TrainingError where a network's weights cannot be had."""
        measures: dict[str, Callable[[Pixels, Pixels], float | None]] = {
            PSNR.key: psnr,
            MS_SSIM.key: ms_ssim,
            SSIMULACRA2.key: ssimulacra2,
        }
        values: Values = {}
        for key in self._metrics:
            if key in wanted:
                measure = measures.get(key) or self._distance(key)
                value = measure(original, decoded)
                values[key] = value if value is not None and math.isfinite(value) else None
        return values

    def patches(self, pixels: Pixels) -> Patches | None:
        """Features of a picture's patches for the Fréchet distance; None where EfficientNet is not installed."""
        if EFFICIENTNET.key not in self._metrics:
            return None
        network = self._distance(EFFICIENTNET.key).distance
        assert isinstance(network, EfficientNetDistance)
        parts = [_to_tensor(pixels[rows, columns]) for rows, columns in windows(*pixels.shape[:2])]
        return patch_features(network.network, parts)

    def _distance(self, key: str) -> "_WindowedDistance":
        if key not in self._distances:
            choice = {EFFICIENTNET.key: EFFICIENTNET_CHOICE, LPIPS.key: LPIPS_CHOICE, VGG16.key: str(self._vgg)}[key]
            distance = load_perceptual(choice)
            assert distance is not None
            self._distances[key] = _WindowedDistance(distance)
        return self._distances[key]


def psnr(original: Pixels, decoded: Pixels) -> float:
    error = float(np.square(original.astype(np.float64) - decoded).mean())
    return min(HIGHEST_PSNR, 10 * math.log10(255**2 / error)) if error else HIGHEST_PSNR


def ms_ssim(original: Pixels, decoded: Pixels) -> float | None:
    from pytorch_msssim import ms_ssim as measure

    if min(original.shape[:2]) <= MS_SSIM_SIDE:
        return None
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (original, decoded))
    return float(measure(a, b, data_range=255))


def ssimulacra2(original: Pixels, decoded: Pixels) -> float | None:
    from ssimulacra2 import compute_ssimulacra2

    if min(original.shape[:2]) < SSIMULACRA2_SIDE:
        return None
    return float(compute_ssimulacra2(_as_file(original), _as_file(decoded)))


def _as_file(pixels: Pixels) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PPM")
    file.seek(0)
    return file


class _WindowedDistance:
    """A perceptual distance, of large pictures the mean over windows by their areas."""

    def __init__(self, distance: PerceptualDistance) -> None:
        self.distance = distance
        self._last: Pixels | None = None  # the original that the reference belongs to: it is compared many times
        self._reference: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def __call__(self, original: Pixels, decoded: Pixels) -> float:
        if max(original.shape[:2]) <= WINDOW and isinstance(self.distance, FeatureDistance):
            if original is not self._last:
                self._last, self._reference = original, self.distance.reference(_to_tensor(original))
            return float(self.distance.compare(_to_tensor(decoded), self._reference))
        total = 0.0
        for rows, columns in windows(*original.shape[:2]):
            a, b = original[rows, columns], decoded[rows, columns]
            total += float(self.distance(_to_tensor(b), _to_tensor(a))) * a.size
        return total / original.size


def windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Slices that cover a picture once, none larger than WINDOW a side."""
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            yield slice(top, top + WINDOW), slice(left, left + WINDOW)


def _to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1], at least 32 a side: the networks halve it four times."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.pad(x, (0, max(0, 32 - x.shape[3]), 0, max(0, 32 - x.shape[2])), mode="replicate")
