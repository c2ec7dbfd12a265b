"""How long work shows itself: a live bar on a terminal; of a training run a plain line a minute elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from latentzip.cli.console import Record, Totals

PLAIN_SECONDS = 60.0


class PlainDisplay:
    def __init__(self) -> None:
        self._next = 0.0

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def show(self, record: Record) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            self.say(
                f"step {record['step']}  {record['minutes']:.1f} min ({record['progress']:.0%})  {describe(record)}"
            )


class LiveDisplay:
    def __init__(self) -> None:
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "LiveDisplay":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def show(self, record: Record) -> None:
        self._progress.update(
            self._task, completed=record["progress"], description=f"step {record['step']}  {describe(record)}"
        )


def training_display() -> PlainDisplay | LiveDisplay:
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def describe(record: Record) -> str:
    """The figures of a record in a line, those that do not apply left out."""
    parts = [
        f"{record['steps_per_second']:.2f} steps/s",
        f"loss {record['total']:.3f}",
        f"{record['bpp']:.3f} bpp",
        f"{record['psnr']:.2f} dB",
    ]
    if record["perceptual"]:
        parts.append(f"perceptual {record['perceptual']:.3f}")
    parts += [f"{name} {record[name]:.3g}" for name in ("kl", "commitment") if record.get(name)]
    if record["adversarial_weight"]:
        parts.append(f"adversarial {record['adversarial']:.3f} x {record['adversarial_weight']:.3g}")
    if "codebook_use" in record:
        parts.append("codes " + "/".join(f"{share:.0%}" for share in record["codebook_use"]))
    parts.append(f"lr {record['learning_rate']:.2g}")
    return "  ".join(parts)


class FilesDisplay:
    """Of several files how many are done, at what speed, and what they became; nothing unless `show`."""

    def __init__(self, verb: str, files: int, *, show: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            disable=not show,
        )
        self._files = self._progress.add_task(verb, total=files, visible=files > 1, figures="")
        self._start = time.monotonic()

    def __enter__(self) -> "FilesDisplay":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def file_done(self, totals: Totals) -> None:
        speed = totals.pixels / 1e6 / max(time.monotonic() - self._start, 1e-9)
        self._progress.update(self._files, advance=1, figures=f"{speed:.2f} MP/s{totals.saved}")

    @contextlib.contextmanager
    def steps(self, name: str, count: int) -> Iterator[Callable[[], None]]:
        """A bar of the `count` steps that one file takes; gives what to call after each."""
        task = self._progress.add_task(name, total=count, visible=count > 0, figures="")
        try:
            yield lambda: self._progress.advance(task)
        finally:
            self._progress.remove_task(task)


class BenchDisplay:
    """Counts measurements: a bar on a terminal, elsewhere a line for each part and picture, or none where `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._what = ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._live = sys.stderr.isatty() and not quiet
        self._task = self._progress.add_task("", total=None, visible=self._live)

    def begin(self, what: str, total: int) -> None:
        self._what = what
        self._progress.update(self._task, total=total, completed=0, description=what)
        self._line(f"{what}: {total} measurements")

    def step(self) -> None:
        self._progress.advance(self._task)

    def picture(self, number: int, count: int, name: str) -> None:
        self._progress.update(self._task, description=f"{self._what}, {number} of {count}")
        self._line(f"{number} of {count}: {name}")

    def _line(self, text: str) -> None:
        if not self._live and not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def fail(self, message: str) -> None:
        if self._live:
            self._progress.console.print(f"latentzip: {message}", markup=False, highlight=False)
        else:
            print(f"latentzip: {message}", file=sys.stderr, flush=True)

    def __enter__(self) -> "BenchDisplay":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()
