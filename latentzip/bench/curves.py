"""Bjøntegaard's rate: how many more bytes one codec needs than another for the same quality.

G. Bjøntegaard, ITU-T VCEG-M33, 2001; interpolated by piecewise cubics as in JCT-VC's test conditions (JCTVC-L1100).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[float, float]]  # (rate, quality) of a picture at several settings
Array = NDArray[np.float64]

# Curves that share less than this part of the narrower one's qualities tell nothing of each other.
LEAST_OVERLAP = 0.1
RESAMPLES = 2000
FEWEST_FOR_INTERVAL = 5  # pictures; resampling fewer says little


@dataclass(frozen=True)
class Comparison:
    """Over several pictures. change: of the bytes, in per cent, the geometric mean; low, high: its 95 % interval by
    bootstrap over pictures; each None where there are too few. overlapping: of how many `pictures` the curves
    meet; single: the change of each, None where they do not."""

    change: float | None
    low: float | None
    high: float | None
    overlapping: int
    pictures: int
    single: tuple[float | None, ...]


def bd_rate(anchor: Curve, test: Curve, *, higher_is_better: bool) -> float | None:
    """Mean change of the rate at equal quality, in per cent: -20 where `test` needs a fifth less than `anchor`.

    The logarithm of the rate is interpolated over quality by PCHIP and averaged over the qualities that both reach.
    None where they share (almost) none, or a curve has less than two points.
    """
    from scipy.interpolate import PchipInterpolator

    sides = [_by_quality(curve, 1.0 if higher_is_better else -1.0) for curve in (anchor, test)]
    if any(len(quality) < 2 for quality, _ in sides):
        return None
    low, high = max(quality[0] for quality, _ in sides), min(quality[-1] for quality, _ in sides)
    if high - low <= LEAST_OVERLAP * min(quality[-1] - quality[0] for quality, _ in sides):
        return None
    means = [float(PchipInterpolator(quality, log_rate).integrate(low, high)) for quality, log_rate in sides]
    return 100 * math.expm1((means[1] - means[0]) / (high - low))


def _by_quality(curve: Curve, sign: float) -> tuple[Array, Array]:
    """Qualities, rising, and log rates. A point that costs more than another and is no better is left out: nobody
    would choose it, and interpolation needs a quality that rises with the rate."""
    best: list[tuple[float, float]] = []
    for rate, quality in sorted((rate, sign * quality) for rate, quality in curve):
        if best and best[-1][0] == rate:
            best[-1] = (rate, quality)
        elif not best or quality > best[-1][1]:
            best.append((rate, quality))
    return np.array([quality for _, quality in best]), np.log([rate for rate, _ in best])


def compare(pairs: Sequence[tuple[Curve, Curve]], *, higher_is_better: bool) -> Comparison:
    """(anchor's curve, other's) of each picture. The interval is the same each time: its draws are seeded."""
    single = tuple(bd_rate(anchor, test, higher_is_better=higher_is_better) for anchor, test in pairs)
    logs = np.array([math.log1p(change / 100) for change in single if change is not None])
    if not len(logs):
        return Comparison(None, None, None, 0, len(pairs), single)
    low = high = None
    if len(logs) >= FEWEST_FOR_INTERVAL:
        draws = np.random.default_rng(0).choice(logs, (RESAMPLES, len(logs))).mean(1)
        low, high = (100 * math.expm1(x) for x in np.quantile(draws, [0.025, 0.975]))
    return Comparison(100 * math.expm1(float(logs.mean())), low, high, len(logs), len(pairs), single)
