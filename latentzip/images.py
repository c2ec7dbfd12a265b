"""Pictures: Pillow on one side, (H, W, 3) uint8 arrays on the other."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from latentzip.errors import ImageError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """Pixels (H, W, 3) uint8 in sRGB, upright. `greyscale`: the three channels are equal by construction."""

    pixels: Pixels
    greyscale: bool


def read_image(source: Path | bytes, name: str | None = None, background: str | None = None) -> Picture:
    """Read a picture as 8-bit sRGB.

    Orientation is applied, an ICC profile is converted to sRGB, 16-bit grey becomes 8-bit. `background` is a colour, by
    Pillow's names, to put transparent pictures on. Raises ImageError for a file that is missing or damaged, has more
    than one frame, or, without a background, has transparency that would be lost.
    """
    label = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            frames = getattr(file, "n_frames", 1)
            # a phone's JPEG may carry a depth map or a preview behind the picture (MPO); the picture comes first
            if frames > 1 and file.format != "MPO":
                raise ImageError(f"{label}: has {frames} frames: extract the one you want first")
            file.load()
            image = ImageOps.exif_transpose(file)
            if background is not None and image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
            return _to_picture(image, label)
    except FileNotFoundError:
        raise ImageError(f"{label}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{label}: not a picture that Pillow can read: convert it to PNG first") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: too large to open safely ({error}): cut it into parts first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{label}: cannot be read ({error or type(error).__name__})") from None


def _to_picture(image: Image.Image, label: str) -> Picture:
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise ImageError(
                f"{label}: has transparency, which this version cannot store and will not drop: put the picture on a"
                " background first"
            )
        image = image.convert("RGBA").convert("RGB") if image.mode not in ("LA", "La") else image.convert("L")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{label}: has {image.mode}-mode (32-bit) samples, which have no fixed range: save it as 8 bit"
        )
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(grey.astype(np.uint8))
    image = _to_srgb(image)
    greyscale = image.mode in ("1", "L")
    return Picture(np.array(image.convert("RGB")), greyscale)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours as sRGB has them, where a usable profile says what the samples mean; otherwise taken as sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "LAB"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a damaged profile says nothing
        return image
    assert converted is not None
    return converted


# Options that a user of each format would expect of a picture that has been coded once already.
SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG2000": {},
    "BMP": {},
    "PPM": {},
}


def format_of(path: Path) -> str:
    """Pillow's name of the format that a file name's suffix stands for. Raises ImageError."""
    Image.init()
    found = Image.EXTENSION.get(path.suffix.lower())
    if found not in SAVE_OPTIONS:
        raise ImageError(f"{path}: pictures are not written as '{path.suffix}': use .png, .jpg, .webp, .tiff or .avif")
    return found


def image_bytes(picture: Picture, image_format: str) -> bytes:
    """A picture as a file of a format that `format_of` gave. Raises ImageError."""
    image = Image.fromarray(picture.pixels)
    if picture.greyscale:
        image = image.convert("L")
    out = io.BytesIO()
    try:
        image.save(out, image_format, **SAVE_OPTIONS[image_format])
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be written as {image_format} ({error}): use --format png") from None
    return out.getvalue()
