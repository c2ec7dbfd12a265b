"""PNG of 16 bits a sample, which Pillow writes of grey pictures only: the samples are ours, the rest is Pillow's."""

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from latentzip.images.picture import Picture, Pixels

ROWS = 64  # that are worked on at once
COMPRESSION = 2  # the low bytes of 16 are near to noise: more effort finds nothing
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
FILTER_UP = 2


def write_deep_png(out: IO[bytes], picture: Picture, options: dict[str, Any]) -> None:
    """Write a picture of uint16 pixels. options: those of Pillow's `save`, for what is not pixels."""
    samples = picture.samples()
    height, width, channels = samples.shape
    out.write(b"\x89PNG\r\n\x1a\n")
    for name, data, _ in PngImagePlugin.getchunks(Image.new("L", (1, 1)), **options):
        if name == b"IHDR":
            data = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
        for part in _data(samples) if name == b"IDAT" else [data]:
            PngImagePlugin.putchunk(out, name, part)


def _data(samples: Pixels) -> Iterator[bytes]:
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
