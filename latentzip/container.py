"""The .lz container: signature, header, chunks. docs/format.md is the authority. Bytes only; no torch."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from itertools import accumulate
from typing import IO, Protocol

from latentzip.errors import FormatError, TruncatedError
from latentzip.tiling import Size, TilePlan, Window

SIGNATURE = b"\x89LTZ\r\n\x1a\n"
LZIP_SIGNATURE = b"LZIP"
VERSION = 1
HEADER = struct.Struct("<8sBBBBHH8s4sI")
CRC = struct.Struct("<I")
TILES = struct.Struct("<HH")  # side and overlap of the networks' tiles, in latent positions
CODE_TILE = struct.Struct("<HH")  # height and width of tiles that are coded apart, in latent positions
MAX_SIDE = 65535
MAX_QUALITY, DEFAULT_QUALITY = 100, 50
MAX_LEVEL = 255  # of a KL payload: finer than quality, so that a wanted size can be met
MAX_CHUNKS = 255  # without the scans that an INDEX lists
MAX_CHUNK_BYTES = 2**28 - 1  # four bytes of LEB128
FIRST_OPTIONAL_CHUNK = 128


class PayloadKind(IntEnum):
    """How the latent is coded. Ids are never renumbered or reused."""

    VQ_FIXED = 1
    VQ_PRIOR = 2
    KL_PRIOR = 3
    KL_ADAPTIVE = 4
    KL_HALF = 5
    VQ_COUNTED = 6


class Flag(IntFlag):
    GREYSCALE = 1
    ALPHA = 2
    TILED = 4
    DEEP = 8


class ChunkType(IntEnum):
    """What a chunk holds. Types from FIRST_OPTIONAL_CHUNK on may be passed over. Ids are never renumbered or reused."""

    SCAN = 1
    ALPHA = 2
    TILES = 3
    INDEX = 4
    ICC = 128
    EXIF = 129
    XMP = 130
    MODEL = 131


SUPPORTED_FLAGS = Flag.GREYSCALE | Flag.ALPHA | Flag.TILED
SUPPORTED_KINDS = tuple(PayloadKind)
SUPPORTED_CHUNKS = (ChunkType.SCAN, ChunkType.ALPHA, ChunkType.TILES, ChunkType.INDEX)


@dataclass(frozen=True)
class Header:
    kind: PayloadKind
    flags: Flag
    width: int
    height: int
    latent_fingerprint: bytes  # 8 bytes
    decoder_fingerprint: bytes  # 4 bytes

    @property
    def mode(self) -> str:
        """Of the decoded picture, as Pillow calls it: L, LA, RGB or RGBA."""
        return ("L" if self.flags & Flag.GREYSCALE else "RGB") + ("A" if self.flags & Flag.ALPHA else "")


@dataclass(frozen=True)
class Chunk:
    type: int
    payload: bytes


@dataclass(frozen=True)
class Index:
    """Of a latent that is coded in tiles: their size, and the lengths of all scans that follow, in bytes."""

    tile: Size  # latent positions
    lengths: tuple[int, ...]

    def around(self, window: Window, size: Size) -> Window:
        """The tiles of a latent of that size (h, w) that a window touches, all together."""
        height, width = self.tile
        out = Window(
            window.top // height * height,
            window.left // width * width,
            -(-window.bottom // height) * height,
            -(-window.right // width) * width,
        )
        return out.within(Window.whole(size))

    def pack(self) -> Chunk:
        return Chunk(ChunkType.INDEX, CODE_TILE.pack(*self.tile) + b"".join(map(_leb128, self.lengths)))

    @classmethod
    def parse(cls, payload: bytes) -> "Index":
        """Raises FormatError."""
        file, lengths = io.BytesIO(payload), []
        try:
            height, width = CODE_TILE.unpack(_take(file, CODE_TILE.size))
            while file.tell() < len(payload):
                lengths.append(_read_leb128(file)[0])
        except TruncatedError:
            raise FormatError("has an index that ends within an entry: the file is damaged") from None
        if not lengths or height == 0 or width == 0:
            raise FormatError("has an index that lists nothing: the file is damaged")
        return cls((height, width), tuple(lengths))


class Scans(Protocol):
    """The payloads of SCAN chunks, one after the other. To take one may raise FormatError."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> bytes: ...


