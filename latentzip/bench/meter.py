"""Measures a decoded picture against its original."""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from latentzip.bench.distances import NetworkDistance, load_distance
from latentzip.bench.frechet import Patches, patch_features
from latentzip.bench.metrics import EFFICIENTNET, MS_SSIM, PSNR, SQUARES, SSIMULACRA2, Metric
from latentzip.images import Pixels
from latentzip.training.perceptual import EfficientNetDistance

HIGHEST_PSNR = 100.0  # of equal pictures it would be infinite
# Side of the windows in which a network sees large pictures, so that its memory has a bound; a multiple of 64.
WINDOW = 1024
MS_SSIM_SIDE = 160  # five scales of an 11-pixel window need more
SSIMULACRA2_SIDE = 8  # of its largest scale
SQUARE = 8  # pixels a side of the squares whose means are compared
SQUARE_KEYS = tuple(metric.key for metric in SQUARES)
# ITU-R BT.601 in full range (JFIF), of differences, so without Cb's and Cr's 128
TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

Values = dict[str, float | None]


class Meter:
    """The chosen metrics, their networks loaded when first needed. Equal on every number of processes."""

    def __init__(self, metrics: Collection[Metric], weights: Path | None) -> None:
        """weights: the file with those of LPIPS and DISTS."""
        self._metrics = {metric.key: metric for metric in metrics}
        self._weights = weights
        self._distances: dict[str, _WindowedDistance] = {}

    def measure(self, original: Pixels, decoded: Pixels, wanted: Collection[str]) -> Values:
        """Both (H, W, 3) uint8 of one size -> the wanted metrics by key; None where one has no value for such a
        picture. Raises LatentzipError where a network's weights cannot be had."""
        measures: dict[str, Callable[[Pixels, Pixels], float | None]] = {
            PSNR.key: psnr,
            MS_SSIM.key: ms_ssim,
            SSIMULACRA2.key: ssimulacra2,
        }
        found: Values = {}
        for key in self._metrics:
            if key not in wanted or key in found:
                continue
            if key in measures:
                found[key] = measures[key](original, decoded)
            elif key in SQUARE_KEYS:
                found |= square_means(original, decoded)
            else:
                found |= self._distance(key)(original, decoded)
        values = {key: found[key] for key in self._metrics if key in wanted}
        return {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}

    def patches(self, pixels: Pixels) -> Patches | None:
        """Features of a picture's patches for the Fréchet distance; None where EfficientNet is not installed."""
        if EFFICIENTNET.key not in self._metrics:
            return None
        distance = self._distance(EFFICIENTNET.key).distance
        assert isinstance(distance, _EfficientNet)
        parts = [_to_tensor(pixels[rows, columns]) for rows, columns in windows(*pixels.shape[:2])]
        return patch_features(distance.features.network, parts)

    def _distance(self, key: str) -> "_WindowedDistance":
        if key not in self._distances:
            is_efficientnet = key == EFFICIENTNET.key
            distance = _EfficientNet() if is_efficientnet else load_distance(key, self._weights)
            self._distances[key] = _WindowedDistance(distance)
        return self._distances[key]


def psnr(original: Pixels, decoded: Pixels) -> float:
    return _decibels(np.square(original.astype(np.float64) - decoded).mean())


def _decibels(square_error: float) -> float:
    return min(HIGHEST_PSNR, 10 * math.log10(255**2 / square_error)) if square_error else HIGHEST_PSNR


def square_means(original: Pixels, decoded: Pixels) -> Values:
    """PSNR of the means of 8×8 squares in Y, Cb and Cr; None where the picture holds no whole square."""
    height, width = (side // SQUARE for side in original.shape[:2])
    if not height or not width:
        return dict.fromkeys(SQUARE_KEYS)
    error = (original.astype(np.float64) - decoded)[: height * SQUARE, : width * SQUARE]
    means = error.reshape(height, SQUARE, width, SQUARE, 3).mean((1, 3)) @ TO_YCBCR.T
    return {key: _decibels(square) for key, square in zip(SQUARE_KEYS, np.square(means).mean((0, 1)), strict=True)}


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


class _EfficientNet(NetworkDistance):
    def __init__(self) -> None:
        """Raises TrainingError where the package with the weights is not installed."""
        self.features = EfficientNetDistance()

    @torch.no_grad()
    def reference(self, x: Tensor) -> Any:
        return self.features.reference(x)

    @torch.no_grad()
    def compare(self, x_hat: Tensor, reference: Any) -> dict[str, float]:
        return {EFFICIENTNET.key: float(self.features.compare(x_hat, reference))}


class _WindowedDistance:
    """A network's distances, of large pictures the mean over windows by their areas."""

    def __init__(self, distance: NetworkDistance) -> None:
        self.distance = distance
        self._last: Pixels | None = None  # the original that the reference belongs to: it is compared many times
        self._reference: Any = None

    def __call__(self, original: Pixels, decoded: Pixels) -> dict[str, float]:
        if max(original.shape[:2]) <= WINDOW:
            if original is not self._last:
                self._last, self._reference = original, self.distance.reference(_to_tensor(original))
            return self.distance.compare(_to_tensor(decoded), self._reference)
        totals: dict[str, float] = defaultdict(float)
        for rows, columns in windows(*original.shape[:2]):
            a, b = original[rows, columns], decoded[rows, columns]
            for key, value in self.distance.compare(_to_tensor(b), self.distance.reference(_to_tensor(a))).items():
                totals[key] += value * a.size / original.size
        return dict(totals)


def windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Slices that cover a picture once, none larger than WINDOW a side."""
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            yield slice(top, top + WINDOW), slice(left, left + WINDOW)


def _to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1], at least 32 a side: the networks halve it four times."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.pad(x, (0, max(0, 32 - x.shape[3]), 0, max(0, 32 - x.shape[2])), mode="replicate")
