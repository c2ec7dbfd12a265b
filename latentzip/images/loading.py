"""Pillow's pictures loaded as their formats say they are, where it would misread them: PNG and TIFF."""

import contextlib
import ctypes
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, _imaging

from latentzip.errors import ImageError

WHITE_IS_ZERO, PALETTE, SEPARATED, YCBCR, LAB = 0, 3, 5, 6, 8
INK_SET, OTHER_INKS = 332, 2
UNSIGNED, SIGNED = 1, 2
UNCOMPRESSED, PLANES = 1, 2
# libtiff hands over samples in the order of this machine, where Pillow looks for the file's
NATIVE = {
    f"{kind}{order}{end}": f"{kind}N{end}"
    for kind, end in (("I;16", ""), ("I;16", "S"), ("I;32", "S"), ("F;32", "F"))
    for order in ("", "B")
}


def load(image: Image.Image) -> Image.Image:
    """The picture, loaded, with each sample and its transparency as its file's format says, but for the depth.

    Raises ImageError for what cannot be set right, and what Pillow raises for damaged files.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        return _load_png(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _load_tiff(image)
    image.load()
    return image


def _load_png(image: PngImagePlugin.PngImageFile) -> Image.Image:
    samples = image.tile[0].args if image.tile else None
    clear = image.info.get("transparency")
    low = _low_bytes(image) if samples == "RGB;16B" and isinstance(clear, tuple) else None
    image.load()
    if samples == "LA;16B":
        return image.convert("LA")  # Pillow makes RGBA of it
    if low is not None:
        high, colour = np.asarray(image), np.array(clear)
        hidden = ((high == colour >> 8) & (low == colour & 255)).all(axis=2)
        cut = image.copy()
        del cut.info["transparency"]
        cut.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
        return cut
    if samples in ("L;2", "L;4", "L", "RGB") and clear is not None:
        # tRNS has 16 bits, of which the lowest ones count, and Pillow leaves them as they are while it scales samples.
        # It is set right in the image itself, as a second look finds it loaded and does not know the depth.
        top = {"L;2": 3, "L;4": 15}.get(str(samples), 255)
        scaled = [(sample & top) * 255 // top for sample in (clear if isinstance(clear, tuple) else (clear,))]
        image.info["transparency"] = tuple(scaled) if isinstance(clear, tuple) else scaled[0]
    return image


def _low_bytes(image: PngImagePlugin.PngImageFile) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3): the lower halves of samples of 16 bits, of which Pillow keeps the upper ones."""
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    again = PngImagePlugin.PngImageFile(image.fp)
    again.tile = [again.tile[0]._replace(args="RGB;16L")]  # taken for the other order, the lower byte is the upper one
    low = np.asarray(again)
    image.fp.seek(place)
    return low


def _load_tiff(image: TiffImagePlugin.TiffImageFile) -> Image.Image:
    tags = image.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO)
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
    _check(image, photometric, bits)
    _choose_decoder(image, photometric, bits)
    _hush_libtiff()
    image.load()
    if image.mode.startswith("I;16") and (bits < 16 or photometric == WHITE_IS_ZERO):
        top = 2**bits - 1
        samples = (np.asarray(image).astype(np.uint32) * 65535 + top // 2) // top
        return _like(image, (65535 - samples if photometric == WHITE_IS_ZERO else samples).astype(np.uint16))
    if image.mode == "F" and photometric == WHITE_IS_ZERO:
        return _like(image, 1 - np.asarray(image))
    if photometric == PALETTE and max(tags.get(TiffImagePlugin.COLORMAP, (256,))) < 256:
        # of 8 bits instead of the 16 that TIFF wants: as libtiff does, and as Pillow would see nothing but black
        colours = np.reshape(tags[TiffImagePlugin.COLORMAP], (3, -1)).T.astype(np.uint8)
        coloured = image.copy()
        coloured.putpalette(colours.tobytes())
        return coloured
    return image


def _check(image: TiffImagePlugin.TiffImageFile, photometric: int, bits: int) -> None:
    tags = image.tag_v2
    if SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, (UNSIGNED,)) and bits < 32:
        raise ImageError("has signed samples, and nothing says which are black and white: save it with unsigned ones")
    if photometric == SEPARATED and tags.get(INK_SET, 1) == OTHER_INKS:
        raise ImageError("is of other inks than cyan, magenta, yellow and black: convert it to RGB first")
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == PLANES and image.mode in ("LA", "La", "PA", "LAB"):
        raise ImageError(f"has {image.mode} samples in planes, which Pillow misreads: save it with interleaved ones")


@cache
def _hush_libtiff() -> None:
    """Keep libtiff from writing its errors to standard error by itself, as Pillow does with its warnings.

    Where the library cannot be reached through Pillow's, its lines still appear.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _choose_decoder(image: TiffImagePlugin.TiffImageFile, photometric: int, bits: int) -> None:
    """Let libtiff read what is not compressed where Pillow's own decoder would fail, and that in the right order."""
    tags = image.tag_v2
    plain = tags.get(TiffImagePlugin.COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == PLANES
    if not image.tile:
        misread = photometric == YCBCR or (planes and (bits == 16 or tags.get(TiffImagePlugin.FILLORDER, 1) == 2))
        if plain and misread and not image.use_load_libtiff:
            raise ImageError("was loaded by Pillow, which misreads what is in it: hand it over before it is loaded")
    elif plain and (planes or (photometric == YCBCR and image.mode == "YCbCr")):
        if len(image.getbands()) == 1:
            kind = tags.get(TiffImagePlugin.SAMPLEFORMAT, (UNSIGNED,))[:1]
            _, samples = TiffImagePlugin.OPEN_INFO[tags.prefix, photometric, kind, 1, (bits,), ()]
            samples = NATIVE.get(samples, samples)
        elif photometric == YCBCR:
            image._mode, samples = "RGB", "RGBX"  # libtiff makes RGB of it
        else:
            samples = f"{image.mode};16N" if bits == 16 else image.mode
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image._tile_size), 0, (samples, False, tags.offset))]
        image.use_load_libtiff = True
    elif image.use_load_libtiff:
        tile = image.tile[0]
        assert isinstance(tile.args, tuple)
        image.tile = [tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))]


def _like(image: Image.Image, samples: np.ndarray[Any, Any]) -> Image.Image:
    made = Image.fromarray(samples)
    made.info = image.info.copy()
    return made
