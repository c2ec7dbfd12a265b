"""PNG and TIFF of 16 bits a sample, which Pillow writes of grey pictures only: the samples ours, the rest Pillow's."""

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags

from latentzip.images.picture import Picture, Pixels

LUMA = np.array([299, 587, 114], dtype=np.uint32)  # ITU-R BT.601, in thousandths, as Pillow has it
ROWS = 64  # that are worked on at once
COMPRESSION = 2  # the low bytes of 16 are near to noise: more effort finds nothing
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by the number of channels
FILTER_UP = 2
DEFLATE, HORIZONTAL_DIFFERENCES, ALPHA_UNASSOCIATED = 8, 2, 2

Samples = NDArray[np.uint16]


def to_grey(pixels: Pixels) -> Pixels:
    """(H, W, 3) -> (H, W) of the same type."""
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    for top in range(0, len(pixels), ROWS):
        grey[top : top + ROWS] = (pixels[top : top + ROWS] @ LUMA + 500) // 1000
    return grey


def write_deep_png(out: IO[bytes], picture: Picture, options: dict[str, Any]) -> None:
    """Write a PNG of uint16 pixels. options: those of Pillow's `save`, for what is not pixels."""
    samples = _interleave(picture)
    height, width, channels = samples.shape
    out.write(b"\x89PNG\r\n\x1a\n")
    for name, data, _ in PngImagePlugin.getchunks(Image.new("L", (1, 1)), **options):
        if name == b"IHDR":
            data = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
        for part in _png_data(samples) if name == b"IDAT" else [data]:
            PngImagePlugin.putchunk(out, name, part)


def _png_data(samples: Samples) -> Iterator[bytes]:
    compress = zlib.compressobj(COMPRESSION)
    above = np.zeros((1, samples[0].size * 2), np.uint8)
    for top in range(0, len(samples), ROWS):
        part = samples[top : top + ROWS].astype(">u2")
        rows = np.concatenate((above, part.reshape(len(part), -1).view(np.uint8)))
        above = rows[-1:]
        filtered = np.full((len(part), rows.shape[1] + 1), FILTER_UP, np.uint8)
        filtered[:, 1:] = rows[1:] - rows[:-1]
        if data := compress.compress(filtered.tobytes()):
            yield data
    yield compress.flush()


def write_deep_tiff(out: IO[bytes], picture: Picture, options: dict[str, Any]) -> None:
    """Write a TIFF of uint16 pixels. options: those of Pillow's `save`, for what is not pixels."""
    samples = _interleave(picture)
    height, width, channels = samples.shape
    strips = [_tiff_strip(samples[top : top + ROWS]) for top in range(0, height, ROWS)]
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    exif = options.get("exif", {})
    for tag in exif:
        ifd[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    if "icc_profile" in options:
        ifd[TiffImagePlugin.ICCPROFILE] = options["icc_profile"]
    ifd[TiffImagePlugin.IMAGEWIDTH], ifd[TiffImagePlugin.IMAGELENGTH] = width, height
    ifd[TiffImagePlugin.BITSPERSAMPLE] = (16,) * channels
    ifd[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    ifd[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if channels < 3 else 2
    ifd[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    ifd[TiffImagePlugin.COMPRESSION] = DEFLATE
    ifd[TiffImagePlugin.PREDICTOR] = HORIZONTAL_DIFFERENCES
    if picture.alpha is not None:
        ifd[TiffImagePlugin.EXTRASAMPLES] = ALPHA_UNASSOCIATED
    ifd[TiffImagePlugin.ROWSPERSTRIP] = ROWS
    lengths = [len(strip) for strip in strips]
    for tag, values in (
        (TiffImagePlugin.STRIPBYTECOUNTS, lengths),
        (TiffImagePlugin.STRIPOFFSETS, [0, *np.cumsum(lengths)[:-1].tolist()]),  # Pillow adds its directory's length
    ):
        ifd.tagtype[tag] = TiffTags.LONG
        ifd[tag] = tuple(values)
    ifd.save(out)
    out.writelines(strips)


def _tiff_strip(samples: Samples) -> bytes:
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    return zlib.compress(differences.astype("<u2").tobytes(), COMPRESSION)


def _interleave(picture: Picture) -> Samples:
    """(H, W, C): grey or RGB, and the alpha behind it if there is one."""
    colours = to_grey(picture.pixels)[..., None] if picture.greyscale else picture.pixels
    if picture.alpha is None:
        return np.asarray(colours, dtype=np.uint16)
    return np.concatenate((colours, picture.alpha[..., None].astype(np.uint16) * 257), axis=2, dtype=np.uint16)
