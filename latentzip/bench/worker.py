"""One measurement: a baseline codes a picture, or a picture comes decoded, and it is held against the original."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from latentzip.bench.baselines import BASELINES, timed_round_trip
from latentzip.bench.frechet import Patches
from latentzip.bench.meter import Meter, Values
from latentzip.bench.metrics import Choice
from latentzip.bench.pictures import Source, load
from latentzip.errors import BenchError, LatentzipError
from latentzip.images import Pixels
from latentzip.rate import highest_level_within


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
        self._meter = Meter(choice.metrics, choice.vgg)

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
                    setting = nearest_setting(job.target, codec.choices, lambda s: _coded(job.source, job.codec, s))
                data, decoded, seconds = timed_round_trip(codec, picture, setting)
        if decoded.shape != picture.pixels.shape:
            raise BenchError(f"{job.codec} gives back {decoded.shape[1]}x{decoded.shape[0]} pixels")
        values = self._meter.measure(picture.pixels, decoded, job.wanted)
        patches = self._meter.patches(decoded) if job.patches else None
        return Outcome(setting, data or b"", seconds, values, patches)


@lru_cache(maxsize=128)
def _coded(source: Source, codec: str, setting: int) -> bytes:
    return BASELINES[codec].encode(load(source.path), setting)


def nearest_setting(target: int, choices: Sequence[int], write: Callable[[int], bytes]) -> int:
    """The choice whose file is nearest in size, as a ratio. choices: from the smallest file to the largest."""
    try:
        below = highest_level_within(target, choices, write)
    except LatentzipError:
        return choices[0]
    after = choices.index(below) + 1
    if after == len(choices):
        return below
    return below if len(write(choices[after])) / target > target / len(write(below)) else choices[after]
