"""What a picture may cost before its size is known, or beyond what its size explains."""

import warnings
from struct import unpack
from typing import IO

from PIL import Image

from latentzip.errors import ImageError
from latentzip.images.boxes import walk

TOO_MANY = "more than is safe to read of an unknown file"
MOST_EXIF_PARTS = 64  # of a JPEG; an honest one has one, and Pillow's time to join them grows with the square
# OpenJPEG takes some 9 KB for each tile, before it decodes one
SMALLEST_J2K_TILE, FREE_J2K_TILES = 1024, 64
J2K_START = b"\xff\x4f\xff\x51"
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF


def limit_pillow(max_pixels: int) -> None:
    """Let Pillow itself refuse, in all of this process, what is larger: pictures in icons and the like too.

    Its own limit is half of what it refuses; from there on it warns, which helps nobody here.
    """
    Image.MAX_IMAGE_PIXELS = min(max_pixels, 2**52) / 2  # type: ignore[assignment]
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError for a picture of more pixels."""
    if width * height > max_pixels:
        raise ImageError(f"has {width}x{height} pixels, {TOO_MANY} (at most {max_pixels}): raise --max-pixels")


def check_jpeg_parts(file: IO[bytes]) -> None:
    """Raise ImageError for a JPEG whose Exif data comes in more parts than MOST_EXIF_PARTS. Others are let pass."""
    place, parts = 2, 0
    while True:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):  # the end, or the picture's data
            return
        parts += head[1] == 0xE1 and head[4:8] == b"Exif"
        if parts > MOST_EXIF_PARTS:
            raise ImageError(
                f"its Exif data comes in more than {MOST_EXIF_PARTS} parts: the file is damaged or hostile"
            )
        place += 2 + int.from_bytes(head[2:4], "big")


def check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Raise ImageError where a picture that is open, and not loaded, has tiles that are far too large, or too many."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        raise ImageError(f"has tiles of {width}x{height} pixels (at most {max_pixels} are read): raise --max-pixels")
    file = image.fp  # type: ignore[attr-defined]
    if image.format == "JPEG2000":
        _check_j2k_tiles(file, 0)
    if image.format == "ICNS":
        for start, _ in image.icns.dct.values():  # type: ignore[attr-defined]
            _check_j2k_tiles(file, start)


def _check_j2k_tiles(file: IO[bytes], start: int) -> None:
    before = file.tell()
    file.seek(start)
    head = file.read(48)
    if head[4:8] == b"jP  ":
        for kind, place, _ in walk(file, start):
            if kind == b"jp2c":
                file.seek(place)
                head = file.read(48)
                break
    file.seek(before)
    if len(head) < 48 or not head.startswith(J2K_START):
        return
    right, bottom, left, top, tile_width, tile_height = unpack(">4I2I", head[8:32])
    pixels = max(0, right - left) * max(0, bottom - top)
    tiles = -(-(right - left) // max(1, tile_width)) * -(-(bottom - top) // max(1, tile_height))
    if tiles > FREE_J2K_TILES + pixels // SMALLEST_J2K_TILE:
        raise ImageError(f"is cut into {tiles} tiles of {tile_width}x{tile_height} pixels: save it with larger tiles")
