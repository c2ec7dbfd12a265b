"""What a run leaves to read: log.jsonl for machines, TensorBoard where it is installed, and a display for people."""

import json
from pathlib import Path
from typing import Any, Protocol

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
    def __init__(self, out: Path, display: Display) -> None:
        self.display = display
        self._log = out / LOG_NAME
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(out))

    def training(self, record: Record) -> None:
        """Means over the steps since the last record."""
        self._write("train", record)
        self.display.show(record)

    def validation(self, record: Record) -> None:
        self._write("validation", record)
        rates = " | ".join(
            f"{r['bpp']:.3f} bpp {r['psnr']:.2f} dB perceptual {r['perceptual']:.3f}" for r in record["rates"]
        )
        silent = f"  silent {record['silent']:.0%}" if record["silent"] >= WORTH_SAYING else ""
        self.display.say(f"step {record['step']}  held out: {rates}  score {record['score']:.4f}{silent}")

    def _write(self, kind: str, record: Record) -> None:
        with open(self._log, "a") as file:
            file.write(json.dumps({"kind": kind, **record}) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._board.add_scalar(f"{kind}/{name}", value, record["step"])
            self._board.flush()
