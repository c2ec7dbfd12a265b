"""Chunks as bytes: type, length (LEB128), payload, CRC-32; and those that an INDEX lists, by their lengths."""

import zlib
from typing import IO

from latentzip.container.layout import (
    CRC,
    FIRST_OPTIONAL_CHUNK,
    LEB128_BYTES,
    MAX_CHUNK_BYTES,
    SUPPORTED_CHUNKS,
    Chunk,
    ChunkType,
)
from latentzip.errors import FormatError, TruncatedError


def pack_chunk(chunk: Chunk) -> bytes:
    if len(chunk.payload) > MAX_CHUNK_BYTES:
        raise FormatError(f"a chunk of {len(chunk.payload)} bytes: a .lz file holds at most {MAX_CHUNK_BYTES} in each")
    body = bytes([chunk.type]) + leb128(len(chunk.payload)) + chunk.payload
    return body + CRC.pack(zlib.crc32(body))


def read_chunk(file: IO[bytes]) -> Chunk:
    start = file.tell()
    kind = take(file, 1)
    length, coded = read_leb128(file)
    payload = take(file, length)
    (checksum,) = CRC.unpack(take(file, CRC.size))
    if checksum != zlib.crc32(payload, zlib.crc32(kind + coded)):
        raise _wrong_checksum(start)
    if kind[0] < FIRST_OPTIONAL_CHUNK and kind[0] not in SUPPORTED_CHUNKS:
        raise FormatError(f"has a chunk of type {kind[0]}, which this latentzip does not know: install a newer one")
    return Chunk(kind[0], payload)


def scan_bytes(length: int) -> int:
    """What a scan of so many bytes takes, with all that is around it."""
    return 1 + len(leb128(length)) + length + CRC.size


def read_scan(file: IO[bytes], length: int) -> Chunk:
    """A scan as an INDEX lists it."""
    data = take(file, scan_bytes(length))
    head, body = bytes([ChunkType.SCAN]) + leb128(length), data[: -CRC.size]
    if not body.startswith(head):
        raise FormatError("has other scans than its index says: the file is damaged")
    if CRC.unpack_from(data, len(body)) != (zlib.crc32(body),):
        raise _wrong_checksum(file.tell() - len(data))
    return Chunk(ChunkType.SCAN, body[len(head) :])


def take(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise cut_short(file.tell(), file.tell() - len(data) + count)
    return data


def cut_short(size: int, wanted: int) -> TruncatedError:
    return TruncatedError(
        f"ends after {size} bytes where at least {wanted} are needed: get the file again, or --partial"
    )


def _wrong_checksum(start: int) -> FormatError:
    return FormatError(f"the checksum of the chunk at byte {start} does not fit: the file is damaged, get it again")


def leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_leb128(file: IO[bytes]) -> tuple[int, bytes]:
    """The number, and the bytes that were it."""
    coded = take(file, 1)
    while coded[-1] > 0x7F and len(coded) < LEB128_BYTES:
        coded += take(file, 1)
    return parse_leb128s(coded)[0], coded


def parse_leb128s(data: bytes) -> tuple[int, ...]:
    """Numbers one after the other. Raises FormatError."""
    numbers = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte > 0x7F:
            shift += 7
            if shift == 7 * LEB128_BYTES:
                raise FormatError("a chunk's length is out of range: the file is damaged")
            continue
        if byte == 0 and shift:
            raise FormatError("a chunk's length is not in its shortest form: the file is damaged")
        numbers.append(number)
        number = shift = 0
    if shift:
        raise FormatError("ends within a chunk's length: the file is damaged")
    return tuple(numbers)
