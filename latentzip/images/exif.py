"""Exif data without orientation and thumbnail, everything else at its place.

Camera makers' own notes point to places in the data, so it is not written anew. CIPA DC-008 (Exif 2.32) and TIFF 6.0
describe it.
"""

import struct
from collections.abc import Iterator

HEAD = b"Exif\0\0"
ORIENTATION, EXIF_DIRECTORY = 0x0112, 0x8769
WIDTH, HEIGHT = 0xA002, 0xA003
# of the second directory: where its picture is, and how many bytes
THUMBNAIL = ((0x0201, 0x0202), (0x0111, 0x0117))
LONG = 4  # a type
ENTRY, LINK = 12, 4  # bytes


def clean_exif(exif: bytes, width: int, height: int) -> bytes:
    """Exif data, with or without HEAD -> without HEAD, for an upright picture of this size. Raises ValueError."""
    data = bytearray(exif)
    while data.startswith(HEAD):
        del data[: len(HEAD)]
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(data[:4])]
        first = struct.unpack_from(order + "I", data, 4)[0]
        places = dict(_entries(data, order, first))
        if EXIF_DIRECTORY in places:
            details = struct.unpack_from(order + "I", data, places[EXIF_DIRECTORY] + 8)[0]
            for tag, place in _entries(data, order, details):
                if tag in (WIDTH, HEIGHT):
                    struct.pack_into(order + "HHII", data, place, tag, LONG, 1, width if tag == WIDTH else height)
        _remove_thumbnail(data, order, first)
        if ORIENTATION in places:
            _remove_entry(data, order, first, places[ORIENTATION])
    except (KeyError, struct.error) as error:
        raise ValueError(f"damaged Exif data ({error})") from None
    return bytes(data)


def _remove_thumbnail(data: bytearray, order: str, first: int) -> None:
    link = _end(data, order, first)
    second = struct.unpack_from(order + "I", data, link)[0]
    if not second:
        return
    struct.pack_into(order + "I", data, link, 0)
    values = {tag: struct.unpack_from(order + "I", data, place + 8)[0] for tag, place in _entries(data, order, second)}
    spans = [(second, _end(data, order, second) + LINK)]
    spans += [(values[at], values[at] + values[size]) for at, size in THUMBNAIL if at in values and size in values]
    for start, end in sorted(spans, reverse=True):  # from the end, where a thumbnail is as a rule
        if start < 8:
            raise KeyError("thumbnail")
        if end >= len(data):
            del data[start:]
        else:
            data[start:end] = bytes(end - start)


def _remove_entry(data: bytearray, order: str, directory: int, place: int) -> None:
    end = _end(data, order, directory) + LINK
    count = struct.unpack_from(order + "H", data, directory)[0]
    struct.pack_into(order + "H", data, directory, count - 1)
    data[place:end] = data[place + ENTRY : end] + bytes(ENTRY)


def _entries(data: bytearray, order: str, directory: int) -> Iterator[tuple[int, int]]:
    """(tag, where its entry is)"""
    for place in range(directory + 2, _end(data, order, directory), ENTRY):
        yield struct.unpack_from(order + "H", data, place)[0], place


def _end(data: bytearray, order: str, directory: int) -> int:
    """Where the link to the next directory is."""
    return directory + 2 + ENTRY * int(struct.unpack_from(order + "H", data, directory)[0])
