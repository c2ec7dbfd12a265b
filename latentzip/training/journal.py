"""What a run leaves to read: log.jsonl for machines, TensorBoard where it is installed, and a display for people."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from latentzip.errors import OutputError

LOG_NAME = "log.jsonl"

Record = dict[str, Any]


class Display(Protocol):
    """How a run shows itself to the person who started it."""

    def say(self, line: str) -> None:
        """Something that happens once."""

    def show(self, record: Record) -> None:
        """Where the run stands: the record that goes to the log, every few seconds."""


WORTH_SAYING = 0.01  # of the silent share


class Journal:
    """Every method raises OutputError where the disk is full, or gone."""

    def __init__(self, out: Path, display: Display) -> None:
        self.display = display
        self.last_validation: Record | None = None
        self._log = out / LOG_NAME
        self._board: Any = None
        with self._writing():
            _end_last_line(self._log)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with self._writing():
            self._board = SummaryWriter(str(out))

    def training(self, record: Record) -> None:
        """Means over the steps since the last record."""
        self._write("train", record)
        self.display.show(record)

    def validation(self, record: Record) -> None:
        self._write("validation", record)
        self.last_validation = record
        rates = " | ".join(
            f"{r['bpp']:.3f} bpp {r['psnr']:.2f} dB perceptual {r['perceptual']:.3f}" for r in record["rates"]
        )
        silent = f"  silent {record['silent']:.0%}" if record["silent"] >= WORTH_SAYING else ""
        self.display.say(f"step {record['step']}  held out: {rates}  score {record['score']:.4f}{silent}")

    def _write(self, kind: str, record: Record) -> None:
        with self._writing():
            with open(self._log, "a") as file:
                file.write(json.dumps({"kind": kind, **record}) + "\n")
            if self._board is not None:
                for name, value in record.items():
                    if isinstance(value, (int, float)) and name != "step":
                        self._board.add_scalar(f"{kind}/{name}", value, record["step"])
                self._board.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self._log  # none where a disk is full
            raise OutputError(
                f"{place}: cannot be written ({error.strerror}): make room, and go on with --resume"
            ) from None


def _end_last_line(path: Path) -> None:
    """A disk that was full may have cut it off."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