@dataclass(frozen=True)
class Container:
    """A file's header and chunks. Scans that an INDEX lists may be missing at the end, or be read when asked for."""

    header: Header
    chunks: tuple[Chunk, ...]  # in the file's order
    late_scans: Scans | None = field(default=None, compare=False)

    @property
    def scans(self) -> Scans:
        if self.late_scans is not None:
            return self.late_scans
        return [chunk.payload for chunk in self.chunks if chunk.type == ChunkType.SCAN]

    @property
    def index(self) -> Index | None:
        """Where its latent is coded in tiles, how. Raises FormatError."""
        payload = next((chunk.payload for chunk in self.chunks if chunk.type == ChunkType.INDEX), None)
        return None if payload is None else Index.parse(payload)

    @property
    def model_name(self) -> str | None:
        """What the public model is called that encoded it, where the file says so and it can be read."""
        name = next((chunk.payload for chunk in self.chunks if chunk.type == ChunkType.MODEL), b"")
        return name.decode("ascii") if name.isascii() and name.decode("ascii").isprintable() and name else None

    @property
    def tile_plan(self) -> TilePlan | None:
        """How its networks see the picture: in tiles, or in one piece. Raises FormatError."""
        plans = [chunk.payload for chunk in self.chunks if chunk.type == ChunkType.TILES]
        if len(plans) != int(Flag.TILED in self.header.flags) or any(len(plan) != TILES.size for plan in plans):
            raise FormatError("does not say clearly how it is tiled: the file is damaged")
        return TilePlan(*TILES.unpack(plans[0])) if plans else None


def pack(container: Container) -> bytes:
    """Container -> bytes. An INDEX comes before the scans that it lists, and they are the last. Raises FormatError."""
    h = container.header
    if not (1 <= h.width <= MAX_SIDE and 1 <= h.height <= MAX_SIDE):
        raise FormatError(f"{h.width}x{h.height} pixels: a .lz file holds at most {MAX_SIDE} a side")
    types = [chunk.type for chunk in container.chunks]
    count = types.index(ChunkType.INDEX) + 1 if ChunkType.INDEX in types else len(types)
    if not 1 <= count <= MAX_CHUNKS:
        raise FormatError(f"{count} chunks: a .lz file holds 1 to {MAX_CHUNKS}")
    head = HEADER.pack(
        *(SIGNATURE, VERSION, h.kind, h.flags, count, h.width, h.height),
        *(h.latent_fingerprint, h.decoder_fingerprint, 0),
    )[: -CRC.size]
    return head + CRC.pack(zlib.crc32(head)) + b"".join(map(_pack_chunk, container.chunks))


def parse(data: bytes, *, partial: bool = False) -> Container:
    """Bytes -> container, every byte accounted for. Raises FormatError, or TruncatedError for a file cut short.

    `partial`: of a file that was cut after its header, the chunks that have arrived whole.
    """
    file = io.BytesIO(data)
    header, count = _parse_header(file.read(HEADER.size))
    chunks: list[Chunk] = []
    try:
        _read_listed(file, count, chunks)
        if chunks[-1].type == ChunkType.INDEX:
            for length in Index.parse(chunks[-1].payload).lengths:
                chunks.append(_read_scan(file, length))
    except TruncatedError:
        if not partial:
            raise
        return Container(header, tuple(chunks))
    _check_end(len(data) - file.tell())
    return Container(header, tuple(chunks))


def parse_file(file: IO[bytes]) -> Container:
    """The same of a file that can be seeked and stays open: scans that an INDEX lists are read when asked for."""
    header, count = _parse_header(file.read(HEADER.size))
    chunks: list[Chunk] = []
    _read_listed(file, count, chunks)
    scans = None
    if chunks[-1].type == ChunkType.INDEX:
        scans = _LateScans(file, Index.parse(chunks[-1].payload).lengths)
    end = file.tell() if scans is None else scans.starts[-1]
    size = file.seek(0, io.SEEK_END)
    if size < end:
        raise _cut_short(size, end)
    _check_end(size - end)
    return Container(header, tuple(chunks), scans)


def _read_listed(file: IO[bytes], count: int, chunks: list[Chunk]) -> None:
    """Append the chunks that the header counts. An INDEX is the last of them, and no scan is among them then."""
    for _ in range(count):
        if chunks and chunks[-1].type == ChunkType.INDEX:
            raise FormatError("has chunks between its index and what it lists: the file is damaged")
        chunks.append(_read_chunk(file))
    if chunks[-1].type == ChunkType.INDEX and any(chunk.type == ChunkType.SCAN for chunk in chunks):
        raise FormatError("has scans before its index: the file is damaged")


def _check_end(rest: int) -> None:
    if rest:
        raise FormatError(f"has {rest} bytes after its end: the file is damaged, or two were joined")


