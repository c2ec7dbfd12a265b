"""The .lz container: signature, header, chunks. docs/format.md is the authority. Bytes only; no torch."""

from latentzip.container.file import Container, Index, Scans
from latentzip.container.layout import (
    CRC,
    DEFAULT_QUALITY,
    FIRST_OPTIONAL_CHUNK,
    HEADER,
    LZIP_SIGNATURE,
    MAX_CHUNKS,
    MAX_LEVEL,
    MAX_QUALITY,
    MAX_SIDE,
    SIGNATURE,
    SUPPORTED_CHUNKS,
    SUPPORTED_FLAGS,
    TILES,
    Chunk,
    ChunkType,
    Flag,
    Header,
    PayloadKind,
)
from latentzip.container.reading import check_signature, parse, parse_file, read_header
from latentzip.container.writing import pack

__all__ = [
    "CRC",
    "DEFAULT_QUALITY",
    "FIRST_OPTIONAL_CHUNK",
    "HEADER",
    "LZIP_SIGNATURE",
    "MAX_CHUNKS",
    "MAX_LEVEL",
    "MAX_QUALITY",
    "MAX_SIDE",
    "SIGNATURE",
    "SUPPORTED_CHUNKS",
    "SUPPORTED_FLAGS",
    "TILES",
    "Chunk",
    "ChunkType",
    "Container",
    "Flag",
    "Header",
    "Index",
    "PayloadKind",
    "Scans",
    "check_signature",
    "pack",
    "parse",
    "parse_file",
    "read_header",
]
