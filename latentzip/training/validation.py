"""How a model in training does on pictures that it is not trained on."""

import math

import torch
from torch import Tensor

from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder
from latentzip.training.losses import Objective

MOST_PICTURES, SIDE = 8, 384


@torch.no_grad()
def validate(
    model: Autoencoder, averages: dict[str, Tensor], pictures: list[Pixels], objective: Objective, step: int
) -> str:
    """One line of figures at a low, a middle and a high rate, with the averaged weights, on central crops."""
    if not pictures:
        return f"step {step}  no pictures are held out for validation"
    device = next(model.parameters()).device
    current = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(averages)
    model.eval()
    torch.manual_seed(0)
    parts = []
    for share in (0.2, 0.5, 1.0):
        figures = []
        for pixels in pictures[:MOST_PICTURES]:
            x = _central_crop(pixels, model.config.factor).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                out = model(x, torch.tensor([share], device=device))
                distance = objective.perceptual(out.x_hat.clamp(-1, 1), x) if objective.perceptual else x.new_zeros(1)
            error = (out.x_hat.clamp(-1, 1) - x).square().mean() * 127.5**2
            figures.append(torch.stack([out.bpp[0], error, distance[0]]).float())
        bpp, error, distance = torch.stack(figures).mean(0).tolist()
        parts.append(f"{bpp:.3f} bpp {10 * math.log10(255**2 / error):.2f} dB perceptual {distance:.3f}")
    model.load_state_dict(current)
    model.train()
    return f"step {step}  held out: " + " | ".join(parts)


def _central_crop(pixels: Pixels, factor: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) float in [-1, 1], at most SIDE a side."""
    height, width = (min(SIDE, side) // factor * factor for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    window = torch.from_numpy(pixels[top : top + height, left : left + width].copy())
    return window.permute(2, 0, 1)[None].float() / 127.5 - 1
