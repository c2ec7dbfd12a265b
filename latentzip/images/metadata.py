"""Exif and XMP: what is taken from a source, without what the codec has changed; and how formats want it."""

import re
import struct
from typing import Any

from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from latentzip.images.exif import HEAD, clean_exif
from latentzip.images.picture import Metadata

SIDEWAYS = range(5, 9)  # orientations
# Of a TIFF, Exif's first directory is that of the picture itself: these tags say how its pixels are stored, or hold
# what travels in another way (700: XMP, 34675: ICC), or another format's data (33723: IPTC, 34377: Photoshop).
STORAGE_TAGS = frozenset(
    {*range(254, 260), *range(262, 267), 273, 274, *range(277, 282), 284, *range(288, 294), 297, 301}
    | {*range(317, 326), 330, *range(332, 348), *range(512, 522), *range(529, 533), 700}
    | {*range(32995, 32999), 33723, 34377, 34675}
)
# no part of it can be repeated without end, so that time grows with the packet's length and no faster
XMP_ORIENTATION = re.compile(rb"""\s?tiff:Orientation\s?=\s?["']\d["']|<tiff:Orientation>\s?\d\s?</tiff:Orientation>""")
# what Pillow raises of damaged metadata
DAMAGED = (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, OSError)


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture turned as its orientation says, and whether its Exif data could be read."""
    try:
        if _orientation(image) == 1:
            return image, True  # which spares a copy
        return ImageOps.exif_transpose(image), True
    except DAMAGED:
        return image, False


def _orientation(image: Image.Image) -> Any:
    """1 where it stands upright as it is. What Exif says may be anything."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # its decoder has turned it as its codestream says, and that alone counts
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def take_exif(image: Image.Image) -> bytes | None:
    """The Exif data of a picture that is still as its orientation says, for the upright one, without its thumbnail.

    None where there is none, or none that can be read.
    """
    try:
        exif = image.getexif()
        turned = _orientation(image) in SIDEWAYS
        data = image.info.get("exif")
        if not isinstance(data, bytes):  # a TIFF's, among its own tags, or none
            own = Image.Exif()
            own.load(exif.tobytes())
            for tag in STORAGE_TAGS & set(own):
                del own[tag]
            if not len(own):
                return None
            data = own.tobytes()
        return clean_exif(data, *(image.size[::-1] if turned else image.size))
    except DAMAGED:
        return None


def take_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet of an upright picture, without its orientation."""
    xmp = image.info.get("xmp")
    return without_orientation(xmp) or None if isinstance(xmp, bytes | str) else None


def without_orientation(xmp: bytes | str) -> bytes:
    """An XMP packet that says nothing of its picture's orientation."""
    return XMP_ORIENTATION.sub(b"", xmp.encode() if isinstance(xmp, str) else xmp).rstrip(b"\0 ")


def image_info(metadata: Metadata) -> dict[str, bytes]:
    """Metadata as Pillow has it in `Image.info`."""
    exif = HEAD + metadata.exif if metadata.exif is not None else None
    found = {"icc_profile": metadata.profile, "exif": exif, "xmp": metadata.xmp}
    return {name: data for name, data in found.items() if data is not None}


def save_options(metadata: Metadata, image_format: str) -> dict[str, Any]:
    """Metadata as options of `Image.save` for PNG, JPEG, WebP, TIFF or AVIF."""
    options: dict[str, Any] = image_info(metadata)
    if image_format == "PNG" and "xmp" in options:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode(errors="replace"))
    if image_format == "TIFF" and metadata.exif is not None:
        options["exif"] = Image.Exif()
        options["exif"].load(metadata.exif)
    return options
