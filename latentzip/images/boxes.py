"""What AVIF, HEIF and JPEG 2000 files say of their samples in their boxes, which Pillow passes over.

ISO/IEC 14496-12 describes the boxes, 23008-12 (HEIF) whose properties they are, 15444-1 those of JPEG 2000. Each byte
is looked at a few times at most, whatever a file claims.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from latentzip.images.codepoints import CodePoints

CODESTREAM = b"\xff\x4f\xff\x51"
# The longest box that is taken into memory: colours of an honest file take a few hundred bytes, and its profile 3 MB
LONGEST = 2**24
MOST_BOXES = 4096  # that no other holds; in an honest file there are a dozen
# Bytes before the boxes that these ones hold: their version and flags, a count of entries, a frame's description
HEADS = {b"meta": 4, b"stsd": 8, b"av01": 78}
TRACK = (b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")  # from an image sequence to its first frame


@dataclass(frozen=True)
class Said:
    """depth: bits a sample. profile: ICC. `enumerated`: the number of a colour space of JPEG 2000."""

    depth: int = 8
    points: CodePoints | None = None
    profile: bytes | None = None
    enumerated: int | None = None


Box = tuple[bytes, bytes]  # its kind, and what is in it


def read_heif(file: IO[bytes]) -> Said:
    """What an AVIF or HEIF file says of its main picture, or of its sequence where it has no picture of its own."""
    found = _read_boxes(file, b"meta", b"moov")
    if b"meta" in found:
        return _said(_main_properties(dict(_boxes(found[b"meta"][HEADS[b"meta"] :]))))
    boxes = found.get(b"moov", b"")
    for kind in TRACK:
        boxes = dict(_boxes(boxes)).get(kind, b"")[HEADS.get(kind, 0) :]
    return _said(_boxes(boxes))


def read_jp2(file: IO[bytes]) -> Said:
    """What a JPEG 2000 file says, with boxes or as a bare codestream."""
    file.seek(0)
    head = file.read(44)
    if head.startswith(CODESTREAM):  # its second marker, SIZ, has the depth of the first component here
        return Said(depth=(head[42] & 0x7F) + 1) if len(head) > 42 else Said()
    return _said(_boxes(_read_boxes(file, b"jp2h").get(b"jp2h", b"")))


def _said(properties: Iterable[Box]) -> Said:
    depth, points, profile, enumerated = 8, None, None, None
    for kind, data in properties:
        if kind == b"pixi":  # how many channels there are, and the bits of each
            depth = max(depth, *data[5:], 8)
        elif kind == b"av1C" and len(data) > 2 and data[2] & 0x40:
            depth = max(depth, 12 if data[2] & 0x20 else 10)
        elif kind == b"ihdr" and len(data) > 10 and data[10] & 0x7F < 38:  # more: it differs between the channels
            depth = (data[10] & 0x7F) + 1
        elif kind == b"colr" and data[:4] == b"nclx" and len(data) >= 8:
            points = points or CodePoints(*struct.unpack_from(">HH", data, 4))
        elif kind == b"colr" and data[:1] == b"\1" and len(data) >= 7:
            enumerated = enumerated or int.from_bytes(data[3:7], "big")
        elif kind == b"colr" and data[:1] in (b"\2", b"\3"):
            profile = profile or data[3:]
        elif kind == b"colr" and data[:1] == b"\5" and len(data) >= 7:
            points = points or CodePoints(*struct.unpack_from(">HH", data, 3))
    return Said(depth, points, profile, enumerated)


def _main_properties(meta: dict[bytes, bytes]) -> list[Box]:
    """The properties of the main picture: there are those of its alpha, its previews and its gain map beside them."""
    item = meta.get(b"pitm", b"")
    main = int.from_bytes(item[4:8] if item[:1] == b"\1" else item[4:6], "big")
    properties = list(_boxes(meta.get(b"iprp", b"")))
    stored = [box for kind, data in properties if kind == b"ipco" for box in _boxes(data)]
    places = [place for kind, data in properties if kind == b"ipma" for place in _places(data, main)]
    return [stored[place - 1] for place in places if 0 < place <= len(stored)]


def _places(table: bytes, main: int) -> list[int]:
    """Which of the stored properties are those of the item `main`, counted from 1."""
    file = io.BytesIO(table[8:])
    wide_items, wide_places = table[:1] not in (b"", b"\0"), bool(table[3:4] and table[3] & 1)
    for _ in range(int.from_bytes(table[4:8], "big")):
        head = file.read(5 if wide_items else 3)
        if len(head) < (5 if wide_items else 3):
            break
        entries = file.read(head[-1] * (2 if wide_places else 1))
        if int.from_bytes(head[:-1], "big") == main:
            if wide_places:
                return [place & 0x7FFF for (place,) in struct.iter_unpack(">H", entries[: len(entries) // 2 * 2])]
            return [place & 0x7F for place in entries]
    return []


def _boxes(data: bytes) -> Iterator[Box]:
    start = 0
    while len(data) - start >= 8:
        length, head = _length(data[start : start + 16], len(data) - start)
        if not head <= length <= len(data) - start:
            return
        yield data[start + 4 : start + 8], data[start + head : start + length]
        start += length


def walk(file: IO[bytes], start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its content begins, bytes of it) of the outermost boxes from `start` on, MOST_BOXES at most.

    What is cut short counts as far as it goes.
    """
    end = file.seek(0, io.SEEK_END)
    for _ in range(MOST_BOXES):
        if end - start < 8:
            return
        file.seek(start)
        first = file.read(16)
        length, head = _length(first, end - start)
        if length < head:
            return
        yield first[4:8], start + head, min(length, end - start) - head
        start += length


def _read_boxes(file: IO[bytes], *kinds: bytes) -> dict[bytes, bytes]:
    """The first box of each of these kinds, of those that no other box holds."""
    found: dict[bytes, bytes] = {}
    for kind, start, length in walk(file):
        if kind in kinds and kind not in found and length <= LONGEST:
            file.seek(start)
            found[kind] = file.read(length)
        if len(found) == len(kinds):
            break
    return found


def _length(first: bytes, rest: int) -> tuple[int, int]:
    """The first bytes of a box -> how long it is, and how much of that is its head. The last one may say 0: all."""
    length = int.from_bytes(first[:4], "big")
    if length == 1:
        return int.from_bytes(first[8:16], "big"), 16
    return length or rest, 8
