"""How large pictures are cut for the networks: strips for ours, overlapping tiles for public ones, by memory."""

from dataclasses import dataclass

from latentzip.container import MAX_SIDE
from latentzip.errors import LatentzipError
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import ModelConfig, PublicConfig
from latentzip.models.ldm import LdmConfig
from latentzip.tiling import LEAST_SEEN, Bounds, Size, TilePlan

# What a strip's activations take where they take most. Larger ones are slower, as they leave the caches; those of a
# very wide picture are as high as one latent position at least.
STRIP_BYTES = 16 << 20
# Public models see pictures of more than TILE_FROM pixels in tiles: their attention needs memory by the square of them.
TILE_FROM, TILE_SIDE = 1024 * 1024, 512

# Largest resident memory of the whole command, as it was measured (docs/coding.md): that of a small picture, what each
# pixel adds, what each pixel of a code tile does, and how many times its activations a strip or tile takes.
BASE_BYTES, PIXEL_BYTES, COPIES = 360 << 20, 10, 8
CODED_BYTES, MOST_CODED = 18, 3072**2


@dataclass(frozen=True)
class Cutting:
    """How a network sees a picture: in strips of so many latent positions, or by the plan in overlapping tiles."""

    strip: int
    plan: TilePlan | None


def cut_for_encoder(config: ModelConfig, size: Size, bounds: Bounds) -> Cutting:
    """size: of the picture, height and width in pixels. Raises LatentzipError where memory does not suffice."""
    if isinstance(config, AutoencoderConfig):
        return Cutting(_strip(config, size, bounds), None)
    side = bounds.tile
    if bounds.memory is not None:
        side = _affordable_side(config, size, bounds.memory)
    if side == 0 or (side is None and size[0] * size[1] <= TILE_FROM):
        return Cutting(MAX_SIDE, None)
    positions = max(LEAST_SEEN, (side or TILE_SIDE) // config.factor)
    whole = max(size) <= positions * config.factor
    return Cutting(MAX_SIDE, None if whole else TilePlan(positions, positions // 4))


def cut_for_decoder(config: ModelConfig, size: Size, plan: TilePlan | None, bounds: Bounds) -> Cutting:
    """size: of what is painted, in pixels. plan: the file's. Raises LatentzipError where memory does not suffice."""
    return Cutting(_strip(config, size, bounds) if isinstance(config, AutoencoderConfig) else MAX_SIDE, plan)


def _strip(config: AutoencoderConfig, size: Size, bounds: Bounds) -> int:
    """Height of strips of a picture of that size in pixels, in latent positions."""
    if bounds.tile is not None:
        return max(1, bounds.tile // config.factor) if bounds.tile else MAX_SIDE
    # values of a latent position: its pixels', and those of each level, which is twice as coarse as the one before
    levels: list[int] = [channels * 4**i for i, channels in enumerate(reversed(config.widths))]
    if config.detail_width:
        levels.append(config.detail_width * 4 ** len(config.widths))
    row_bytes = 4 * max(3 * config.factor**2, *levels) * -(-size[1] // config.factor)
    strip = max(1, STRIP_BYTES // row_bytes)
    if bounds.memory is None:
        return strip
    return min(strip, _left(bounds.memory, size, COPIES * row_bytes) // (COPIES * row_bytes))


def _affordable_side(config: PublicConfig, size: Size, memory: int) -> int:
    """Side in pixels of the largest tiles, up to the usual ones, that fit."""
    width = config.widths[0] if isinstance(config, LdmConfig) else config.width
    # activations at the picture's resolution, and attention between all positions of a tile
    needs = {
        side: COPIES * 4 * width * side**2 + 8 * (side // config.factor) ** 4 for side in range(64, TILE_SIDE + 1, 64)
    }
    left = _left(memory, size, needs[64])
    return max(side for side, need in needs.items() if need <= left)


def _left(memory: int, size: Size, least: int) -> int:
    """What the networks may take when the picture has its part. Raises LatentzipError for less than `least`."""
    pixels = size[0] * size[1]
    fixed = BASE_BYTES + PIXEL_BYTES * pixels + CODED_BYTES * min(pixels, MOST_CODED)
    if fixed + least > memory:
        needed = -(-(fixed + least) // 10**6)
        raise LatentzipError(
            f"takes about {needed} MB of memory, and --memory gives it {memory // 10**6}: give more, or cut the picture"
        )
    return memory - fixed
