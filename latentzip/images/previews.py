"""Pictures that Pillow opens by a smaller version of theirs, because it cannot read the picture itself.

Most are cameras' raw files, which are TIFF inside (TIFF 6.0, TIFF/EP, Adobe's DNG): the first directory is often a
preview, and says so, or points to a larger picture.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import PurePath
from typing import IO, Any

from PIL import Image

from latentzip.errors import ImageError

# A TIFF of such a name holds what a sensor saw; what Pillow finds in it is a preview, whatever its tags say.
RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".dcr", ".dcs", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".nef"}
    | {".nrw", ".pef", ".raw", ".sr2", ".srf", ".srw"}
)
WIDTH, HEIGHT, PHOTOMETRIC, SUB_DIRECTORIES, DNG_VERSION = 256, 257, 262, 330, 50706
NEW_KIND, OLD_KIND = 254, 255
REDUCED_OR_MASK, OLD_REDUCED = 0b101, 2
SENSOR = (32803, 34892)  # photometric interpretations: a colour filter array, and linear raw
CANONS_MARK = b"CR\2\0"  # at byte 8
MOST_DIRECTORIES = 64
MERGED_PICTURE = 1057  # Photoshop's image resource that says whether there is a merged picture
INSTEAD = "export the picture itself as TIFF or PNG first; of a camera's raw file a raw converter does that"


def refuse_preview(image: Image.Image, name: str = "") -> None:
    """Raise ImageError where what Pillow has opened, and not loaded yet, is not the picture itself.

    name: of the file, whose suffix may tell.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is not None and (PurePath(name).suffix.lower() in RAW_SUFFIXES or _is_preview(image, tags)):
        raise ImageError(_refusal(image))
    if image.format == "MPO" and "Thumbnail" in str(image.mpinfo[0xB002][0]["Attribute"]["MPType"]):  # type: ignore[attr-defined]
        raise ImageError(_refusal(image))
    if image.format == "PSD":
        for number, _, data in image.resources:  # type: ignore[attr-defined]
            if number == MERGED_PICTURE and data[4:5] == b"\0":
                raise ImageError("has layers, and no merged picture of them: export it as PNG first")


def _refusal(image: Image.Image) -> str:
    return f"only a preview of it can be read here, of {image.width}x{image.height} pixels: {INSTEAD}"


def _is_preview(image: Image.Image, tags: Mapping[int, Any]) -> bool:
    """Of a TIFF, with the tags of its first directory."""
    if _says_reduced(tags) or DNG_VERSION in tags:
        return True
    file: IO[bytes] | None = image.fp  # type: ignore[attr-defined]
    if file is None or file.closed:  # it is loaded, and there is no more to be learnt
        return False
    before = file.tell()
    try:
        file.seek(8)
        return file.read(4) == CANONS_MARK or _has_larger_below(file, tags, image.width * image.height)
    finally:
        file.seek(before)


def _says_reduced(tags: Mapping[int, Any]) -> bool:
    kind = tags.get(NEW_KIND)
    return (isinstance(kind, int) and bool(kind & REDUCED_OR_MASK)) or tags.get(OLD_KIND) == OLD_REDUCED


def _has_larger_below(file: IO[bytes], tags: Mapping[int, Any], pixels: int) -> bool:
    """Whether a directory below the first has a sensor's data, or more pixels."""
    places = tags.get(SUB_DIRECTORIES, ())
    try:
        for place in places[:MOST_DIRECTORIES] if isinstance(places, tuple) else (places,):
            below = _read_numbers(file, int(place))
            if below.get(PHOTOMETRIC) in SENSOR or below.get(WIDTH, 0) * below.get(HEIGHT, 0) > pixels:
                return True
    except (struct.error, OSError, ValueError, OverflowError):
        pass  # what is damaged there is not what is read
    return False


def _read_numbers(file: IO[bytes], place: int) -> dict[int, int]:
    """The single whole numbers of a TIFF's directory, by their tags."""
    file.seek(0)
    head = file.read(4)
    order = "<" if head[:2] == b"II" else ">"
    is_big = 43 in head[2:]
    count_form, entry_form, entry_size = ("Q", "HHQ8s", 20) if is_big else ("H", "HHI4s", 12)
    file.seek(place)
    (count,) = struct.unpack(order + count_form, file.read(8 if is_big else 2))
    entries = io.BytesIO(file.read(entry_size * min(count, 0xFFFF)))
    numbers = {}
    while len(entry := entries.read(entry_size)) == entry_size:
        tag, kind, length, value = struct.unpack(order + entry_form, entry)
        if length == 1 and kind in (3, 4):  # SHORT, LONG
            numbers[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), value[: 2 if kind == 3 else 4])[0]
    return numbers
