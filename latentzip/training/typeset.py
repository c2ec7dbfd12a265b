"""Type on some crops, and exactly where: small letters are where a decoder that paints texture does the most harm.

Lines of made-up words, set in the fonts at hand, lie on the crop as it is or on a panel of one colour.
"""

import functools
import importlib.util
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from latentzip.images import Pixels

SIZES = (9, 40)  # pixels of a line
# roughly as often as they come in English
LETTERS = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnssssssrrrrrrhhhhhllllddddccccuuummmffppggwwyybbvkxjqz"
OTHERS = string.ascii_uppercase + string.digits + ".,:;!?()-/%&@+"
MARGIN = 5  # side of the filter that widens the mask, so that the edges of letters are in it
PANEL = 0.5  # of the crops with type


@dataclass(frozen=True)
class Typeset:
    """What is laid over a crop: colours (H, W, 3) with a coverage (H, W), both uint8, and where there is type."""

    crop: int  # its number in the batch
    colours: Pixels
    coverage: Pixels
    mask: NDArray[np.bool_]  # (H, W)

    def over(self, pixels: Pixels) -> Pixels:
        alpha = self.coverage[..., None] / 255.0
        mixed: Pixels = (pixels * (1 - alpha) + self.colours * alpha).round().astype(np.uint8)
        return mixed


def typeset_at(step: int, batch: int, side: int, seed: int, share: float) -> list[Typeset]:
    """The type of a batch, on about `share` of its crops: a pure function of its arguments."""
    rng = np.random.default_rng([seed, step, 7])
    return [_typeset(crop, side, rng) for crop in range(batch) if rng.random() < share]


def masks_of(type_on: list[Typeset], batch: int, side: int) -> Tensor | None:
    """Where a batch has type: (B, 1, side, side) float, 1 there. None where no crop has any."""
    if not type_on:
        return None
    masks = torch.zeros(batch, 1, side, side)
    for typeset in type_on:
        masks[typeset.crop, 0] = torch.from_numpy(typeset.mask.astype(np.float32))
    return masks


def _typeset(crop: int, side: int, rng: np.random.Generator) -> Typeset:
    font = _font(int(rng.integers(len(_files()) + 1)), int(rng.integers(*SIZES)))
    coverage = Image.new("L", (side, side))
    draw = ImageDraw.Draw(coverage)
    left, top = (int(v) for v in rng.integers(-side // 8, side // 3, 2))
    height = sum(font.getmetrics()) + int(rng.integers(0, 6))
    for line in range(int(rng.integers(1, 9))):
        words = " ".join(_word(rng) for _ in range(int(rng.integers(1, 7))))
        draw.text((left, top + line * height), words, fill=255, font=font)
    ink = np.asarray(coverage)
    mask = np.asarray(coverage.filter(ImageFilter.MaxFilter(MARGIN))) > 0
    ground, colour = _two_colours(rng)
    colours = np.broadcast_to(colour, (side, side, 3))
    if rng.random() < PANEL:
        alpha = ink[..., None] / 255.0
        colours = (ground * (1 - alpha) + colour * alpha).round().astype(np.uint8)
        ink = np.full_like(ink, 255)
    return Typeset(crop, colours, ink, mask)


def _word(rng: np.random.Generator) -> str:
    letters = "".join(rng.choice(list(LETTERS), int(rng.integers(1, 10))))
    return letters + (str(rng.choice(list(OTHERS))) if rng.random() < 0.3 else "")


def _two_colours(rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Far enough apart to be read, often black on white or the reverse."""
    if rng.random() < 0.5:
        pair = (np.full(3, 255 - rng.integers(0, 20)), np.full(3, rng.integers(0, 60)))
        pair = pair if rng.random() < 0.7 else pair[::-1]
        return pair[0].astype(np.uint8), pair[1].astype(np.uint8)
    ground = rng.integers(0, 256, 3)
    colour = np.where(ground.mean() > 127, rng.integers(0, 90, 3), rng.integers(165, 256, 3))
    return ground.astype(np.uint8), colour.astype(np.uint8)


@functools.cache
def _font(number: int, size: int) -> ImageFont.FreeTypeFont:
    if number < len(_files()):
        return ImageFont.truetype(_files()[number], size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@functools.cache
def _files() -> tuple[Path, ...]:
    """DejaVu's fonts, where matplotlib has brought them; Pillow's own is always there."""
    spec = importlib.util.find_spec("matplotlib")
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" if spec and spec.origin else None
    return tuple(sorted(folder.glob("DejaVuS*.ttf"))) if folder is not None else ()
