"""Chunks as bytes: type, length (LEB128), payload, CRC-32."""

import zlib
from typing import IO

from latentzip.container.layout import CRC, FIRST_OPTIONAL_CHUNK, MAX_CHUNK_BYTES, SUPPORTED_CHUNKS, Chunk
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
        raise FormatError(f"the checksum of the chunk at byte {start} does not fit: the file is damaged, get it again")
    if kind[0] < FIRST_OPTIONAL_CHUNK and kind[0] not in SUPPORTED_CHUNKS:
        raise FormatError(f"has a chunk of type {kind[0]}, which this latentzip does not know: install a newer one")
    return Chunk(kind[0], payload)


def take(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise cut_short(file.tell(), file.tell() - len(data) + count)
    return data


def cut_short(size: int, wanted: int) -> TruncatedError:
    return TruncatedError(
        f"ends after {size} bytes where at least {wanted} are needed: get the file again, or --partial"
    )


def leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_leb128(file: IO[bytes]) -> tuple[int, bytes]:
    """The number, and the bytes that were it."""
    number, coded = 0, b""
    for i in range(4):
        coded += take(file, 1)
        number |= (coded[i] & 0x7F) << 7 * i
        if coded[i] < 0x80:
            if coded[i] == 0 and i > 0:
                raise FormatError("a chunk's length is not in its shortest form: the file is damaged")
            return number, coded
    raise FormatError("a chunk's length is out of range: the file is damaged")
