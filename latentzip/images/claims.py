"""What a file says of its samples and colours in other ways than by an ICC profile, and Pillow passes over."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from latentzip.errors import ImageError
from latentzip.images.boxes import LONGEST, Said, read_heif, read_jp2
from latentzip.images.codepoints import CodePoints, space_of
from latentzip.images.metadata import DAMAGED
from latentzip.images.png import code_points
from latentzip.images.profiles import (
    KNOWN,
    SRGB_CURVE,
    SRGB_NUMBERS,
    ColourSpace,
    build_profile,
    columns_of,
    gamma_curve,
    known_profile,
)

PNG_SRGB_GAMMA, PNG_GAMMA_TOLERANCE = 0.45455, 0.002  # what PNG says for sRGB's curve
GREY_MODES = ("1", "L", "LA", "I", "I;16")
ADOBE_RGB, PROPHOTO_RGB = 3, 4
# Of the enumerated colour spaces of JPEG 2000 (ISO/IEC 15444-1 and -2) those that Pillow makes grey, RGB or CMYK of,
# with sRGB's colours: two for black and white, CMYK, sRGB, grey, sYCC; and ROMM, which is ProPhoto RGB.
JP2_USUAL, JP2_ROMM = (0, 12, 15, 16, 17, 18), 21
EXIF_UNCALIBRATED, EXIF_ADOBE = 0xFFFF, 2
BMP_HEADER, BMP_V5, BMP_EMBEDDED = 14, 124, b"DEBM"  # PROFILE_EMBEDDED of BITMAPV5HEADER


def _read_bmp(file: IO[bytes]) -> Said:
    """The profile that a BMP of the fifth version may have behind its pixels."""
    file.seek(BMP_HEADER)
    head = file.read(BMP_V5)
    if len(head) < BMP_V5 or int.from_bytes(head[:4], "little") < BMP_V5 or head[56:60] != BMP_EMBEDDED:
        return Said()
    place, length = struct.unpack_from("<II", head, 112)
    file.seek(BMP_HEADER + place)
    return Said(profile=file.read(min(length, LONGEST)) or None)


READERS: dict[str | None, Callable[[IO[bytes]], Said]] = {
    "PNG": lambda file: Said(points=code_points(file)),
    "AVIF": read_heif,
    "HEIF": read_heif,
    "JPEG2000": read_jp2,
    "BMP": _read_bmp,
}


def look(image: Image.Image) -> Said:
    """What the file of Pillow's picture says. Of one that is loaded, only a file that has a name can still be read."""
    said = Said(_depth(image))
    nclx = image.info.get("nclx_profile")  # as pillow-heif has it
    if isinstance(nclx, dict):
        said = replace(said, points=CodePoints(nclx["color_primaries"], nclx["transfer_characteristics"]))
    if image.format in READERS:
        with _file_of(image) as file:
            if file is not None:
                found = READERS[image.format](file)
                said = replace(found, depth=max(found.depth, said.depth))
    return said


def profile_of(image: Image.Image, said: Said) -> tuple[bytes | None, str | None]:
    """The ICC profile that says what a file says of its colours (None: they are sRGB's), and a remark.

    Raises ImageError for colours that cannot be kept: those of HDR, and some of JPEG 2000.
    """
    own = image.info.get("icc_profile") or said.profile
    if own and not (image.format == "PNG" and said.points):  # in PNG, and only there, code points go before a profile
        return own, None
    if said.points:
        space = space_of(said.points)
        if space is None:
            numbers = f"{said.points.primaries} and {said.points.transfer}"
            return None, f"its colours are described by code points that are not known here, {numbers}: taken for sRGB"
        return _build(space, image), None
    if said.enumerated == JP2_ROMM:
        return known_profile(PROPHOTO_RGB), None
    if said.enumerated is not None and said.enumerated not in JP2_USUAL:
        raise ImageError(f"has colours of JPEG 2000's kind {said.enumerated}, which Pillow misreads: save it as sRGB")
    if "srgb" in image.info:
        return None, None
    if "gamma" in image.info:
        return _profile_of_gamma(image), None
    return known_profile(ADOBE_RGB) if _is_adobe_by_exif(image) else None, None


def _profile_of_gamma(image: Image.Image) -> bytes | None:
    """What a PNG's gAMA and cHRM say (PNG, third edition)."""
    gamma, places = image.info["gamma"], image.info.get("chromaticity")
    if not isinstance(gamma, float) or not 0.05 < gamma < 5:
        return None
    curve = SRGB_CURVE if abs(gamma - PNG_SRGB_GAMMA) < PNG_GAMMA_TOLERANCE else gamma_curve(1 / gamma)
    columns = KNOWN[1][1].columns
    if places is not None:
        try:
            white, *primaries = zip(places[::2], places[1::2], strict=True)
            columns = columns_of(tuple(primaries), white)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
    return _build(ColourSpace(columns, (curve,) * 3), image)


def _build(space: ColourSpace, image: Image.Image) -> bytes | None:
    if image.mode in GREY_MODES:
        space = space.as_grey()
    return None if any(space.is_like(KNOWN[number][1]) for number in SRGB_NUMBERS) else build_profile(space, "as said")


def _is_adobe_by_exif(image: Image.Image) -> bool:
    """Whether the Exif data says Adobe RGB, as cameras do that write no profile (CIPA DC-008, DCF 2.0)."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in exif else {}  # which else makes an empty one
        space = details.get(ExifTags.Base.ColorSpace)
        if space == EXIF_UNCALIBRATED and ExifTags.IFD.Interop in details:
            return str(exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)).startswith("R03")
        return bool(space == EXIF_ADOBE)
    except DAMAGED:
        return False


def _depth(image: Image.Image) -> int:
    """Bits of a sample where Pillow keeps 8 of more; once a picture is loaded, only TIFF still tells."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])
        return bits if 8 < bits <= 16 else 8
    for codec, _, _, args in getattr(image, "tile", ()):
        if codec in ("ppm", "ppm_plain") and isinstance(args, tuple) and args[0] != "1":
            return max(8, int(args[-1]).bit_length())
        if codec == "SGI16" or ";16" in str(args):
            return 16
    depth = image.info.get("bit_depth", 8)  # as pillow-heif has it
    return depth if isinstance(depth, int) else 8


@contextlib.contextmanager
def _file_of(image: Image.Image) -> Iterator[IO[bytes] | None]:
    if isinstance(image, ImageFile.ImageFile) and image.tile and image.fp is not None:
        place = image.fp.tell()
        try:
            yield image.fp
        finally:
            image.fp.seek(place)
        return
    name = getattr(image, "filename", "")
    with contextlib.ExitStack() as stack:
        file = None
        with contextlib.suppress(OSError, ValueError, TypeError):
            file = stack.enter_context(Path(name).open("rb"))
        yield file
