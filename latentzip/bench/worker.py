"""One measurement: a baseline codes a picture, or a picture comes decoded, and it is held against the original."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from latentzip.bench.baselines import BASELINES, timed_round_trip
from latentzip.bench.frechet import Patches
from latentzip.bench.meter import Meter, Values
from latentzip.bench.metrics import Choice
from latentzip.bench.pictures import Source, load
from latentzip.errors import BenchError
from latentzip.images import Pixels

NEAR = 0.005  # of a wanted size, as a ratio
STRAIGHT_TRIES = 4  # then by halves, for codecs whose sizes have steps


@dataclass(frozen=True, eq=False)
class Job:
    """decoded: (H, W, 3) uint8 of a model, which took `seconds`; otherwise the baseline named `codec` decodes `data`,
    which it wrote before, or codes the picture at `setting`, or, where `target` is given, at the setting whose file is
    nearest to so many bytes."""

    source: Source
    codec: str
    wanted: frozenset[str]  # keys of metrics
    patches: bool  # whether features for the Fréchet distance are wanted too
    setting: int = 0
    target: int | None = None
    known: tuple[tuple[int, int], ...] = ()  # settings and bytes of files of this picture by this codec
    data: bytes | None = None
    decoded: Pixels | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """data: the coded file; seconds: of what was coded anew, else empty; values: by the metrics' keys."""

    setting: int
    data: bytes
    seconds: dict[str, float]
    values: Values
    patches: Patches | None


class Worker:
    def __init__(self, choice: Choice) -> None:
        self._meter = Meter(choice.metrics, choice.weights)

    def work(self, job: Job) -> Outcome:
        """Raises LatentzipError."""
        picture = load(job.source.path)
        data, seconds, setting, decoded = job.data, job.seconds, job.setting, job.decoded
        if decoded is None:
            codec = BASELINES[job.codec]
            codec.why_missing()  # lets a plugin register itself in this process
            if data is not None:
                decoded = codec.decode(data)
            else:
                if job.target is not None:
                    setting = nearest_setting(
                        job.target, codec.choices, lambda s: _coded(job.source, job.codec, s), dict(job.known)
                    )
                data, decoded, seconds = timed_round_trip(codec, picture, setting)
        if decoded.shape != picture.pixels.shape:
            raise BenchError(f"{job.codec} gives back {decoded.shape[1]}x{decoded.shape[0]} pixels")
        values = self._meter.measure(picture.pixels, decoded, job.wanted)
        patches = self._meter.patches(decoded) if job.patches else None
        return Outcome(setting, data or b"", seconds, values, patches)


@lru_cache(maxsize=128)
def _coded(source: Source, codec: str, setting: int) -> bytes:
    return BASELINES[codec].encode(load(source.path), setting)


def nearest_setting(
    target: int, choices: Sequence[int], write: Callable[[int], bytes], known: Mapping[int, int] | None = None
) -> int:
    """The choice whose file is nearest to `target` bytes, as a ratio, or near enough.

    choices: from the smallest file to the largest. known: sizes of some of them, which need not be written again.
    Sizes are taken to rise with the choices, so it looks where their logarithms would lie on a line.
    """
    sizes = {choices.index(setting): size for setting, size in (known or {}).items() if setting in choices}

    def size(place: int) -> int:
        if place not in sizes:
            sizes[place] = len(write(choices[place]))
        return sizes[place]

    low = max((place for place in sizes if sizes[place] <= target), default=-1)
    high = min((place for place in sizes if sizes[place] > target and place > low), default=len(choices))
    tries = 0
    while high - low > 1:
        middle = (low + high) // 2
        if low >= 0 and high < len(choices) and tries < STRAIGHT_TRIES:
            share = math.log(target / sizes[low]) / math.log(sizes[high] / sizes[low])
            middle = min(high - 1, max(low + 1, round(low + share * (high - low))))
        tries += 1
        if abs(math.log(size(middle) / target)) < NEAR:
            return choices[middle]
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    if low < 0 or high == len(choices):
        return choices[max(low, 0)]
    return choices[low if size(high) / target > target / size(low) else high]
