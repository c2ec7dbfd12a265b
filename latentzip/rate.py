"""Which level of a model makes a file of the wanted size."""

import re
from collections.abc import Callable, Sequence

from latentzip.errors import LatentzipError, UsageError

UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmg", 1)}
UNITS |= {f"{letter}{end}": 1024**power for power, letter in enumerate("kmg", 1) for end in ("", "ib")}


def parse_size(text: str, option: str = "--size") -> int:
    """ "40KB" -> 40000, "40KiB" or "40K" -> 40960, "40000" -> 40000. Raises UsageError, which names the option."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)", text.strip().lower())
    size = int(float(match[1]) * UNITS.get(match[2], 0)) if match is not None else 0
    if size < 1:
        raise UsageError(f"{option} {text}: not a size: give bytes, or 40KB, 40KiB, 1.5MB")
    return size


def highest_level_within(limit: int, levels: Sequence[int], write: Callable[[int], bytes]) -> int:
    """The highest level whose file takes at most `limit` bytes.

    Sizes grow with the level, but for a few bytes: there may be a higher one that fits too, but what is returned does.
    Raises LatentzipError where even the lowest level is too large.
    """
    best: int | None = None
    low, high = 0, len(levels) - 1
    smallest = limit
    while low <= high:
        middle = (low + high) // 2
        smallest = len(write(levels[middle]))
        if smallest <= limit:
            best = levels[middle]
            low = middle + 1
        else:
            high = middle - 1
    if best is None:
        raise LatentzipError(
            f"cannot be made as small as {limit} bytes: this model needs {smallest}; shrink the picture, or take"
            " another model with -m"
        )
    return best
