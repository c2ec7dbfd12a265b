"""Alpha: apart from the colours, lossless, and nothing spent on colours that nobody sees."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from latentzip.errors import FormatError, UsageError
from latentzip.images.picture import ALPHA_KEPT
from latentzip.images.profiles import build_profile, from_srgb, parse_profile
from latentzip.tiling import Size, Window, cut

Plane = NDArray[np.uint8]
ALPHA_DROPPED = "drop"
# WebP ends at 16383 pixels a side, and its encoder takes about 20 bytes a pixel
TILE = 4096
# The edge of a disc takes a quarter fewer bytes than with quality 75, in the same time; method 6 takes 50 times as long
EFFORT = {"quality": 100, "method": 4}
RIFF_HEADER, VP8L_HEADER = 12, 13


def check_alpha_wish(wish: str) -> None:
    """Raise UsageError for what is neither "keep" nor "drop" nor a colour to put transparent pictures on."""
    if wish not in (ALPHA_KEPT, ALPHA_DROPPED):
        try:
            ImageColor.getrgb(wish)
        except ValueError:
            raise UsageError(f"--alpha {wish}: give keep, drop, or a colour, as white or #ff8800") from None


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """A picture without a palette -> its colours, and its alpha (mode L), or None where it is opaque."""
    if not image.has_transparency_data:
        return image, None
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:  # of a picture that had 16 bits
        image = image.copy()
        image.info["transparency"] = tuple(sample >> 8 for sample in clear)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("1", "L"):
        image = image.convert("LA")
    elif image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    alpha = image.getchannel("A")
    colours = image.getchannel("L") if image.mode == "LA" else image.convert("RGB")
    colours.info.pop("transparency", None)
    return colours, None if alpha.getextrema() == (255, 255) else alpha


def settle(
    image: Image.Image, alpha: Image.Image, profile: bytes | None, wish: str
) -> tuple[Image.Image, bytes | None, Image.Image | None]:
    """Colours (L or RGB), alpha, and the profile of the colours (None: sRGB) -> the same, as somebody wishes it.

    `wish`: "keep", "drop" or a colour to put the picture on. Colours of fully transparent pixels that are kept are
    replaced by what costs least, see `fill_hidden`.
    """
    if wish == ALPHA_KEPT:
        return fill_hidden(image, alpha), profile, alpha
    if wish == ALPHA_DROPPED:
        return image, profile, None
    background: tuple[int, ...] = ImageColor.getrgb(wish)[:3]
    if image.mode == "L" and len(set(background)) > 1:
        image = image.convert("RGB")
        if profile is not None:
            profile = build_profile(parse_profile(profile).as_rgb(), "grey as RGB")
    if profile is not None:
        background = from_srgb(background, profile)
    return flatten(image, alpha, background), profile, None


def flatten(image: Image.Image, alpha: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """Colours (L or RGB) and alpha (L) -> the picture on a background, of one sample or three of the picture's own."""
    paper = Image.new(image.mode, image.size, background if image.mode == "RGB" else background[0])
    paper.paste(image, None, alpha)
    return paper


def fill_hidden(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Let the visible colours run out into what is fully transparent, so that there are no edges to code there.

    By a pyramid: each level is half the one above, made of its visible pixels alone, and fills the holes of the one
    above. image: L or RGB. Returns the same mode.
    """
    if alpha.getextrema()[0]:
        return image
    visible = alpha.point([0] + [255] * 255)
    if visible.getbbox() is None:
        return Image.new(image.mode, image.size, 128 if image.mode == "L" else (128, 128, 128))
    levels = [image.copy()]
    levels[0].putalpha(visible)
    while levels[-1].getchannel("A").getextrema()[0] == 0:
        smaller = levels[-1].reduce(2)  # weighs colours with their alpha
        smaller.putalpha(smaller.getchannel("A").point([0] + [255] * 255))
        levels.append(smaller)
    filled = levels.pop()
    while levels:
        level = levels.pop()
        larger = filled.resize(level.size, Image.Resampling.BILINEAR)
        larger.paste(level, None, level.getchannel("A"))
        filled = larger
    return filled.convert(image.mode)


def pack_alpha(alpha: Plane) -> bytes:
    """(H, W) uint8 -> one byte where all are the same, else a lossless WebP file for each tile, in rows."""
    if alpha.min() == alpha.max():
        return bytes([int(alpha[0, 0])])
    return b"".join(_pack_tile(alpha[tile.slices]) for tile in cut((alpha.shape[0], alpha.shape[1]), (TILE, TILE)))


def parse_alpha(data: bytes, size: Size, window: Window | None = None) -> Plane:
    """Inverse of `pack_alpha`, of a plane of that size (H, W) or of a window of it: no tile is decoded beside that.

    Raises FormatError before memory is taken for what is not of this size.
    """
    window = window or Window.whole(size)
    if len(data) == 1:
        return np.full(window.size, data[0], np.uint8)
    alpha = np.empty(window.size, np.uint8)
    offset = 0
    for tile in cut(size, (TILE, TILE)):
        end = offset + 8 + int.from_bytes(data[offset + 4 : offset + 8], "little")
        _check_head(data[offset : offset + RIFF_HEADER + VP8L_HEADER], tile.size)
        part = tile.within(window)
        if part.area:
            plane = _parse_tile(data[offset:end], tile.size)
            alpha[part.relative_to(window).slices] = plane[part.relative_to(tile).slices]
        offset = end
    if offset != len(data):
        raise FormatError("its alpha has another length than it says: the file is damaged")
    return alpha


def _pack_tile(alpha: Plane) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha)).save(out, "WEBP", lossless=True, **EFFORT)
    return out.getvalue()


def _check_head(head: bytes, size: Size) -> None:
    sides = int.from_bytes(head[RIFF_HEADER + 9 :], "little")
    said = (sides >> 14 & 0x3FFF) + 1, (sides & 0x3FFF) + 1
    if head[8:16] != b"WEBPVP8L" or head[RIFF_HEADER + 8 : RIFF_HEADER + 9] != b"\x2f" or said != size:
        raise FormatError(f"its alpha is not a lossless WebP of {size[1]}x{size[0]} pixels: the file is damaged")


def _parse_tile(data: bytes, size: Size) -> Plane:
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            plane: Plane = np.asarray(image.getchannel("G"))
    except (OSError, SyntaxError, ValueError) as error:
        raise FormatError(f"its alpha cannot be read ({error}): the file is damaged") from None
    if plane.shape != size:
        raise FormatError("its alpha has another size than the picture: the file is damaged")
    return plane
