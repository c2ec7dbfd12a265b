"""Container -> bytes."""

import zlib

from latentzip.container.chunks import pack_chunk
from latentzip.container.file import Container
from latentzip.container.layout import CRC, HEADER, MAX_CHUNKS, MAX_SIDE, SIGNATURE, VERSION, ChunkType
from latentzip.errors import FormatError


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
    return head + CRC.pack(zlib.crc32(head)) + b"".join(map(pack_chunk, container.chunks))
