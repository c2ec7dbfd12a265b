"""A picture of any kind that Pillow opens -> what the codec takes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from latentzip.errors import ImageError
from latentzip.images.claims import look, profile_of
from latentzip.images.loading import load
from latentzip.images.metadata import take_exif, take_xmp, upright
from latentzip.images.picture import ALPHA_KEPT, Metadata, MetadataWish, Picture, Pixels
from latentzip.images.png import without_texts
from latentzip.images.samples import resolve_palette, to_colours, to_eight_bits, to_full_range
from latentzip.images.transparency import settle, split_alpha
from latentzip.tiling import MAX_PIXELS

# Files whose further frames are not further pictures: depth maps and previews behind a phone's JPEG; layers, of which
# Pillow shows the merged picture first.
ONE_PICTURE = ("MPO", "PSD")
PROGRAMS = ("EPS",)  # which Pillow would hand to Ghostscript to run
STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # which Pillow knows by sight, and needs another program to read
STRIP = 256  # rows that are copied at once


def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the pictures that Pillow itself can read."""
    Image.init()
    formats = {*Image.OPEN, "MPO"} - {*PROGRAMS, *STUBS, "LATENTZIP"}  # Pillow opens MPO as JPEG
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def read_image(
    source: Path | bytes,
    name: str | None = None,
    *,
    alpha: str = ALPHA_KEPT,
    metadata: MetadataWish = "icc",
    first_frame: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Read a picture file.

    alpha, metadata: see `take_image`. `first_frame`: of an animation or of several pages take the first. Raises
    ImageError for a file that is missing, damaged, of a kind that cannot be kept well, or with several frames, or that
    has more pixels than `max_pixels` (or than Pillow's own limit, where that is on).
    """
    label = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        with Image.open(io.BytesIO(without_texts(data, label))) as file:
            if file.format in PROGRAMS:
                raise ImageError(f"{label}: {file.format} is a program that draws, not a picture: render it as PNG")
            if file.width * file.height > max_pixels:
                raise ImageError(
                    f"{label}: has {file.width}x{file.height} pixels, more than is safe to read of an unknown file"
                    f" (at most {max_pixels}): raise --max-pixels"
                )
            frames = 1 if file.format in ONE_PICTURE else getattr(file, "n_frames", 1)
            if frames > 1 and not first_frame:
                raise ImageError(f"{label}: has {frames} frames: give --first-frame, or extract the one you want")
            remark = (f"the first of {frames} frames",) if frames > 1 else ()
            picture = take_image(file, label, alpha=alpha, metadata=metadata)
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(f"{label}: no such file") from None
    except UnidentifiedImageError as error:
        reason = "not a picture that Pillow can read: convert it to PNG first"
        raise ImageError(f"{label}: {error if 'cannot identify' not in str(error) else reason}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: too large to open safely ({error}): cut it into parts first") from None
    except Exception as error:  # of damaged files Pillow's forty decoders raise any kind
        raise ImageError(f"{label}: cannot be read ({error or type(error).__name__})") from None
    return Picture(picture.pixels, picture.greyscale, picture.alpha, picture.metadata, remark + picture.remarks)


def guard_alone() -> None:
    """Switch Pillow's own limit off in this process, so that `max_pixels` alone says what is too large."""
    Image.MAX_IMAGE_PIXELS = None


def take_image(
    image: Image.Image, label: str = "the picture", *, alpha: str = ALPHA_KEPT, metadata: MetadataWish = "icc"
) -> Picture:
    """Pillow's picture, as it is or as it will be once it is loaded -> pixels of 8 bits, grey or RGB, upright.

    `alpha`: "keep", "drop", or a colour, by Pillow's names, to put transparent pictures on. `metadata`: "icc" keeps
    what a colour profile of the matrix/TRC model says of colours; "all" keeps such a profile as it is, and Exif and
    XMP; "none" converts colours to sRGB. `remarks` say what else was converted. Raises ImageError, and what Pillow
    raises for damaged files.
    """
    try:
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
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None
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