class _LateScans:
    """Scans of an open file, each read and checked when it is asked for."""

    def __init__(self, file: IO[bytes], lengths: tuple[int, ...]) -> None:
        self.file, self.lengths = file, lengths
        sizes = (1 + len(_leb128(length)) + length + CRC.size for length in lengths)
        self.starts = list(accumulate(sizes, initial=file.tell()))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> bytes:
        self.file.seek(self.starts[number])
        return _read_scan(self.file, self.lengths[number]).payload


def read_header(data: bytes) -> Header:
    """The header of a .lz file, of which the first 32 bytes are enough. Raises FormatError, or TruncatedError."""
    return _parse_header(data)[0]


def check_signature(data: bytes) -> None:
    """Raise FormatError for a file, of which this is all or the beginning, that is no latentzip image."""
    if data[:4] == LZIP_SIGNATURE:
        raise FormatError("this is an lzip archive, not a latentzip image: use lzip to unpack it")
    if not data:
        raise FormatError("is empty: get the file again")
    if not data.startswith(SIGNATURE[: len(data)]):
        raise FormatError("not a latentzip image (its signature is another)")


def _parse_header(data: bytes) -> tuple[Header, int]:
    check_signature(data)
    if len(data) < HEADER.size:
        raise TruncatedError(f"ends after {len(data)} bytes, within the header: get the file again")
    fields = HEADER.unpack_from(data)
    _, version, kind, flags, count, width, height, latent, decoder, checksum = fields
    if version != VERSION:
        raise FormatError(f"has format version {version}; this latentzip reads version {VERSION}: install a newer one")
    if zlib.crc32(data[: HEADER.size - CRC.size]) != checksum:
        raise FormatError("the header's checksum does not fit: the file is damaged, get it again")
    if flags & ~SUPPORTED_FLAGS or kind not in SUPPORTED_KINDS:
        raise FormatError(
            f"uses features that this latentzip does not know (payload kind {kind}, flags {flags:#04x}):"
            " install a newer one"
        )
    if width == 0 or height == 0 or count == 0:
        raise FormatError("has no pixels or no chunks: the program that wrote it is at fault")
    return Header(PayloadKind(kind), Flag(flags), width, height, latent, decoder), count


def _pack_chunk(chunk: Chunk) -> bytes:
    if len(chunk.payload) > MAX_CHUNK_BYTES:
        raise FormatError(f"a chunk of {len(chunk.payload)} bytes: a .lz file holds at most {MAX_CHUNK_BYTES} in each")
    body = bytes([chunk.type]) + _leb128(len(chunk.payload)) + chunk.payload
    return body + CRC.pack(zlib.crc32(body))


def _read_chunk(file: IO[bytes]) -> Chunk:
    start = file.tell()
    kind = _take(file, 1)
    length, coded = _read_leb128(file)
    payload = _take(file, length)
    (checksum,) = CRC.unpack(_take(file, CRC.size))
    if checksum != zlib.crc32(payload, zlib.crc32(kind + coded)):
        raise FormatError(f"the checksum of the chunk at byte {start} does not fit: the file is damaged, get it again")
    if kind[0] < FIRST_OPTIONAL_CHUNK and kind[0] not in SUPPORTED_CHUNKS:
        raise FormatError(f"has a chunk of type {kind[0]}, which this latentzip does not know: install a newer one")
    return Chunk(kind[0], payload)


def _read_scan(file: IO[bytes], length: int) -> Chunk:
    """A scan as an INDEX lists it."""
    chunk = _read_chunk(file)
    if chunk.type != ChunkType.SCAN or len(chunk.payload) != length:
        raise FormatError("has other scans than its index says: the file is damaged")
    return chunk


def _take(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _cut_short(file.tell(), file.tell() - len(data) + count)
    return data


def _cut_short(size: int, wanted: int) -> TruncatedError:
    return TruncatedError(
        f"ends after {size} bytes where at least {wanted} are needed: get the file again, or --partial"
    )


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_leb128(file: IO[bytes]) -> tuple[int, bytes]:
    """The number, and the bytes that were it."""
    number, coded = 0, b""
    for i in range(4):
        coded += _take(file, 1)
        number |= (coded[i] & 0x7F) << 7 * i
        if coded[i] < 0x80:
            if coded[i] == 0 and i > 0:
                raise FormatError("a chunk's length is not in its shortest form: the file is damaged")
            return number, coded
    raise FormatError("a chunk's length is out of range: the file is damaged")
