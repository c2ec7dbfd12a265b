"""TIFF of 8 or 16 bits a sample. Pillow writes no more than 8 of colours, and compressed files without their Exif."""

import zlib
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from latentzip.images.metadata import STORAGE_TAGS
from latentzip.images.picture import Picture, Pixels

ROWS = 64  # of a strip
COMPRESSION = 4  # of zlib, as for PNG
GREY, RGB = 1, 2
CHUNKY = 1
DEFLATE, HORIZONTAL_DIFFERENCES, ALPHA_UNASSOCIATED = 8, 2, 2


def write_tiff(out: IO[bytes], picture: Picture, options: dict[str, Any]) -> None:
    """Write a picture. options: those of Pillow's `save`: icc_profile, xmp, and exif as an Image.Exif."""
    samples = picture.samples()
    height, width, channels = samples.shape
    strips = [_strip(samples[top : top + ROWS]) for top in range(0, height, ROWS)]
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    _add_exif(ifd, options.get("exif") or Image.Exif())
    for tag, name in ((TiffImagePlugin.ICCPROFILE, "icc_profile"), (TiffImagePlugin.XMP, "xmp")):
        if name in options:
            ifd[tag] = options[name]
    ifd[TiffImagePlugin.IMAGEWIDTH], ifd[TiffImagePlugin.IMAGELENGTH] = width, height
    ifd[TiffImagePlugin.BITSPERSAMPLE] = (samples.dtype.itemsize * 8,) * channels
    ifd[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    ifd[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = GREY if picture.greyscale else RGB
    ifd[TiffImagePlugin.PLANAR_CONFIGURATION] = CHUNKY
    ifd[TiffImagePlugin.COMPRESSION] = DEFLATE
    ifd[TiffImagePlugin.PREDICTOR] = HORIZONTAL_DIFFERENCES
    if picture.alpha is not None:
        ifd[TiffImagePlugin.EXTRASAMPLES] = ALPHA_UNASSOCIATED
    ifd[TiffImagePlugin.ROWSPERSTRIP] = ROWS
    lengths = [len(strip) for strip in strips]
    for tag, values in (
        (TiffImagePlugin.STRIPBYTECOUNTS, lengths),
        (TiffImagePlugin.STRIPOFFSETS, [0, *np.cumsum(lengths)[:-1].tolist()]),  # Pillow adds where its directory ends
    ):
        ifd.tagtype[tag] = TiffTags.LONG
        ifd[tag] = tuple(values)
    ifd.save(out)
    out.writelines(strips)


def _add_exif(ifd: TiffImagePlugin.ImageFileDirectory_v2, exif: Image.Exif) -> None:
    for tag in set(exif) - STORAGE_TAGS:
        value = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
        if tag == ExifTags.IFD.Exif and ExifTags.IFD.Interop in value:
            value = {**value, ExifTags.IFD.Interop: exif.get_ifd(ExifTags.IFD.Interop)}
        ifd[tag] = value


def _strip(samples: Pixels) -> bytes:
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes(), COMPRESSION)
