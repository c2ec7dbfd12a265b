"""Large latents: in tiles that are coded apart, so that memory is bounded and a part of a picture can be had alone.

A tile's payload is that of a small latent. The scans of all tiles come part by part: the first ones of all tiles, then
the second ones.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from latentzip.container import LEAST_TILE, Index, PayloadKind, Scans
from latentzip.errors import FormatError
from latentzip.models.autoencoder import Latent, NormalLatent
from latentzip.payload import parse_payload
from latentzip.payload.scans import Parsed, Payload
from latentzip.tiling import Size, Window, cut

# Latent positions, one side. A tile of its own costs bytes along its edges and at its start (docs/coding.md): least
# where a prior was learned; coders that learn from the picture itself need more of it.
MOST_WITH_PRIOR, MOST_WITHOUT = 192, 512
MULTIPLE = 4  # of the hyperlatent's stride


def code_tile(size: Size, latent: Latent) -> Size:
    """Into tiles of which size an encoder cuts a latent of that size (h, w): alike, and a small one not at all."""
    tile = []
    for side in size:
        number = math.ceil(side / _most(latent))
        tile.append(min(side, math.ceil(side / number / MULTIPLE) * MULTIPLE))
    return tile[0], tile[1]


def check_tile(tile: Size, size: Size, latent: Latent) -> None:
    """Raise FormatError for tiles that an encoder does not cut a latent of that size (h, w) into.

    Large ones take memory, and small ones, of which there are many, time.
    """
    if max(tile) > _most(latent):
        raise FormatError(f"has more than {_most(latent)} latent positions a side in one tile: the file is damaged")
    if any(side < min(LEAST_TILE, whole) for side, whole in zip(tile, size, strict=True)):
        raise FormatError(f"has fewer than {LEAST_TILE} latent positions a side in each tile: the file is damaged")


def _most(latent: Latent) -> int:
    learned = not isinstance(latent, NormalLatent) and latent.prior is not None
    return MOST_WITH_PRIOR if learned else MOST_WITHOUT


def pack_tiles(tiles: list[Window], pack: Callable[[Window], list[Payload]]) -> tuple[PayloadKind, list[bytes]]:
    """The scans of a file, of the kind that is shortest in all. `pack` gives a tile's payload in every kind to try."""
    found: dict[PayloadKind, list[list[bytes]]] = {}
    for tile in tiles:
        for payload in pack(tile):
            found.setdefault(payload.kind, []).append(payload.scans)
    kind = min(found, key=lambda kind: sum(len(scan) for scans in found[kind] for scan in scans))
    return kind, [scan for part in zip(*found[kind], strict=True) for scan in part]


def parse_tiles(
    kind: PayloadKind,
    latent: Latent,
    scans: Scans,
    index: Index,
    size: Size,
    window: Window,
    *,
    partial: bool = False,
    most_parts: int | None = None,
) -> Parsed:
    """The symbols of a window of a latent of that size (h, w). No scan is taken that it does not need.

    Raises FormatError or ModelError. `partial`, `most_parts`: as `parse_payload` has them. Tiles of which nothing is
    there are zeros, or no codes at all (index -1).
    """
    count = -(-size[0] // index.tile[0]) * -(-size[1] // index.tile[1])
    each, rest = divmod(len(index.lengths), count)
    if rest:
        raise FormatError(f"has {len(index.lengths)} scans for {count} tiles: the file is damaged")
    most = min(each, most_parts or each)
    first: Parsed | None = None  # with as many parts as any other, or more
    symbols, rate = torch.empty(0), torch.ones(1)
    here = wanted = 0
    for number, tile in enumerate(cut(size, index.tile)):
        part = tile.within(window)
        if not part.area:
            continue
        wanted += 1
        numbers = range(number, most * count, count)
        there = [scans[i] for i in numbers if i < len(scans)]
        if not there and partial:
            continue
        parsed = parse_payload(kind, latent, there, tile.size, partial=partial or most < each, most_parts=most_parts)
        if first is None:
            first, rate = parsed, parsed.rate
            depth = parsed.symbols.shape[1]
            symbols = torch.full((1, depth, *window.size), parsed.nothing, dtype=parsed.symbols.dtype)
        visible = parsed.symbols[(..., *part.relative_to(tile).slices)]
        if (parsed.setting, parsed.parts[1]) != (first.setting, first.parts[1]) or visible.shape[1] > symbols.shape[1]:
            raise FormatError("has tiles of different quality: the file is damaged")
        symbols[(..., *part.relative_to(window).slices)][:, : visible.shape[1]] = visible
        rate = torch.minimum(rate, parsed.rate)
        here += parsed.parts[0]
    if first is None:
        raise FormatError("has no whole scan: nothing of the picture has arrived")
    return replace(first, symbols=symbols, rate=rate, parts=(here, wanted * first.parts[1]))
