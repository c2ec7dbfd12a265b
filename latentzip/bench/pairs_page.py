"""Blind pairs as a page that asks and counts, or as pictures with their key beside them."""

import base64
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentzip.bench.pairs import Pair, Pairs
from latentzip.errors import OutputError
from latentzip.files import write_bytes
from latentzip.images import Pixels

ZOOM = 2  # how many times their size the crops are shown
GAP = 12  # pixels between crops in a picture
GREY = 119
KEY = "key.json"


def to_page(pairs: Pairs) -> bytes:
    """Self-contained HTML. What is on which side is in it only as base64, so that nobody reads it by accident."""
    folder = files("latentzip.bench") / "page"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    data = {
        "side": pairs.wanted.side,
        "zoom": ZOOM,
        "pairs": [[_data_uri(crop) for crop in pairs.crops(pair)] for pair in pairs.pairs],
        "key": base64.b64encode(json.dumps(key(pairs)).encode()).decode(),
    }
    page = read("pairs.html").replace("/*STYLE*/", read("style.css")).replace("/*SCRIPT*/", read("pairs.js"))
    return page.replace("/*DATA*/", json.dumps(data)).encode()


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises OutputError where `to_folder` cannot write there."""
    try:
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise OutputError(f"{folder}: is not empty: give another folder, or --force")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be used as a folder ({error.strerror}): give another place") from None
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"{folder}: the folder {folder.parent} does not exist: make it first")


def to_folder(pairs: Pairs, folder: Path, *, overwrite: bool) -> None:
    """pair-01.png and so on: left, the original, right. What was on which side is in key.json. Raises OutputError."""
    check_folder(folder, overwrite=overwrite)
    folder.mkdir(exist_ok=True)
    document = key(pairs)
    for number, pair in enumerate(pairs.pairs, 1):
        name = f"pair-{number:02}.png"
        document["pairs"][number - 1]["file"] = name
        write_bytes(folder / name, _as_png(_row(pairs.crops(pair))), overwrite=overwrite)
    write_bytes(folder / KEY, json.dumps(document, indent=2).encode(), overwrite=overwrite)


def key(pairs: Pairs) -> dict[str, Any]:
    """What the pairs are; of two, the tested codec comes first."""
    return {
        "codecs": [
            {"name": codec.name, "title": codec.title, "settings": codec.settings}
            for codec in (pairs.tested, pairs.anchor)
        ],
        "share": pairs.wanted.share,
        "seed": pairs.wanted.seed,
        "side": pairs.wanted.side,
        "zoom": ZOOM,
        "pairs": [_entry(pair) for pair in pairs.pairs],
    }


def _entry(pair: Pair) -> dict[str, Any]:
    points = (pair.tested, pair.anchor)
    names = [point.codec.name for point in points]
    left, right = names if pair.tested_left else reversed(names)
    return {
        "picture": pair.source.name,
        "x": pair.x,
        "y": pair.y,
        "rate": pair.rate,
        "left": left,
        "right": right,
        "settings": [point.codec.label(point.setting) for point in points],
        "bytes": [point.entry.bytes for point in points],
        "bpp": [round(point.bpp, 4) for point in points],
    }


def _row(crops: tuple[Pixels, Pixels, Pixels]) -> Pixels:
    parts: list[Pixels] = []
    for crop in crops:
        height, width = crop.shape[:2]
        large = np.array(Image.fromarray(crop).resize((ZOOM * width, ZOOM * height), Image.Resampling.BICUBIC))
        parts += [large, np.full((ZOOM * height, GAP, 3), GREY, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _as_png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _data_uri(pixels: Pixels) -> str:
    return f"data:image/png;base64,{base64.b64encode(_as_png(pixels)).decode()}"
