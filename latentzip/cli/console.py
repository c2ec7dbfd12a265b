"""What people see: messages on stderr; data, and JSON on request, on stdout."""

import os
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from latentzip.errors import OutputError

Record = dict[str, Any]


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # given by typer too
    INTERRUPTED = 130


def complain(message: str) -> None:
    inform(f"latentzip: {message}")


def inform(message: str) -> None:
    try:
        print(printable(message), file=sys.stderr)
    except OSError:  # a full disk, or nobody there: the work does not hang on its messages
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def emit(text: str) -> None:
    """Data, on standard output. Raises OutputError where there is none, and OSError where it takes no more."""
    if sys.stdout is None:
        raise OutputError("standard output is closed: nothing can be shown")
    print(text, flush=True)


def printable(text: str) -> str:
    """Text as one line that a terminal takes for nothing else.

    A file's name may hold anything: control characters, those that turn the direction of text, and bytes that are no
    characters are escaped.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] != "C" and category not in ("Zl", "Zp"):
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python writes the bytes of a name that are not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


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
class Totals:
    """What files add up to."""

    pixels: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    def add(self, record: Record) -> None:
        self.pixels += record.get("width", 0) * record.get("height", 0)
        self.input_bytes += record.get("input_bytes", 0)
        self.output_bytes += record.get("output_bytes", 0)

    @property
    def saved(self) -> str:
        """', 242 KiB (98.3%) saved', and nothing where nothing was."""
        saved = self.input_bytes - self.output_bytes
        if not self.output_bytes or saved <= 0:
            return ""
        return f", {human_size(saved)} ({saved / self.input_bytes:.1%}) saved"

    def __str__(self) -> str:
        sizes = f", {human_size(self.input_bytes)} -> {human_size(self.output_bytes)}" if self.output_bytes else ""
        return f"{self.pixels / 1e6:.1f} MP{sizes}{self.saved}"
