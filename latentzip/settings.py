"""What a user may wish of an encoded or decoded picture. Plain numbers; no torch."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import Literal, get_args

from latentzip.container import MAX_QUALITY
from latentzip.errors import UsageError
from latentzip.files import MAX_FILE_BYTES
from latentzip.tiling import NO_BOUNDS, Bounds

MAX_EFFORT = 9
Coding = Literal["auto", "fp16"]


@dataclass(frozen=True)
class EncodeSettings:
    """How large, how good and how slow. Raises UsageError for what cannot be."""

    quality: int | None = None  # 1 to 100; with neither of the next two DEFAULT_QUALITY
    bpp: float | None = None  # at most so many bits per pixel
    most_bytes: int | None = None  # at most so many
    effort: int = 0  # 0 to 9
    coding: Coding = "auto"
    bounds: Bounds = NO_BOUNDS  # of memory
    verify: bool = True  # read the latent again

    def __post_init__(self) -> None:
        if self.quality is not None and not is_whole(self.quality, 1, MAX_QUALITY):
            raise UsageError(f"quality {shortened(self.quality)}: give 1 (smallest) to {MAX_QUALITY} (best)")
        if self.bpp is not None and not (is_number(self.bpp, 0) and self.bpp > 0):
            raise UsageError(f"bpp {shortened(self.bpp)}: give bits per pixel, such as 0.2")
        if self.most_bytes is not None and not is_whole(self.most_bytes, 0):
            raise UsageError(f"size {shortened(self.most_bytes)}: give a whole number of bytes")
        if not is_whole(self.effort, 0, MAX_EFFORT):
            raise UsageError(f"effort {shortened(self.effort)}: give 0 (fast) to {MAX_EFFORT}")
        check_choice("coding", self.coding, get_args(Coding))
        check_switch("verify", self.verify)
        given = sum(wish is not None for wish in (self.quality, self.bpp, self.most_bytes))
        if given > 1:
            raise UsageError("quality (-q), bpp and size each say how large a file becomes: give one of them")
        if self.coding == "fp16" and (given or self.effort):
            raise UsageError(
                "coding fp16 has one size and keeps latents as they are: leave quality, bpp, size and effort out"
            )

    def limit(self, width: int, height: int) -> int | None:
        """The most bytes that a file may have."""
        if self.bpp is None:
            return self.most_bytes
        return int(min(self.bpp * width * height / 8, MAX_FILE_BYTES))


def is_whole(value: object, low: int, high: int | None = None) -> bool:
    """Whether it is a whole number, of Python or numpy, from low to high. True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return low <= int(value) and (high is None or int(value) <= high)


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises UsageError."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} {shortened(value)}: give {' or '.join(choices)}")


def check_switch(name: str, value: object) -> None:
    """Raises UsageError for what is neither True nor False: a word such as "no" would count as True."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} {shortened(value)}: give True or False")


def is_number(value: object, low: float) -> bool:
    """Whether it is a finite number, of Python or numpy, from low on. True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return bool(not value < low and value < math.inf)  # as no number, NaN is not below anything
