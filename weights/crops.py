"""Crops beside AVIF for a card: python weights/crops.py OUT.png MODEL BPP PICTURE:X,Y [PICTURE:X,Y ...]

A row for each crop: the original, AVIF with the bytes that are nearest to the model's file, the model. Each file is of
the whole picture, at no more than BPP bits per pixel.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from latentzip.api import decode, encode
from latentzip.bench.baselines import BASELINES
from latentzip.bench.worker import nearest_setting
from latentzip.images import read_image

SIDE, SCALE, CAPTION = 160, 2, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("bpp", type=float)
    parser.add_argument("crops", nargs="+")
    arguments = parser.parse_args()
    rows = [_row(*crop.rsplit(":", 1), arguments.model, arguments.bpp) for crop in arguments.crops]
    grid = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for i, row in enumerate(rows):
        grid.paste(row, (0, i * row.height))
    grid.save(arguments.out, optimize=True)


def _row(path: str, corner: str, model: str, bpp: float) -> Image.Image:
    picture = read_image(Path(path))
    original = Image.fromarray(picture.pixels)
    ours = encode(original, bpp=bpp, model=model)
    avif = BASELINES["avif"]
    theirs = avif.encode(picture, nearest_setting(len(ours), avif.choices, lambda q: avif.encode(picture, q)))
    x, y = map(int, corner.split(","))
    row = Image.new("RGB", (3 * SIDE * SCALE, SIDE * SCALE + CAPTION), "white")
    columns = (
        (original, f"{Path(path).stem}, original"),
        (Image.fromarray(avif.decode(theirs)), f"AVIF, {len(theirs)} bytes"),
        (decode(ours), f"{model}, {len(ours)} bytes"),
    )
    for i, (image, caption) in enumerate(columns):
        crop = image.crop((x, y, x + SIDE, y + SIDE)).resize((SIDE * SCALE,) * 2, Image.Resampling.NEAREST)
        row.paste(crop, (i * SIDE * SCALE, CAPTION))
        ImageDraw.Draw(row).text((i * SIDE * SCALE + 4, 2), caption, fill="black")
    return row


if __name__ == "__main__":
    main()
