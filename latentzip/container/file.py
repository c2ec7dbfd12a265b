"""A whole file as it is in memory, and the index of one whose latent is coded in tiles."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from latentzip.container.chunks import leb128, parse_leb128s
from latentzip.container.layout import (
    CODE_TILE,
    LEAST_TILE,
    LEB128_BYTES,
    MAX_PARTS,
    TILES,
    Chunk,
    ChunkType,
    Flag,
    Header,
)
from latentzip.errors import FormatError
from latentzip.tiling import LEAST_SEEN, Size, TilePlan, Window


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
        return Chunk(ChunkType.INDEX, CODE_TILE.pack(*self.tile) + b"".join(map(leb128, self.lengths)))

    @classmethod
    def parse(cls, payload: bytes, header: Header) -> "Index":
        """Raises FormatError, before much is read for an INDEX that lists more than the picture's latent can have."""
        if len(payload) <= CODE_TILE.size:
            raise FormatError("has an index that lists nothing: the file is damaged")
        tile = CODE_TILE.unpack_from(payload)
        if min(tile) == 0:
            raise FormatError("has an index of tiles without a size: the file is damaged")
        # whatever the model's factor is, a latent has no more positions than the picture has pixels
        sides = zip((header.height, header.width), tile, strict=True)
        most = math.prod(-(-side // of) if of >= LEAST_TILE else 1 for side, of in sides) * MAX_PARTS
        lengths = parse_leb128s(payload[CODE_TILE.size :][: (most + 1) * LEB128_BYTES])
        if len(lengths) > most:
            raise FormatError(f"has an index of more than {most} scans, which its tiles cannot have: it is damaged")
        return cls(tile, lengths)


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

    @cached_property
    def index(self) -> Index | None:
        """Where its latent is coded in tiles, how. Raises FormatError."""
        payload = next((chunk.payload for chunk in self.chunks if chunk.type == ChunkType.INDEX), None)
        return None if payload is None else Index.parse(payload, self.header)

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
        plan = TilePlan(*TILES.unpack(plans[0])) if plans else None
        if plan is not None and plan.side < LEAST_SEEN:  # for each of them the network runs once
            raise FormatError(f"has tiles of {plan.side} positions, and they have {LEAST_SEEN} or more: it is damaged")
        return plan
