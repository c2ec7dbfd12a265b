"""A picture of any kind that Pillow opens -> what the codec takes."""

import io
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from latentzip.errors import ImageError
from latentzip.images.bounds import TOO_MANY, check_jpeg_parts, check_size, check_tiles
from latentzip.images.claims import look, profile_of
from latentzip.images.content import HEAD, explain
from latentzip.images.jxl import JxlHeader, read_jxl_header
from latentzip.images.loading import load
from latentzip.images.metadata import take_exif, take_xmp, upright
from latentzip.images.picture import ALPHA_KEPT, Metadata, MetadataWish, Picture, Pixels
from latentzip.images.plugins import is_jxl, plugin_suffixes, register_for
from latentzip.images.png import without_texts
from latentzip.images.previews import refuse_preview
from latentzip.images.salvage import ALONE, CUT_SHORT, NO_END, shows_nothing, taking_what_is_there, with_its_end
from latentzip.images.samples import resolve_palette, to_colours, to_eight_bits, to_full_range
from latentzip.images.transparency import settle, split_alpha
from latentzip.tiling import MAX_PIXELS

# Files whose further frames are not further pictures: depth maps and previews behind a phone's JPEG; layers, of which
# Pillow shows the merged picture first.
ONE_PICTURE = ("MPO", "PSD")
PROGRAMS = ("EPS",)  # which Pillow would hand to Ghostscript to run
STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # which Pillow knows by sight, and needs another program to read
STRIP = 256  # rows that are copied at once
PHOTO_CD = "of a Photo CD the version of 768x512 alone can be read"
CUT = "truncated"  # is what Pillow says of pictures that end too early, if it can show the rest of them


def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the pictures that Pillow can read, with the packages for it that are here."""
    Image.init()
    formats = {*Image.OPEN, "MPO"} - {*PROGRAMS, *STUBS, "LATENTZIP"}  # Pillow opens MPO as JPEG
    return plugin_suffixes().union(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def read_image(
    source: Path | bytes,
    name: str | None = None,
    *,
    alpha: str = ALPHA_KEPT,
    metadata: MetadataWish = "icc",
    first_frame: bool = False,
    partial: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Read a picture file.

    alpha, metadata: see `take_image`. `first_frame`: of an animation or of several pages take the first. `partial`: of
    a file that is cut short or damaged take what is there; one such call runs at a time, as Pillow's own switch for it
    is one for all threads. Raises ImageError for a file that is missing, damaged, of a kind that cannot be kept well,
    only a preview, or with several frames, or that has more pixels than `max_pixels` (or than Pillow's own limit, where
    that is on).
    """
    label = name or ("the picture" if isinstance(source, bytes) else str(source))

    def read(data: bytes) -> Picture:
        return _read(data, label, alpha=alpha, metadata=metadata, first_frame=first_frame, max_pixels=max_pixels)

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with ALONE if partial else nullcontext():
            return _read_or_salvage(data, read, partial)
    except FileNotFoundError:
        raise ImageError(f"{label}: no such file") from None
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None
    except OSError as error:
        raise ImageError(f"{label}: cannot be read ({error.strerror or error})") from None


def take_image(
    image: Image.Image, label: str = "the picture", *, alpha: str = ALPHA_KEPT, metadata: MetadataWish = "icc"
) -> Picture:
    """Pillow's picture, as it is or as it will be once it is loaded -> pixels of 8 bits, grey or RGB, upright.

    `alpha`: "keep", "drop", or a colour, by Pillow's names, to put transparent pictures on. `metadata`: "icc" keeps
    what a colour profile of the matrix/TRC model says of colours; "all" keeps such a profile as it is, and Exif and
    XMP; "none" converts colours to sRGB. `remarks` say what else was converted. Raises ImageError, and what Pillow
    raises for damaged files.
    """
    if 0 in image.size:
        raise ImageError(f"{label}: has {image.width}x{image.height} pixels: give one that has some")
    try:
        refuse_preview(image)
        return _take(image, alpha, metadata)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None


def _read_or_salvage(data: bytes, read: Callable[[bytes], Picture], partial: bool) -> Picture:
    try:
        return read(data)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # of damaged files Pillow's forty decoders raise any kind
        reason = _reason(error)
    whole = with_its_end(data)
    if whole is not None:
        return _with_remark(read(whole), NO_END)
    if partial:
        try:
            with taking_what_is_there():
                picture = read(data)
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise ImageError(f"cannot be read, not in part either ({_reason(error)})") from None
        if shows_nothing(picture.pixels):
            raise ImageError(f"cannot be read ({reason}), and nothing that could be shown is there: get it again")
        return _with_remark(picture, CUT_SHORT)
    if CUT in reason:
        raise ImageError(f"is cut short or damaged ({reason}): get it again, or --partial takes what is there")
    raise ImageError(f"cannot be read ({reason})")


