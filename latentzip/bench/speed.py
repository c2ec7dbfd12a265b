"""How fast: by size of picture, number of threads and device, with what a start costs apart from what a pixel costs."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentzip.bench.baselines import choose_baselines, timed_round_trip
from latentzip.bench.commands import command_lines, run
from latentzip.bench.compare import Plan, models
from latentzip.bench.networks import Model
from latentzip.bench.pictures import find_pictures, load
from latentzip.bench.runner import Codec, Progress
from latentzip.errors import LatentzipError
from latentzip.images import Picture, Pixels

SIDES, QUICK_SIDES = (256, 512, 1024, 2048), (256, 512, 1024)
TIMES = 2  # the faster counts
SMALL = 16  # pixels a side of the picture that start-up is measured with
MEGA = 1e6


@dataclass(frozen=True)
class Timing:
    """Warm seconds in a running process, of a square picture of `side` pixels."""

    codec: str
    device: str
    threads: int
    side: int
    seconds: dict[str, float]

    @property
    def megapixels(self) -> float:
        return self.side**2 / MEGA


@dataclass(frozen=True)
class Start:
    """Whole commands on a picture of 16 pixels a side: what a start costs."""

    codec: str
    encode: float
    decode: float
    memory: int | None


@dataclass(frozen=True)
class Speed:
    timings: tuple[Timing, ...]
    starts: tuple[Start, ...]
    interpreter: float  # seconds of `python -c pass`, which is in every start
    remarks: tuple[str, ...]


def measure_speed(plan: Plan, progress: Progress) -> tuple[Speed, list[tuple[str, str]]]:
    """-> the speed of the plan's models with every number of threads, and of its baselines with one; and failures.

    Raises LatentzipError where nothing can be measured.
    """
    baselines, missing = choose_baselines(plan.against)
    picture = load(find_pictures(plan.images, 1)[0])
    found = models(plan)
    codecs: list[Codec] = [*found, *baselines]
    sides = QUICK_SIDES if plan.quick else SIDES
    counts = _thread_counts(plan)
    progress.begin("speed", len(sides) * (len(found) * len(counts) + len(baselines)) + len(found) + len(baselines))
    timings: list[Timing] = []
    failures = [("--against", line) for line in missing] if plan.insists else []
    before = torch.get_num_threads()
    try:
        for side in sides:
            square = Picture(_mosaic(picture.pixels, side), picture.greyscale)
            for codec in codecs:
                for threads in counts if isinstance(codec, Model) else [1]:
                    torch.set_num_threads(threads)
                    try:
                        timings.append(_time(codec, square, threads))
                    except LatentzipError as error:
                        failures.append((codec.title, f"{codec.title}, {side} pixels a side: {error}"))
                        progress.fail(failures[-1][1])
                    progress.step()
    finally:
        torch.set_num_threads(before)
    starts = []
    for codec in codecs:
        starts.append(_start(codec, picture.pixels))
        progress.step()
    interpreter = min(run([sys.executable, "-c", "pass"]).seconds for _ in range(TIMES))
    return Speed(tuple(timings), tuple(starts), interpreter, tuple(missing)), failures


def _thread_counts(plan: Plan) -> list[int]:
    """1, 2, 4, ... and as many as there may be; on another device than the CPU they matter little."""
    if plan.device.type != "cpu":
        return [torch.get_num_threads()]
    most = plan.processes
    return sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})


def _mosaic(pixels: Pixels, side: int) -> Pixels:
    """The picture, mirrored at its edges until it is large enough, and cut."""
    missing = [max(0, side - length) for length in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")[:side, :side].copy()


def _time(codec: Codec, picture: Picture, threads: int) -> Timing:
    setting = _middle(codec)
    runs = []
    for _ in range(TIMES + 1):
        if isinstance(codec, Model):
            analysed, network = codec.analyse(picture)
            data, coding = codec.write(analysed, setting)
            _, read = codec.read(data)
            runs.append({"encode": network + coding, "encode_network": network, "encode_coding": coding, **read})
        else:
            runs.append(timed_round_trip(codec, picture, setting)[2])
    best = {name: min(one[name] for one in runs[1:]) for name in runs[0]}  # the first only warms up
    device = codec.device.type if isinstance(codec, Model) else "cpu"
    return Timing(codec.title, device, threads, picture.pixels.shape[0], best)


def _middle(codec: Codec) -> int:
    settings = codec.chosen(quick=False)
    return settings[len(settings) // 2]


def _start(codec: Codec, pixels: Pixels) -> Start:
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = Path(folder, "small.png"), Path(folder, f"small{codec.suffix}"), Path(folder, "back.png")
        Image.fromarray(_mosaic(pixels, SMALL)).save(source)
        lines = command_lines(codec, _middle(codec), source, coded, back)
        runs = [[run(line) for _ in range(TIMES)] for line in lines]
    memory = [one.memory for both in runs for one in both if one.memory is not None]
    encode, decode = (min(one.seconds for one in both) for both in runs)
    return Start(codec.title, encode, decode, max(memory, default=None))
