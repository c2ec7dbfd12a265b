"""The .lz container: signature, header, chunks. docs/format.md is the authority. Bytes only; no torch."""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from latentzip.errors import FormatError, TruncatedError
from latentzip.tiling import TilePlan

SIGNATURE = b"\x89LTZ\r\n\x1a\n"
LZIP_SIGNATURE = b"LZIP"
VERSION = 1
HEADER = struct.Struct("<8sBBBBHH8s4sI")
CRC = struct.Struct("<I")
TILES = struct.Struct("<HH")  # side and overlap of tiles, in latent positions
MAX_SIDE = 65535
MAX_QUALITY, DEFAULT_QUALITY = 100, 50
MAX_LEVEL = 255  # of a KL payload: finer than quality, so that a wanted size can be met
MAX_CHUNKS = 255
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
    ICC = 128
    EXIF = 129
    XMP = 130
    MODEL = 131


SUPPORTED_FLAGS = Flag.GREYSCALE | Flag.ALPHA | Flag.TILED
SUPPORTED_KINDS = tuple(PayloadKind)
SUPPORTED_CHUNKS = (ChunkType.SCAN, ChunkType.ALPHA, ChunkType.TILES)


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
class Container:
    header: Header
    chunks: tuple[Chunk, ...]

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
    """Container -> bytes. Raises FormatError for what the format cannot hold."""
    h = container.header
    if not (1 <= h.width <= MAX_SIDE and 1 <= h.height <= MAX_SIDE):
        raise FormatError(f"{h.width}x{h.height} pixels: a .lz file holds at most {MAX_SIDE} a side")
    if not 1 <= len(container.chunks) <= MAX_CHUNKS:
        raise FormatError(f"{len(container.chunks)} chunks: a .lz file holds 1 to {MAX_CHUNKS}")
    head = HEADER.pack(
        *(SIGNATURE, VERSION, h.kind, h.flags, len(container.chunks), h.width, h.height),
        *(h.latent_fingerprint, h.decoder_fingerprint, 0),
    )[: -CRC.size]
    return head + CRC.pack(zlib.crc32(head)) + b"".join(map(_pack_chunk, container.chunks))


def parse(data: bytes, *, partial: bool = False) -> Container:
    """Bytes -> container, every byte accounted for. Raises FormatError, or TruncatedError for a file cut short.

    `partial`: of a file that was cut after its header, the chunks that have arrived whole.
    """
    header, count = _parse_header(data)
    chunks: list[Chunk] = []
    offset = HEADER.size
    for _ in range(count):
        try:
            chunk, offset = _parse_chunk(data, offset)
        except TruncatedError:
            if not partial:
                raise
            return Container(header, tuple(chunks))
        chunks.append(chunk)
    if offset != len(data):
        raise FormatError(f"has {len(data) - offset} bytes after its end: the file is damaged, or two were joined")
    return Container(header, tuple(chunks))


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


def _parse_chunk(data: bytes, start: int) -> tuple[Chunk, int]:
    """The chunk that begins at `start`, and where the next one does."""
    length, offset = _parse_leb128(data, start + 1)
    end = offset + length + CRC.size
    if end > len(data):
        raise TruncatedError(
            f"ends after {len(data)} bytes where at least {end} are needed: get the file again, or --partial"
        )
    body = data[start : offset + length]
    if CRC.unpack_from(data, offset + length)[0] != zlib.crc32(body):
        raise FormatError(f"the checksum at byte {offset + length} does not fit: the file is damaged, get it again")
    kind = data[start]
    if kind < FIRST_OPTIONAL_CHUNK and kind not in SUPPORTED_CHUNKS:
        raise FormatError(f"has a chunk of type {kind}, which this latentzip does not know: install a newer one")
    return Chunk(kind, data[offset : offset + length]), end


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _parse_leb128(data: bytes, offset: int) -> tuple[int, int]:
    number = 0
    for i in range(4):
        if offset + i >= len(data):
            raise TruncatedError(f"ends after {len(data)} bytes, within a chunk's head: get the file again")
        byte = data[offset + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise FormatError("a chunk's length is not in its shortest form: the file is damaged")
            return number, offset + i + 1
    raise FormatError("a chunk's length is out of range: the file is damaged")
