"""How a model in training does on pictures that it is not trained on."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentzip.errors import OutputError
from latentzip.files import write_atomically
from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder
from latentzip.training.losses import Objective
from latentzip.training.silence import listening

MOST_PICTURES, SIDE = 8, 384
RATES = (0.2, 0.5, 1.0)
GRID_PICTURES, GRID_SIDE = 6, 256
FOLDER = "validation"


def validate(
    model: Autoencoder, averages: dict[str, Tensor], pictures: list[Pixels], objective: Objective
) -> tuple[dict[str, Any], Pixels]:
    """Figures at three rates with the averaged weights, on central crops, and a grid of pictures.

    `score` is the objective without its adversarial part: smaller is better. `silent` is the share of hidden channels
    that do nothing (see `silence`). The grid (H, W, 3) has a row for each picture: the input, then its reconstructions,
    the lowest rate first.
    """
    device = next(model.parameters()).device
    crops = [_central_crop(pixels, model.config.factor).to(device) for pixels in pictures[:MOST_PICTURES]]
    rows = [[_corner(x)] for x in crops[:GRID_PICTURES]]
    figures = []
    with (
        _in_place_of(model, averages),
        listening(model) as listener,
        torch.no_grad(),
        objective.settings.autocast(device),
    ):
        for rate in model.config.served_rates(RATES):
            at_rate = []
            for i, x in enumerate(crops):
                t = torch.tensor([rate], device=device)
                out = model(x, t)
                score, distance = objective.score(x, out, t)
                error = (out.x_hat.clamp(-1, 1) - x).square().mean() * 127.5**2
                at_rate.append(torch.stack([out.bpp[0], error, distance[0], score[0]]).float())
                if i < GRID_PICTURES:
                    rows[i].append(_corner(out.x_hat))
            bpp, error, distance, score = torch.stack(at_rate).mean(0).tolist()
            psnr = 10 * math.log10(255**2 / max(error, 1e-9))
            figures.append({"rate": rate, "bpp": bpp, "psnr": psnr, "perceptual": distance, "score": score})
    score = sum(f["score"] for f in figures) / len(figures)
    record = {"rates": figures, "score": score, "silent": listener.silent_share}
    return record, np.concatenate([np.concatenate(row, 1) for row in rows])


def save_grid(out: Path, step: int, grid: Pixels) -> None:
    """OUT/validation/STEP.png. Raises OutputError."""
    try:
        (out / FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out / FOLDER}: cannot be made ({error.strerror}): choose another --out") from None
    path = out / FOLDER / f"{step:08d}.png"
    write_atomically(path, lambda file: Image.fromarray(grid).save(file, "PNG"), overwrite=True)


@contextlib.contextmanager
def _in_place_of(model: Autoencoder, averages: dict[str, Tensor]) -> Iterator[None]:
    """The model holds the averages for a while, and is in evaluation mode."""
    current = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(averages)
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    model.load_state_dict(current)
    model.train()


def _central_crop(pixels: Pixels, factor: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) float in [-1, 1], at most SIDE a side."""
    height, width = (min(SIDE, side) // factor * factor for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    window = torch.from_numpy(pixels[top : top + height, left : left + width].copy())
    return window.permute(2, 0, 1)[None].float() / 127.5 - 1


def _corner(x: Tensor) -> Pixels:
    """(1, 3, H, W) about [-1, 1] -> (GRID_SIDE, GRID_SIDE, 3) uint8, filled up with grey."""
    out = np.full((GRID_SIDE, GRID_SIDE, 3), 128, dtype=np.uint8)
    levels = ((x[0, :, :GRID_SIDE, :GRID_SIDE].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    tile = levels.permute(1, 2, 0).cpu().numpy()
    out[: tile.shape[0], : tile.shape[1]] = tile
    return out
