"""A picture's own latent, made better: gradient steps on rate + distortion through the decoder and the prior.

Semi-amortised inference (Yang et al. 2020, arXiv 2006.04240): the encoder's latent is a guess for all pictures, and a
few steps from there fit it to this one. The file stays an ordinary file. Uniform noise stands in for rounding, as in
training: it did about as well as their stochastic annealing, and is simpler (docs/coding.md).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent, straight_through
from latentzip.models.pictures import to_tensor
from latentzip.models.precision import has_bfloat16
from latentzip.models.prior import CERTAIN, bits, coded_index
from latentzip.similarity import PERCEPTUAL_POWER, WINDOW, ssim

# Adam's, in quantisation steps, falling to a tenth along a cosine. docs/coding.md has what was tried.
LEARNING_RATE = 0.01
# Distortion is what models are trained with (training.losses), without the features of a network, which is not at hand
# here: 1 - SSIM stands in for them. By squared error alone the steps give up texture for bytes.
LAMBDA_FACTOR = 1.5
SSIM_WEIGHT = 1.5
# By effort 0..9; docs/coding.md has what they bring.
STEPS = (0, 5, 10, 20, 40, 60, 100, 160, 250, 500)
# Latent positions, one side: what is refined at once, and how much of its surroundings is looked at. They bound memory.
TILE, HALO = 48, 4


class Distortion:
    """What errors weigh against bits per pixel."""

    def __init__(self, lambdas: tuple[float, float], rate: float) -> None:
        """lambdas: the model's, at rates 0 and 1; rate: in [0, 1]."""
        low, high = lambdas
        self.of_squares = LAMBDA_FACTOR * low * (high / low) ** rate
        self.of_structure = SSIM_WEIGHT * (high / low) ** (PERCEPTUAL_POWER * (rate - 0.5))

    def of(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """(1, 3, H, W) float in [-1, 1] twice -> scalar. Where SSIM's window does not fit, by squared error alone."""
        total: Tensor = self.of_squares * (x_hat - x).square().mean() * 127.5**2
        if min(x.shape[2:]) >= WINDOW:
            total = total + self.of_structure * (1 - ssim(x_hat, x).mean())
        return total


@dataclass(frozen=True)
class _Tile:
    """Latent positions to refine, and those with their surroundings: (top, left, bottom, right)."""

    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]


def count_tiles(height: int, width: int) -> int:
    """Of a latent (h, w): refinement takes steps on each."""
    return -(-height // TILE) * -(-width // TILE)


def refine(
    model: Autoencoder, pixels: Pixels, latent: Tensor, rate: Tensor, steps: int, report: Callable[[], None]
) -> Tensor:
    """latent: (1, C, h, w) float32 on the CPU, what the encoder made of pixels (H, W, 3) uint8; rate: (1,) in [0, 1].

    Returns a latent of the same shape. Calls `report` after every step of every tile. The prior is the float one, not
    the exact one that codes, and products are in bfloat16 where the device has it: estimates are enough here.
    """
    assert isinstance(model.latent, KlLatent)
    gain = model.latent.gain(rate).cpu()
    v = latent * gain
    factor = model.config.factor
    distortion = Distortion(model.config.lambdas, float(rate))
    for tile in _tiles(latent.shape[2], latent.shape[3]):
        top, left, bottom, right = tile.outer
        part = to_tensor(pixels[top * factor : bottom * factor, left * factor : right * factor], factor)
        start = v[:, :, top:bottom, left:right].to(rate.device)
        refined = _refine_tile(model, part.to(rate.device), start, tile, rate, distortion, steps, report)
        v[:, :, top:bottom, left:right] = refined.cpu()
    return v / gain


def _refine_tile(
    model: Autoencoder,
    x: Tensor,
    start: Tensor,
    tile: _Tile,
    rate: Tensor,
    distortion: Distortion,
    steps: int,
    report: Callable[[], None],
) -> Tensor:
    """x, start: the tile with its surroundings, which count in the loss and stay as they are."""
    moves = torch.zeros(start.shape[2:], dtype=start.dtype, device=start.device)
    offset = (tile.inner[0] - tile.outer[0], tile.inner[1] - tile.outer[1])
    rows, columns = tile.inner[2] - tile.inner[0], tile.inner[3] - tile.inner[1]
    moves[offset[0] : offset[0] + rows, offset[1] : offset[1] + columns] = 1
    v = start.clone().requires_grad_()
    adam = _Adam(v)
    generator = torch.Generator().manual_seed(0)
    pixels = x.shape[2] * x.shape[3]
    in_bfloat16 = has_bfloat16(v.device)
    for step in range(steps):
        progress = step / steps
        learning_rate = LEARNING_RATE * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        with torch.enable_grad(), torch.autocast(v.device.type, torch.bfloat16, enabled=in_bfloat16):
            total, x_hat = _forward(model, v, rate, generator)
            (gradient,) = torch.autograd.grad(total / pixels + distortion.of(x_hat, x), v)
        adam.step(gradient * moves, learning_rate)
        report()
    return v.detach()


class _Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) for one tensor.

    torch's own would import torch's compiler, which takes longer than the steps of a small picture.
    """

    DECAYS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, values: Tensor) -> None:
        self.values, self.mean, self.square = values, torch.zeros_like(values), torch.zeros_like(values)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Change the values in place. gradient: of their shape."""
        self.steps += 1
        first, second = self.DECAYS
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = (self.square.sqrt() / math.sqrt(1 - second**self.steps)).add_(self.EPSILON)
        self.values.addcdiv_(self.mean, spread, value=-learning_rate / (1 - first**self.steps))


def _forward(model: Autoencoder, v: Tensor, rate: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """v: (1, C, h, w) in steps -> bits in all, reconstruction (1, 3, H, W), with noise for rounding."""
    assert isinstance(model.latent, KlLatent)
    prior = model.latent.prior
    noise = torch.rand(v.shape, generator=generator, dtype=v.dtype).to(v.device) - 0.5
    parts = (model.analysis(v).float(), *torch.split(v + noise, list(model.config.prior_groups), 1))
    total = v.new_zeros(())

    def code(part: int, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        nonlocal total
        mean, index = mean.float(), index.float()
        symbols = parts[part] - mean
        if part == 0:  # the hyperlatent's are few, and far from noise: rounded, with the gradient of the identity
            symbols = straight_through(symbols, torch.round(symbols))
        coded = coded_index(index) > CERTAIN
        symbols = torch.where(coded, symbols, 0.0)
        total = total + (bits(symbols, 0.0, index) * (mask & coded)).sum()
        return mean + symbols

    values = prior.sweep(rate, (v.shape[2], v.shape[3]), code)
    return total, model.decoder(values / model.latent.gain(rate), rate).float()


def _tiles(height: int, width: int) -> Iterator[_Tile]:
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            inner = (top, left, min(height, top + TILE), min(width, left + TILE))
            outer = (
                max(0, inner[0] - HALO),
                max(0, inner[1] - HALO),
                min(height, inner[2] + HALO),
                min(width, inner[3] + HALO),
            )
            yield _Tile(inner, outer)
