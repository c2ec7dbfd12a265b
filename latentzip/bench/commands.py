"""Whole commands as processes of their own: what a user waits for, start-up included, and how much memory it takes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentzip.bench.baselines import Baseline
from latentzip.bench.networks import Model
from latentzip.bench.pictures import Source
from latentzip.bench.store import Store
from latentzip.errors import BenchError

TIMES = 2
CONVERT = "import sys; from latentzip.bench.baselines import convert_file; convert_file(*sys.argv[1:])"


@dataclass(frozen=True)
class Run:
    """seconds of the wall clock; memory: its peak in bytes, None where the system does not tell."""

    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Command:
    """Encoding a picture into a file, and that file back into a PNG."""

    source: Source
    setting: int
    encode: Run
    decode: Run


def measure_command(codec: Baseline | Model, source: Source, store: Store) -> Command:
    """The faster of two runs each, at the codec's middle setting; once measured it is kept. Raises BenchError."""
    settings = codec.chosen(quick=False)
    setting = settings[len(settings) // 2]
    name = f"command {codec.key} {source.digest} {setting}"
    known: dict[str, Any] | None = store.note(name)
    if known is None:
        with tempfile.TemporaryDirectory() as folder:
            coded, back = Path(folder, f"coded{codec.suffix}"), Path(folder, "back.png")
            lines = command_lines(codec, setting, source.path, coded, back)
            known = {}
            for verb, line in zip(("encode", "decode"), lines, strict=True):
                runs = [run(line) for _ in range(TIMES)]
                memory = [r.memory for r in runs if r.memory is not None]
                known[verb] = [min(r.seconds for r in runs), max(memory, default=None)]
        store.keep_note(name, known)
    return Command(source, setting, Run(*known["encode"]), Run(*known["decode"]))


def command_lines(codec: Baseline | Model, setting: int, source: Path, coded: Path, back: Path) -> list[list[str]]:
    if isinstance(codec, Baseline):
        line = [sys.executable, "-c", CONVERT, codec.name, str(setting)]
        return [[*line, str(source), str(coded)], [*line, str(coded), str(back)]]
    line = [sys.executable, "-m", "latentzip"]
    weights = ["-m", codec.source] if codec.source else []
    device = ["--device", codec.device.type, "--quiet", "-f"]
    return [
        [*line, "encode", str(source), "-o", str(coded), "-q", str(codec.quality(setting)), *weights, *device],
        [*line, "decode", str(coded), "-o", str(back), *weights, *device],
    ]


def run(line: Sequence[str], threads: int | None = None) -> Run:
    """Raises BenchError where it fails."""
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    stopwatch = [sys.executable, "-m", "latentzip.bench.stopwatch", *line]
    done = subprocess.run(stopwatch, capture_output=True, text=True, env=environment)
    result = json.loads(done.stdout) if done.returncode == 0 else {"code": done.returncode}
    if result["code"]:
        lines = done.stderr.strip().splitlines()
        raise BenchError(f"{' '.join(line[1:4])} ended with {result['code']}: {lines[-1] if lines else 'no message'}")
    return Run(result["seconds"], result["memory"])
