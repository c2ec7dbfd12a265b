"""Bytes -> container."""

import io
import zlib
from itertools import accumulate
from typing import IO

from latentzip.container.chunks import cut_short, read_chunk, read_scan, scan_bytes
from latentzip.container.file import Container, Index
from latentzip.container.layout import (
    CRC,
    HEADER,
    LZIP_SIGNATURE,
    SIGNATURE,
    SUPPORTED_FLAGS,
    SUPPORTED_KINDS,
    VERSION,
    Chunk,
    ChunkType,
    Flag,
    Header,
    PayloadKind,
)
from latentzip.errors import FormatError, TruncatedError


def read_header(data: bytes) -> Header:
    """The header of a .lz file, of which the first 32 bytes are enough. Raises FormatError, or TruncatedError."""
    return _parse_header(data)[0]


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
            lengths = Index.parse(chunks[-1].payload, header).lengths
            if not partial:
                _check_end(len(data), file.tell() + sum(map(scan_bytes, lengths)))
            for length in lengths:
                chunks.append(read_scan(file, length))
    except TruncatedError:
        if not partial:
            raise
        return Container(header, tuple(chunks))
    _check_end(len(data), file.tell())
    return Container(header, tuple(chunks))


def parse_file(file: IO[bytes]) -> Container:
    """The same of a file that can be seeked and stays open: scans that an INDEX lists are read when asked for."""
    header, count = _parse_header(file.read(HEADER.size))
    chunks: list[Chunk] = []
    _read_listed(file, count, chunks)
    scans = None
    if chunks[-1].type == ChunkType.INDEX:
        scans = _LateScans(file, Index.parse(chunks[-1].payload, header).lengths)
    end = file.tell() if scans is None else scans.starts[-1]
    _check_end(file.seek(0, io.SEEK_END), end)
    return Container(header, tuple(chunks), scans)


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


def _read_listed(file: IO[bytes], count: int, chunks: list[Chunk]) -> None:
    """Append the chunks that the header counts. An INDEX is the last of them, and no scan is among them then."""
    for _ in range(count):
        if chunks and chunks[-1].type == ChunkType.INDEX:
            raise FormatError("has chunks between its index and what it lists: the file is damaged")
        chunks.append(read_chunk(file))
    if chunks[-1].type == ChunkType.INDEX and any(chunk.type == ChunkType.SCAN for chunk in chunks):
        raise FormatError("has scans before its index: the file is damaged")


def _check_end(size: int, end: int) -> None:
    """size: of a file, whose chunks end at byte `end`."""
    if size < end:
        raise cut_short(size, end)
    if size > end:
        raise FormatError(f"has {size - end} bytes after its end: the file is damaged, or two were joined")


class _LateScans:
    """Scans of an open file, each read and checked when it is asked for."""

    def __init__(self, file: IO[bytes], lengths: tuple[int, ...]) -> None:
        self.file, self.lengths = file, lengths
        self.starts = list(accumulate(map(scan_bytes, lengths), initial=file.tell()))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> bytes:
        self.file.seek(self.starts[number])
        return read_scan(self.file, self.lengths[number]).payload
