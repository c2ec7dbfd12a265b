"""What pillow-jxl-plugin does not say of a JPEG XL file: above all its size, before it decodes all of it to open it.

ISO/IEC 18181-1 (the codestream) and 18181-2 (the file) describe it.
"""

from dataclasses import dataclass
from typing import IO

from PIL import Image

from latentzip.images.boxes import walk
from latentzip.images.plugins import JXL_CONTAINER

HEADER_BYTES = 64  # more than what is read of it takes
LARGEST_XMP = 2**24
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height
DEPTHS, FLOAT_DEPTHS = ((8, 0), (10, 0), (12, 0), (1, 6)), ((32, 0), (16, 0), (24, 0), (1, 6))


@dataclass(frozen=True)
class JxlHeader:
    """`bits`: of a sample. `xmp`: where it is not compressed. `compressed_metadata`: is there, and not read."""

    width: int
    height: int
    bits: int
    animated: bool
    xmp: bytes | None
    compressed_metadata: bool

    def add_to(self, image: Image.Image) -> None:
        """Tell Pillow's picture, by the names that other formats have for it."""
        image.info["bit_depth"] = self.bits
        if self.xmp is not None:
            image.info.setdefault("xmp", self.xmp)


def read_jxl_header(file: IO[bytes]) -> JxlHeader:
    """Raises ValueError for a file that is damaged or too strange to be read."""
    file.seek(0)
    head = file.read(HEADER_BYTES)
    xmp, compressed = None, False
    if head.startswith(JXL_CONTAINER):
        head = b""
        for kind, start, length in walk(file):
            if kind in (b"jxlc", b"jxlp") and len(head) < HEADER_BYTES:
                skipped = 4 if kind == b"jxlp" else 0  # a number
                file.seek(start + skipped)
                head += file.read(max(0, min(HEADER_BYTES, length - skipped)))
            elif kind == b"xml " and xmp is None and length <= LARGEST_XMP:
                file.seek(start)
                xmp = file.read(length)
            compressed = compressed or kind == b"brob"
    bits = _Bits(head[2:])
    width, height = _read_size(bits)
    animated, depth = False, 8
    if not bits.take(1):  # else all is as it is by default
        if bits.take(1):
            bits.take(3)  # the orientation, which the decoder applies
            if bits.take(1):  # a size to be shown in
                _read_size(bits)
            if bits.take(1):
                _skip_preview_size(bits)
            animated = bool(bits.take(1))
            if animated:
                bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
                bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
                bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
                bits.take(1)
        depth = bits.choose(*(FLOAT_DEPTHS if bits.take(1) else DEPTHS))
    return JxlHeader(width, height, depth, animated, xmp, compressed)


class _Bits:
    """Bits from the lowest of the first byte on. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self.number, self.left = int.from_bytes(data, "little"), len(data) * 8

    def take(self, count: int) -> int:
        if count > self.left:
            raise ValueError("its header is cut short")
        taken = self.number & (1 << count) - 1
        self.number >>= count
        self.left -= count
        return taken

    def choose(self, *ways: tuple[int, int]) -> int:
        """One of four ways: an offset, and how many bits are added to it."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)


def _read_size(bits: _Bits) -> tuple[int, int]:
    in_eights = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if in_eights else bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    across, down = RATIOS[ratio - 1]
    return height * across // down, height


def _skip_preview_size(bits: _Bits) -> None:
    in_eights = bits.take(1)
    ways = ((16, 0), (32, 0), (1, 5), (33, 9)) if in_eights else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choose(*ways)
    if not bits.take(3):
        bits.choose(*ways)
