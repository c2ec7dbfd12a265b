"""What people see: messages and progress on stderr; data, and JSON on request, on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from latentzip.errors import LatentzipError

Record = dict[str, Any]


def complain(message: str) -> None:
    print(f"latentzip: {message}", file=sys.stderr)


def inform(message: str) -> None:
    print(message, file=sys.stderr)


def human_size(count: int) -> str:
    """1234567 -> '1.18 MiB'."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"


def in_brackets(remarks: Iterable[str]) -> str:
    """("a", "b") -> '  (a; b)', and nothing for none."""
    text = "; ".join(remarks)
    return f"  ({text})" if text else ""


@dataclass
class Batch:
    """Several files, one after the other: a bad one is reported and passed over, and makes the exit code 1."""

    verb: str
    as_json: bool
    quiet: bool
    bar: bool = True  # of files; not where each file has a bar of its own
    records: list[Record] = field(default_factory=list)
    errors: list[Record] = field(default_factory=list)

    def run(self, items: list[Any], name: Callable[[Any], Path], work: Callable[[Any], tuple[Record, str]]) -> None:
        """Call `work` on each item; it returns a record for --json and a line for people."""
        for item in self._with_progress(items):
            try:
                record, line = work(item)
            except LatentzipError as error:
                message = _with_path(name(item), str(error))
                self.errors.append({"input": str(name(item)), "error": message})
                complain(message)
                continue
            self.records.append(record)
            if not self.quiet and not self.as_json:
                print(line, file=sys.stderr)

    def finish(self) -> None:
        """Print the JSON document or, of several, the failures. Exits with 1 if anything failed."""
        if self.as_json:
            print(json.dumps({"files": self.records, "errors": self.errors}, indent=2))
        elif self.errors and len(self.errors) + len(self.records) > 1:
            complain(f"{len(self.errors)} of {len(self.errors) + len(self.records)} files could not be {self.verb}:")
            for record in self.errors:
                complain(f"  {record['input']}")
        if self.errors:
            raise typer.Exit(1)

    def _with_progress(self, items: list[Any]) -> Iterator[Any]:
        if self.quiet or not self.bar or len(items) < 2 or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=self.verb.capitalize(), console=Console(stderr=True), transient=True)


def _with_path(path: Path, message: str) -> str:
    """Every message begins with its file, once."""
    return message if message.startswith(f"{path}:") else f"{path}: {message}"
