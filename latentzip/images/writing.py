"""A picture -> a file of one of the formats that people use."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentzip.errors import ImageError, UsageError
from latentzip.images.deep_png import write_deep_png
from latentzip.images.exif import clean_exif
from latentzip.images.metadata import DAMAGED, image_info, save_options
from latentzip.images.picture import Metadata, Picture
from latentzip.images.profiles import ProfileError, build_profile, parse_profile, to_srgb
from latentzip.images.tiff import write_tiff
from latentzip.images.transparency import flatten

# Options that a user of each format would expect of a picture that has been coded once already. PNG: of six decoded
# photographs level 4 took 43% of the default's time, and 1.4% more bytes (2026-11, kl-f16 -q 50).
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG2000": {},
    "BMP": {},
    "PPM": {},
}
WITH_QUALITY = ("JPEG", "WEBP", "AVIF")
WITH_16_BITS = ("PNG", "TIFF")
WITHOUT_ALPHA = ("JPEG", "BMP", "PPM")
WITHOUT_METADATA = ("JPEG2000", "BMP", "PPM")
WITHOUT_GREY = ("WEBP", "AVIF")
WHITE = (255, 255, 255)  # in whatever colours: it is the brightest that matrix and curves give


def format_of(path: Path) -> str:
    """Pillow's name of the format that a file name's suffix stands for. Raises ImageError."""
    Image.init()
    found = Image.EXTENSION.get(path.suffix.lower())
    if found not in SAVE_OPTIONS:
        raise ImageError(f"{path}: pictures are not written as '{path.suffix}': use .png, .jpg, .webp, .tiff or .avif")
    return found


def check_output_wishes(image_format: str, quality: int | None, depth: int) -> None:
    """Raise UsageError where a format has no such quality, or not so many bits a sample."""
    if quality is not None and image_format not in WITH_QUALITY:
        raise UsageError(f"--quality is for {', '.join(WITH_QUALITY)}; {image_format} loses nothing: leave it out")
    if depth == 16 and image_format not in WITH_16_BITS:
        raise UsageError(f"--bit-depth 16 is for {' and '.join(WITH_16_BITS)}, not for {image_format}")


def image_bytes(picture: Picture, image_format: str, quality: int | None = None) -> tuple[bytes, tuple[str, ...]]:
    """A picture as a file of a format that `format_of` gave, and what it could not keep, for people.

    quality: 1..100, for formats of WITH_QUALITY, instead of SAVE_OPTIONS'. Raises ImageError.
    """
    picture = _fit(picture, image_format)
    out = io.BytesIO()
    try:
        options: dict[str, Any] = save_options(picture.metadata, image_format)
        if image_format == "TIFF":
            write_tiff(out, picture, options)
        elif picture.pixels.dtype == np.uint16:
            write_deep_png(out, picture, options)
        else:
            options |= SAVE_OPTIONS[image_format]
            if quality is not None:
                options |= {"quality": quality, "lossless": False} if image_format == "WEBP" else {"quality": quality}
            _to_bare_image(picture).save(out, image_format, **options)
    except DAMAGED as error:
        raise ImageError(f"cannot be written as {image_format} ({error}): use --format png") from None
    return out.getvalue(), picture.remarks


def to_image(picture: Picture) -> Image.Image:
    """A picture of 8 bits as Pillow has it: mode L, LA, RGB or RGBA; `info` with icc_profile, exif and xmp."""
    image = _to_bare_image(picture)
    image.info.update(image_info(picture.metadata))
    return image


def _to_bare_image(picture: Picture) -> Image.Image:
    samples = picture.samples()
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _fit(picture: Picture, image_format: str) -> Picture:
    """The picture without what a format cannot hold, and remarks on it."""
    metadata, remarks = _sound(picture)
    remarks = [*picture.remarks, *remarks]
    pixels, alpha, greyscale = picture.pixels, picture.alpha, picture.greyscale
    if alpha is not None and image_format in WITHOUT_ALPHA:
        flat = flatten(_to_bare_image(replace(picture, alpha=None)), Image.fromarray(alpha), WHITE)
        pixels, alpha = np.array(flat.convert("RGB")), None
        remarks.append(f"transparency put on white: {image_format} has none")
    if image_format in WITHOUT_METADATA:
        if metadata.profile is not None:
            bare = _to_bare_image(replace(picture, pixels=pixels, alpha=None))
            with contextlib.suppress(ProfileError):
                pixels = np.array(to_srgb(bare, metadata.profile).convert("RGB"))
            remarks.append(f"colours converted to sRGB: {image_format} holds no profile")
        if metadata.exif or metadata.xmp:
            remarks.append(f"Exif and XMP left out: {image_format} holds none")
        metadata = Metadata()
    elif greyscale and metadata.profile is not None and image_format in WITHOUT_GREY:
        # such a file holds three channels, and a profile of one would be wrong
        metadata = replace(metadata, profile=build_profile(parse_profile(metadata.profile).as_rgb(), "grey as RGB"))
    return Picture(pixels, greyscale, alpha, metadata, tuple(remarks))


def _sound(picture: Picture) -> tuple[Metadata, list[str]]:
    """A picture's metadata without what is damaged, as it may be in a file of anybody's, and remarks on that."""
    metadata, remarks = picture.metadata, []
    if metadata.profile is not None:
        try:
            fits = parse_profile(metadata.profile).greyscale == picture.greyscale
        except ProfileError:
            fits = False
        if not fits:
            metadata = replace(metadata, profile=None)
            remarks.append("its colour profile is damaged and was left out")
    if metadata.exif is not None:
        try:
            height, width = picture.pixels.shape[:2]
            metadata = replace(metadata, exif=clean_exif(metadata.exif, width, height))
        except ValueError:
            metadata = replace(metadata, exif=None)
            remarks.append("its Exif data is damaged and was left out")
    return metadata, remarks
