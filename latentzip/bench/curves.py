"""Bjøntegaard's rate: how many more bytes one codec needs than another for the same quality; and the other way round,
how much better or worse it is at equal bytes.

G. Bjøntegaard, ITU-T VCEG-M33, 2001; interpolated by piecewise cubics as in JCT-VC's test conditions (JCTVC-L1100).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[float, float]]  # (rate, quality) of a picture at several settings
Array = NDArray[np.float64]
Line = tuple[Array, Array]  # x, rising, and y

# Curves that share less than this part of the narrower one's qualities (or rates) tell nothing of each other.
LEAST_OVERLAP = 0.1
RESAMPLES = 2000
FEWEST_FOR_INTERVAL = 5  # pictures; resampling fewer says little


@dataclass(frozen=True)
class Comparison:
    """Over several pictures. change: of the bytes at equal quality, in per cent, the geometric mean; or of the quality
    at equal bytes, in its own unit. low, high: its 95 % interval by bootstrap over pictures; each None where there are
    too few. overlapping: of how many `pictures` the curves meet; single: the change of each, None where they do not."""

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
    sign = 1.0 if higher_is_better else -1.0
    difference = _mean_difference(_by_quality(anchor, sign), _by_quality(test, sign))
    return None if difference is None else 100 * math.expm1(difference)


def bd_quality(anchor: Curve, test: Curve) -> float | None:
    """Mean change of the quality at equal bytes, in its own unit: 0.5 where `test` is half a decibel above `anchor`.

    The same with the axes changed over: the quality is interpolated over the logarithm of the rate, and averaged over
    the rates that both reach.
    """
    return _mean_difference(*(_by_rate(curve) for curve in (anchor, test)))


def _mean_difference(anchor: Line, test: Line) -> float | None:
    """Of y over the x that both reach; None where they share (almost) none, or a line has less than two points."""
    from scipy.interpolate import PchipInterpolator

    if any(len(x) < 2 for x, _ in (anchor, test)):
        return None
    low, high = max(anchor[0][0], test[0][0]), min(anchor[0][-1], test[0][-1])
    if high - low <= LEAST_OVERLAP * min(x[-1] - x[0] for x, _ in (anchor, test)):
        return None
    means = [float(PchipInterpolator(x, y).integrate(low, high)) for x, y in (anchor, test)]
    return float((means[1] - means[0]) / (high - low))


def _by_rate(curve: Curve) -> Line:
    """Log rates, rising, and qualities: of several files of one size, their mean."""
    qualities: dict[float, list[float]] = defaultdict(list)
    for rate, quality in curve:
        qualities[rate].append(quality)
    rates = sorted(qualities)
    return np.log(rates), np.array([np.mean(qualities[rate]) for rate in rates])


def _by_quality(curve: Curve, sign: float) -> Line:
    """Qualities, rising, and log rates. A point that costs more than another and is no better is left out: nobody
    would choose it, and interpolation needs a quality that rises with the rate."""
    best: list[tuple[float, float]] = []
    for rate, quality in sorted((rate, sign * quality) for rate, quality in curve):
        if best and best[-1][0] == rate:
            best[-1] = (rate, quality)
        elif not best or quality > best[-1][1]:
            best.append((rate, quality))
    return np.array([quality for _, quality in best]), np.log([rate for rate, _ in best])


def compare_bytes(pairs: Sequence[tuple[Curve, Curve]], *, higher_is_better: bool) -> Comparison:
    """(anchor's curve, other's) of each picture: the change of the bytes at equal quality, in per cent."""
    single = [bd_rate(anchor, test, higher_is_better=higher_is_better) for anchor, test in pairs]
    logs = [None if change is None else math.log1p(change / 100) for change in single]
    return _over_pictures(logs, lambda log: 100 * math.expm1(log))


def compare_quality(pairs: Sequence[tuple[Curve, Curve]]) -> Comparison:
    """(anchor's curve, other's) of each picture: the change of the quality at equal bytes, in its own unit."""
    return _over_pictures([bd_quality(anchor, test) for anchor, test in pairs], lambda change: change)


def _over_pictures(changes: Sequence[float | None], to_unit: Callable[[float], float]) -> Comparison:
    """Their mean, then `to_unit` of it. The interval is the same each time: its draws are seeded."""
    single = tuple(None if change is None else to_unit(change) for change in changes)
    known = np.array([change for change in changes if change is not None])
    if not len(known):
        return Comparison(None, None, None, 0, len(changes), single)
    low = high = None
    if len(known) >= FEWEST_FOR_INTERVAL:
        draws = np.random.default_rng(0).choice(known, (RESAMPLES, len(known))).mean(1)
        low, high = (to_unit(float(x)) for x in np.quantile(draws, [0.025, 0.975]))
    return Comparison(to_unit(float(known.mean())), low, high, len(known), len(changes), single)
