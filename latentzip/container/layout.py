"""What a .lz file is made of: signature, header, chunks, and the numbers that stand for things."""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

SIGNATURE = b"\x89LTZ\r\n\x1a\n"
LZIP_SIGNATURE = b"LZIP"
VERSION = 1
HEADER = struct.Struct("<8sBBBBHH8s4sI")
CRC = struct.Struct("<I")
TILES = struct.Struct("<HH")  # side and overlap of the networks' tiles, in latent positions
CODE_TILE = struct.Struct("<HH")  # height and width of tiles that are coded apart, in latent positions
LEAST_TILE = 32  # latent positions, one side, of tiles that a latent is cut into: smaller ones take more time to read
MAX_SIDE = 65535
MAX_QUALITY, DEFAULT_QUALITY = 100, 50
MAX_LEVEL = 255  # of a KL payload: finer than quality, so that a wanted size can be met
MAX_CHUNKS = 255  # without the scans that an INDEX lists
MAX_PARTS = 255  # of a tile's payload, each in a scan of its own
LEB128_BYTES = 4  # of a length
MAX_CHUNK_BYTES = 2 ** (7 * LEB128_BYTES) - 1
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
