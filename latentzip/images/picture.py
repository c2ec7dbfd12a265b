"""What a picture is between a file of some format and the codec."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8 | np.uint16]
BitDepth = Literal[8, 16]
MetadataWish = Literal["icc", "all", "none"]
ALPHA_KEPT = "keep"
LUMA = np.array([299, 587, 114], dtype=np.uint32)  # ITU-R BT.601, in thousandths, as Pillow has it
ROWS = 64  # that are worked on at once


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels. None: it says nothing."""

    profile: bytes | None = None  # ICC; None: the samples are sRGB's
    exif: bytes | None = None  # a TIFF structure, without the "Exif\0\0" that JPEG has before it
    xmp: bytes | None = None  # UTF-8 XML


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    pixels: (H, W, 3) in the colours of `metadata.profile`, uint8, or uint16 where more levels were asked for.
    `greyscale`: the picture has one channel; the three are equal, or will be made one. `alpha`: (H, W) uint8, 0 is
    fully transparent; None: opaque. `remarks`: what became of the source or target, for people.
    """

    pixels: Pixels
    greyscale: bool
    alpha: NDArray[np.uint8] | None = None
    metadata: Metadata = field(default_factory=Metadata)
    remarks: tuple[str, ...] = ()

    def samples(self) -> Pixels:
        """(H, W, C): one channel or three, and the alpha behind them if there is one, all of the pixels' type."""
        pixels = _to_grey(self.pixels)[..., None] if self.greyscale else self.pixels
        if self.alpha is None:
            return pixels
        alpha = self.alpha[..., None].astype(pixels.dtype)
        return np.concatenate((pixels, alpha * 257 if pixels.dtype == np.uint16 else alpha), axis=2)


def _to_grey(pixels: Pixels) -> Pixels:
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    for top in range(0, len(pixels), ROWS):
        grey[top : top + ROWS] = (pixels[top : top + ROWS] @ LUMA + 500) // 1000
    return grey
