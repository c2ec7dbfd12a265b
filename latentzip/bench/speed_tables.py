"""How fast codecs are, as tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentzip.bench.speed import SMALL, Speed, Timing
from latentzip.bench.tables import Table


@dataclass(frozen=True)
class Fit:
    """seconds = fixed + per_megapixel × megapixels; exponent: of the pixels, in the growth between the two largest."""

    fixed: float
    per_megapixel: float
    exponent: float


def fit(timings: Sequence[Timing], verb: str) -> Fit:
    """Least squares of the relative error, over at least two sizes."""
    x = np.array([t.megapixels for t in timings])
    y = np.array([t.seconds[verb] for t in timings])
    matrix = np.stack([1 / y, x / y], 1)
    (fixed, slope), *_ = np.linalg.lstsq(matrix, np.ones_like(y), rcond=None)
    exponent = np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2])
    return Fit(float(fixed), float(slope), float(exponent))


def speed_tables(speed: Speed) -> list[Table]:
    """Throughput by size; what a pixel and a start cost."""
    groups = _groups(speed)
    sides = sorted({timing.side for timing in speed.timings})
    head = ["codec", "device", "threads", "", *(f"{side}²" for side in sides)]
    throughput: list[list[Any]] = []
    growth: list[list[Any]] = []
    for (codec, device, threads), timings in groups.items():
        by_side = {timing.side: timing for timing in timings}
        for verb in ("encode", "decode"):
            cells = [f"{by_side[s].megapixels / by_side[s].seconds[verb]:.2f}" if s in by_side else "" for s in sides]
            throughput.append([codec, device, str(threads), verb, *cells])
            if len(timings) > 1:
                line = fit(timings, verb)
                parts = [f"{1000 * line.fixed:.0f}", f"{line.per_megapixel:.2f}", f"{line.exponent:.2f}"]
                largest = timings[-1].seconds
                share = largest.get(f"{verb}_network")
                parts.append("" if share is None else f"{share / largest[verb]:.0%}")
                growth.append([codec, device, str(threads), verb, *parts])
    columns = ["codec", "device", "threads", "", "ms a picture", "s a megapixel", "exponent", "network"]
    starts: list[list[Any]] = [
        [s.codec, f"{s.encode:.2f}", f"{s.decode:.2f}", "" if s.memory is None else f"{s.memory / 2**20:.0f} MiB"]
        for s in speed.starts
    ]
    return [
        Table("Megapixels a second, in a running process", head, throughput),
        Table("How time grows: seconds = fixed + slope × megapixels; pixels to the power of", columns, growth),
        Table(
            f"Start-up: the whole command on {SMALL}×{SMALL} pixels (an empty Python alone {speed.interpreter:.2f} s)",
            ["codec", "encode s", "decode s", "memory"],
            starts,
        ),
    ]


def _groups(speed: Speed) -> dict[tuple[str, str, int], list[Timing]]:
    groups: dict[tuple[str, str, int], list[Timing]] = {}
    for timing in speed.timings:
        groups.setdefault((timing.codec, timing.device, timing.threads), []).append(timing)
    return groups


def speed_to_json(speed: Speed) -> dict[str, Any]:
    return asdict(speed)