def _reason(error: Exception) -> str:
    """What decoders say, without their advice to programmers."""
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__


def _with_remark(picture: Picture, remark: str) -> Picture:
    return replace(picture, remarks=(remark, *picture.remarks))


def _read(data: bytes, name: str, *, alpha: str, metadata: MetadataWish, first_frame: bool, max_pixels: int) -> Picture:
    """Raises ImageError, which leaves the path out, and whatever Pillow raises of damaged files."""
    head = data[:HEAD]
    remarks = []
    header = None
    if is_jxl(head):
        header = _check_jxl(data, max_pixels)
        if header.compressed_metadata and metadata == "all":
            remarks.append("its compressed metadata cannot be read, and was left out")
    check_jpeg_parts(io.BytesIO(data))
    register_for(head)
    try:
        with Image.open(io.BytesIO(without_texts(data))) as image:
            if image.format in PROGRAMS:
                raise ImageError(f"{image.format} is a program that draws, not a picture: render it as PNG")
            if image.format == "LATENTZIP":
                raise ImageError(explain(head))
            check_size(image.width, image.height, max_pixels)
            check_tiles(image, max_pixels)
            refuse_preview(image, name)
            frames = 1 if image.format in ONE_PICTURE else getattr(image, "n_frames", 1)
            if frames > 1 and not first_frame:
                raise ImageError(f"has {frames} frames: give --first-frame, or extract the one you want")
            if frames > 1:
                remarks.append(f"the first of {frames} frames")
            if image.format == "PCD":
                remarks.append(PHOTO_CD)
            if header is not None:
                header.add_to(image)
            picture = _take(image, alpha, metadata)
    except UnidentifiedImageError as error:
        raise ImageError(explain(head) if "cannot identify" in str(error) else str(error)) from None
    except Image.DecompressionBombError as error:
        count = "".join(filter(str.isdigit, str(error).partition(" pixels")[0]))
        raise ImageError(f"has, or holds a picture of, {count} pixels, {TOO_MANY}: raise --max-pixels") from None
    return replace(picture, remarks=(*remarks, *picture.remarks))


def _check_jxl(data: bytes, max_pixels: int) -> JxlHeader:
    """What is to be known before it is opened, as to open it is to decode it."""
    try:
        header = read_jxl_header(io.BytesIO(data))
    except ValueError as error:
        raise ImageError(f"begins as JPEG XL does, but {error}: get it again") from None
    check_size(header.width, header.height, max_pixels)
    if header.animated:
        raise ImageError("is an animation in JPEG XL, of which no frame can be read here: save the one you want as PNG")
    return header


def _take(image: Image.Image, alpha: str, metadata: MetadataWish) -> Picture:
    said = look(image)
    remarks = [f"{said.depth}-bit samples kept as 8-bit"] if said.depth > 8 else []
    mended = load(image)
    profile, remark = profile_of(image, said)
    remarks += [remark] if remark else []
    exif, xmp = (take_exif(image), take_xmp(image)) if metadata == "all" else (None, None)
    image, legible = upright(mended)
    if not legible:
        remarks.append("its Exif data is damaged and was passed over")
    image, remark = to_eight_bits(image)
    remarks += [remark] if remark and said.depth <= 8 else []
    image, remark = resolve_palette(image, profile)
    remarks += [remark] if remark else []
    image, plane = split_alpha(image)
    if said.points and not said.points.full_range and image.mode in ("L", "RGB"):
        image = to_full_range(image)
    image, profile, remark = to_colours(image, profile, metadata)
    remarks += [remark] if remark else []
    if plane is not None:
        image, profile, plane = settle(image, plane, profile, alpha)
    return Picture(
        pixels=_to_array(image),
        greyscale=image.mode == "L",
        alpha=None if plane is None else np.array(plane),
        metadata=Metadata(profile, exif, xmp),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _to_array(image: Image.Image) -> Pixels:
    """L or RGB -> (H, W, 3) uint8, in strips, because Pillow copies a whole picture several times on this way."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        pixels[top : top + STRIP] = np.asarray(strip) if image.mode == "RGB" else np.asarray(strip)[..., None]
    return pixels
