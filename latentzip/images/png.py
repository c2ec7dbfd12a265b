"""Chunks of PNG (third edition) that Pillow passes over, and those that it chokes on."""

import io
import zlib
from collections.abc import Iterator
from typing import IO

from PIL import PngImagePlugin

from latentzip.errors import ImageError
from latentzip.images.codepoints import CodePoints

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP_HEAD = b"XML:com.adobe.xmp\0"
HARMLESS = 1000  # bytes of text, which unpack to less than 1.1 MB, as deflate reaches 1 : 1032 at most


def code_points(file: IO[bytes]) -> CodePoints | None:
    """What a cICP chunk says of colours. It goes before all the others that say something of them."""
    for kind, start, length in _chunks(file):
        if kind == b"IDAT":
            return None
        if kind == b"cICP" and length >= 4:
            file.seek(start)
            primaries, transfer, _, full_range = file.read(4)
            return CodePoints(primaries, transfer, full_range != 0)
    return None


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts, for the sake of which Pillow refuses pictures, and which are never kept but for XMP.

    What is no PNG, or has few texts, stays as it is. Raises ImageError for a profile that Pillow does not unpack.
    """
    if not data.startswith(SIGNATURE):
        return data
    chunks = list(_chunks(io.BytesIO(data)))
    for _, start, length in (chunk for chunk in chunks if chunk[0] == b"iCCP"):
        if not _unpacks(data[start : start + length].partition(b"\0")[2][1:]):
            raise ImageError("has a colour profile of more than 1 MB: convert it to sRGB first")
    texts = [(start, length) for kind, start, length in chunks if kind in TEXTS]
    if sum(length for _, length in texts) <= HARMLESS:
        return data
    kept, end = [], 0
    for start, length in texts:
        if not _is_xmp(data[start : start + length]):
            kept.append(data[end : start - 8])
            end = start + length + 4
    return b"".join((*kept, data[end:]))


def _is_xmp(text: bytes) -> bool:
    """Whether a text is an XMP packet that Pillow will read."""
    if not text.startswith(XMP_HEAD):
        return False
    packed, rest = text[len(XMP_HEAD) : len(XMP_HEAD) + 1], text[len(XMP_HEAD) + 2 :]
    return packed == b"\0" or _unpacks(rest.split(b"\0", 2)[-1])


def _unpacks(packed: bytes) -> bool:
    """Whether Pillow will unpack this, or take it for damaged, but not refuse the picture because of its length."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return True
    return not stream.unconsumed_tail


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of what is in each chunk, as far as the file goes."""
    end, start = file.seek(0, io.SEEK_END), len(SIGNATURE)
    while end - start >= 12:
        file.seek(start)
        head = file.read(8)
        length = int.from_bytes(head[:4], "big")
        if length > end - start - 12:
            return
        yield head[4:], start + 8, length
        start += length + 12
