"""What Python programs hand over: taken where it is natural, and else refused in a sentence. No torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentzip import container
from latentzip.container import HEADER, Header
from latentzip.errors import ImageError, LatentzipError, UsageError
from latentzip.files import open_bytes, read_bytes
from latentzip.images import MetadataWish, Picture, read_image, take_image
from latentzip.tiling import Window

# The bytes of a file, its path, or the file itself, which is read from where it stands.
Source = bytes | bytearray | memoryview | str | PathLike[str] | IO[bytes]
ImageSource = Image.Image | NDArray[np.uint8] | Source
ARRAYS = "uint8 of shape (height, width, 3), or (height, width, 4) with transparency, or (height, width) of grey"


def read_source(source: Source) -> bytes:
    """Raises LatentzipError for what cannot be read, and UsageError for what is no source."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if (path := path_of(source)) is not None:
        return read_bytes(path)
    data = source.read() if hasattr(source, "read") else None
    if not isinstance(data, bytes):
        raise UsageError(f"{shortened(source)}: give a path, bytes, or a file that is open for reading bytes")
    return data


def read_header(source: Source) -> Header:
    """The header of a .lz file, of which the first 32 bytes are enough. Raises FormatError, or TruncatedError."""
    with named(source):
        if (path := path_of(source)) is None:
            return container.read_header(read_source(source))
        with open_bytes(path) as file:
            return container.read_header(file.read(HEADER.size))


def read_picture(image: ImageSource, alpha: str, metadata: MetadataWish, *, partial: bool = False) -> Picture:
    """Pillow's image, an array, or a picture file as the command line reads it.

    `partial`: of a file that is cut short take what has arrived. Raises ImageError or UsageError.
    """
    if partial and isinstance(image, (np.ndarray, Image.Image)):
        raise UsageError("partial: is for picture files: give the path or the bytes of one")
    if isinstance(image, np.ndarray):
        image = _image_of(image)
    if isinstance(image, Image.Image):
        return take_image(image, alpha=alpha, metadata=metadata)
    path = path_of(image)
    name = None if path is None else str(path)
    return read_image(read_source(image), name, alpha=alpha, metadata=metadata, partial=partial)


def colour_or_word(alpha: str | tuple[int, ...]) -> str:
    """What stands for a wish as to transparency: (255, 136, 0) -> "#ff8800", and words as they are.

    Raises UsageError for what is neither.
    """
    if isinstance(alpha, str):
        return alpha
    is_colour = isinstance(alpha, (tuple, list)) and len(alpha) == 3
    if is_colour and all(isinstance(part, (int, np.integer)) and 0 <= part <= 255 for part in alpha):
        return "#{:02x}{:02x}{:02x}".format(*map(int, alpha))
    raise UsageError(f"alpha {shortened(alpha)}: give keep, drop, or a colour: white, #ff8800 or (255, 136, 0)")


def window_of(box: tuple[int, int, int, int] | None) -> Window | None:
    """Left, upper, right and lower, in pixels. Raises UsageError for what is no box of whole numbers."""
    if box is None:
        return None
    if not isinstance(box, (tuple, list)) or len(box) != 4 or not all(isinstance(n, (int, np.integer)) for n in box):
        raise UsageError(f"box {shortened(box)}: give left, upper, right and lower, in whole pixels")
    left, upper, right, lower = map(int, box)
    return Window(upper, left, lower, right)


def path_of(source: object) -> Path | None:
    """Raises UsageError for a path that no file can have."""
    if not isinstance(source, (str, PathLike)):
        return None
    path = os.fsdecode(source)
    if "\0" in path or not path:
        raise UsageError(f"{shortened(path)}: is no path: give a path, bytes, or a file that is open for reading bytes")
    return Path(path)


@contextmanager
def named(source: object) -> Iterator[None]:
    """Let what goes wrong begin with the path, where the source is one."""
    path = path_of(source)
    try:
        yield
    except LatentzipError as error:
        if path is None or str(error).startswith(f"{path}:"):
            raise
        raise type(error)(f"{path}: {error}") from None


def _image_of(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UsageError(f"an array of {array.dtype} and shape {array.shape}: give {ARRAYS}")
    if 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape} has no pixels")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))
