"""Pictures to train on: decoded once into memory, then random crops of them, every batch a function of its step."""

import queue
import threading
import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentzip.errors import LatentzipError, TrainingError
from latentzip.images import Pixels, read_image
from latentzip.training.typeset import typeset_at

HELD_OUT = 32  # one picture in so many is kept for validation, chosen by the checksum of its name
# Of all crops. Photographs hardly have grounds of one colour; a model that has never seen any spends bits on them.
DRAWN = 0.04


@dataclass
class Pictures:
    """Decoded pictures, each (H, W, 3) uint8, and the files that could not be used with the reason."""

    train: list[Pixels] = field(default_factory=list)
    held_out: list[Pixels] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def load_pictures(folder: Path, crop: int, cache_bytes: int) -> Pictures:
    """Decode every picture below `folder` whose sides are at least `crop` pixels.

    Where all together exceed `cache_bytes`, a random part of each large one is kept. Transparent pictures are put on
    white. Of two pictures and more at least one is held out.
    Raises TrainingError where the folder holds no usable picture.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: not a folder: give --data a folder with pictures")
    Image.init()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in Image.EXTENSION)
    budget = cache_bytes // max(1, len(paths))

    def load(path: Path) -> Pixels | str:
        if not path.is_file():  # to open a pipe would be to wait for ever
            return "no ordinary file"
        try:
            pixels = read_image(path, alpha="white", metadata="none").pixels
        except LatentzipError as error:
            return str(error)
        if min(pixels.shape[:2]) < crop:
            return f"smaller than the crop of {crop} pixels"
        return _part(pixels, crop, budget, seed=zlib.crc32(path.name.encode()))

    pictures = Pictures()
    with ThreadPoolExecutor() as pool:
        for path, result in zip(paths, pool.map(load, paths), strict=True):
            if isinstance(result, str):
                pictures.skipped.append((path, result))
            elif zlib.crc32(path.name.encode()) % HELD_OUT == 0:
                pictures.held_out.append(result)
            else:
                pictures.train.append(result)
    if not pictures.held_out and len(pictures.train) > 1:
        pictures.held_out.append(pictures.train.pop())
    if not pictures.train:
        raise TrainingError(
            f"{folder}: no picture in it can be trained on ({len(pictures.skipped)} were skipped): it takes pictures"
            f" of at least {crop}x{crop} pixels, or a smaller --crop"
        )
    return pictures


def _part(pixels: Pixels, crop: int, budget: int, seed: int) -> Pixels:
    """At most about `budget` bytes of a picture, but never less than a crop."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, (budget / pixels.size) ** 0.5)
    if shrink == 1.0:
        return pixels
    h, w = (max(crop, int(side * shrink)) for side in (height, width))
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    return pixels[top : top + h, left : left + w].copy()


def batch_at(pictures: list[Pixels], step: int, batch: int, crop: int, seed: int, type_share: float = 0.0) -> Tensor:
    """Random crops (B, 3, crop, crop) uint8: flipped, and half of them shrunk by up to 2 with Lanczos; a few are drawn.

    type_share: of them, with type on it (see `typeset.typeset_at`).
    A pure function of its arguments, so that a resumed run sees what an uninterrupted one would have seen.
    """
    rng = np.random.default_rng([seed, step])
    areas = np.array([p.shape[0] * p.shape[1] for p in pictures], dtype=np.float64) ** 0.5
    chosen = rng.choice(len(pictures), batch, p=areas / areas.sum())
    crops = [_drawn(crop, rng) if rng.random() < DRAWN else _random_crop(pictures[i], crop, rng) for i in chosen]
    for typeset in typeset_at(step, batch, crop, seed, type_share):
        crops[typeset.crop] = typeset.over(crops[typeset.crop])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def _random_crop(pixels: Pixels, crop: int, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    side = crop
    if rng.random() < 0.5:
        side = min(height, width, int(crop * rng.uniform(1, 2)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    window = pixels[top : top + side, left : left + side]
    if side != crop:
        window = np.asarray(Image.fromarray(window).resize((crop, crop), Image.Resampling.LANCZOS))
    return window[:, ::-1] if rng.random() < 0.5 else window


def _drawn(side: int, rng: np.random.Generator) -> Pixels:
    """A ground of one colour or a slope of them, grey or not, and on some a rectangle of another."""
    channels = 1 if rng.random() < 0.5 else 3
    slope = rng.uniform(-150, 150, (2, channels)) * max(0.0, rng.uniform(-1, 1))
    along = np.arange(side)[:, None] / side
    ground = rng.uniform(0, 255, channels) + (along * slope[0])[:, None] + along * slope[1]
    if rng.random() < 0.35:
        top, left = rng.integers(0, side, 2)
        height, width = rng.integers(side // 16, side * 5 // 8, 2)
        ground[top : top + height, left : left + width] = rng.uniform(0, 255, channels)
    return np.broadcast_to(ground.round().clip(0, 255), (side, side, 3)).astype(np.uint8)


def batches(
    pictures: list[Pixels], first_step: int, batch: int, crop: int, seed: int, type_share: float = 0.0
) -> Generator[Tensor, None, None]:
    """Batches from `first_step` on, prepared a few steps ahead in a thread. Endless."""
    ready: queue.Queue[Tensor | Exception] = queue.Queue(maxsize=4)
    stop = threading.Event()

    def work() -> None:
        step = first_step
        while not stop.is_set():
            item: Tensor | Exception
            try:
                item = batch_at(pictures, step, batch, crop, seed, type_share)
            except Exception as error:  # handed to the consumer, who raises it
                item = error
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            step += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()  # a thread that still runs when the interpreter ends would abort the process
