"""Large latents: in tiles that are coded apart, so that memory is bounded and a part of a picture can be had alone.

A tile's payload is that of a small latent. The scans of all tiles come part by part: the first ones of all tiles, then
the second ones.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from latentzip.container import Index, PayloadKind, Scans
from latentzip.errors import FormatError
from latentzip.models.autoencoder import Latent, NormalLatent
from latentzip.payload import parse_payload
from latentzip.payload.scans import Parsed, Payload
from latentzip.tiling import Size, Window, cut

# Latent positions, one side. A tile of its own costs bytes along its edges and at its start (docs/coding.md): least
# where a prior was learned; coders that learn from the picture itself need more of it.
MOST_WITH_PRIOR, MOST_WITHOUT = 192, 512
MOST = 512  # that a reader takes, so that memory is bounded whatever a file says
MULTIPLE = 4  # of the hyperlatent's stride


def code_tile(size: Size, latent: Latent) -> Size:
    """Into tiles of which size an encoder cuts a latent of that size (h, w): alike, and a small one not at all."""
    learned = not isinstance(latent, NormalLatent) and latent.prior is not None
    most = MOST_WITH_PRIOR if learned else MOST_WITHOUT
    tile = []
    for side in size:
        number = math.ceil(side / most)
        tile.append(min(side, math.ceil(side / number / MULTIPLE) * MULTIPLE))
    return tile[0], tile[1]


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
    found: list[tuple[Window, Parsed]] = []
    wanted = 0
    for number, tile in enumerate(cut(size, index.tile)):
        part = tile.within(window)
        if not part.area:
            continue
        wanted += 1
        numbers = range(number, most * count, count)
        here = [scans[i] for i in numbers if i < len(scans)]
        if here or not partial:
            parsed = parse_payload(kind, latent, here, tile.size, partial=partial or most < each, most_parts=most_parts)
            visible = part.relative_to(tile).slices
            found.append((part, replace(parsed, symbols=parsed.symbols[(..., *visible)].clone())))
    return _together(found, wanted, window)


def _together(found: list[tuple[Window, Parsed]], wanted: int, window: Window) -> Parsed:
    if not found:
        raise FormatError("has no whole scan: nothing of the picture has arrived")
    first = found[0][1]
    depth = max(parsed.symbols.shape[1] for _, parsed in found)
    symbols = torch.full((1, depth, *window.size), first.nothing, dtype=first.symbols.dtype)
    for part, parsed in found:
        if (parsed.setting, parsed.parts[1]) != (first.setting, first.parts[1]):
            raise FormatError("has tiles of different quality: the file is damaged")
        symbols[(..., *part.relative_to(window).slices)][:, : parsed.symbols.shape[1]] = parsed.symbols
    here = sum(parsed.parts[0] for _, parsed in found)
    rate = torch.stack([parsed.rate for _, parsed in found]).amin(0)
    return replace(first, symbols=symbols, rate=rate, parts=(here, wanted * first.parts[1]))
