"""What a user may wish of an encoded or decoded picture. Plain numbers; no torch."""

import math
from dataclasses import dataclass
from typing import Literal

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
        given = sum(wish is not None for wish in (self.quality, self.bpp, self.most_bytes))
        if given > 1:
            raise UsageError("quality (-q), bpp and size each say how large a file becomes: give one of them")
        if self.coding == "fp16" and (given or self.effort):
            raise UsageError(
                "coding fp16 has one size and keeps latents as they are: leave quality, bpp, size and effort out"
            )
        if self.quality is not None and not 1 <= self.quality <= MAX_QUALITY:
            raise UsageError(f"quality {self.quality}: give 1 (smallest) to {MAX_QUALITY} (best)")
        if self.bpp is not None and not 0 < self.bpp < math.inf:
            raise UsageError(f"bpp {self.bpp}: give bits per pixel, such as 0.2")
        if not 0 <= self.effort <= MAX_EFFORT:
            raise UsageError(f"effort {self.effort}: give 0 (fast) to {MAX_EFFORT}")

    def limit(self, width: int, height: int) -> int | None:
        """The most bytes that a file may have."""
        if self.bpp is None:
            return self.most_bytes
        return int(min(self.bpp * width * height / 8, MAX_FILE_BYTES))
