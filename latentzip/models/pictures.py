"""Pictures through an encoder, and latents through a decoder, in bounded memory.

Networks of our own see a picture strip by strip, which changes nothing (`models.strips`). Public ones look at the whole
picture: large ones they see in overlapping tiles, which are blended (`models.tiled`).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from latentzip.images.picture import BitDepth, Pixels
from latentzip.models.cutting import Cutting
from latentzip.models.finite import check_finite
from latentzip.models.lite import LiteDecoder, LiteEncoder
from latentzip.models.noise import Place
from latentzip.models.tiled import run_tiled
from latentzip.tiling import Size, TilePlan, Window


@torch.inference_mode()
def encode_pixels(encoder: nn.Module, pixels: Pixels, factor: int, device: torch.device, cutting: Cutting) -> Tensor:
    """Pixels (H, W, 3) uint8 -> latent or moments (1, C, ceil(H/f), ceil(W/f)) float32 on the CPU."""
    size = (-(-pixels.shape[0] // factor), -(-pixels.shape[1] // factor))
    if not isinstance(encoder, LiteEncoder):
        padded = torch.from_numpy(_padded(pixels, factor)).permute(2, 0, 1)[None]

        def network(part: Tensor) -> Tensor:
            return encoder(_to_float(part).to(device))  # type: ignore[no-any-return]

        if cutting.plan is None:
            return network(padded).float().cpu()
        return run_tiled(network, padded, cutting.plan, Window.whole(size), size, 1)
    rows, latent, done = encoder.rows(), torch.empty(0), 0
    for top in range(0, size[0], cutting.strip):
        bottom = top + cutting.strip
        part = _padded(pixels[top * factor : bottom * factor], factor)
        x = _to_float(torch.from_numpy(part).permute(2, 0, 1)[None])
        out = rows.feed(x.to(device), last=bottom >= size[0])
        if top == 0:
            latent = torch.empty(1, *size, out.shape[1], dtype=torch.float32).permute(0, 3, 1, 2)
        latent[:, :, done : done + out.shape[2]] = out
        done += out.shape[2]
    return latent


@torch.inference_mode()
def decode_latent(
    decoder: nn.Module,
    latent: Callable[[Window], Tensor],
    rate: Tensor,
    size: Size,
    window: Window,
    factor: int,
    device: torch.device,
    cutting: Cutting,
    bit_depth: BitDepth = 8,
    noise: float = 1.0,
    name: str = "the model",
) -> Pixels:
    """A latent -> what it shows of a window, given in positions: (f rows, f columns, 3) uint8 or uint16.

    latent: gives a part (1, C, rows, columns) float32 of it; only what lies in `seen_from(window)` is asked for. size:
    of the whole latent (h, w). rate: (1,) in [0, 1]. noise: how much of theirs decoders of our own use. Raises
    ModelError, with the model's name, for a decoder that gives values that are not finite.
    """
    seen = seen_from(window, decoder, size, cutting.plan)
    wanted = window.relative_to(seen).times(factor)
    rate = rate.to(device)
    if not isinstance(decoder, LiteDecoder):

        def network(part: Tensor) -> Tensor:
            return decoder(part.to(device), rate)  # type: ignore[no-any-return]

        if cutting.plan is None:
            x_hat = network(latent(seen)).float().cpu()
        else:
            x_hat = run_tiled(network, latent(seen), cutting.plan, window, size, factor)
        x_hat = x_hat[(..., *wanted.slices)]
        check_finite(x_hat, f"the decoder of {name}")
        return _to_pixels(x_hat, bit_depth)
    pixels = np.empty((*wanted.size, 3), np.uint8 if bit_depth == 8 else np.uint16)
    rows, done = decoder.rows(rate, Place(seen.top, seen.left, noise)), 0
    for top in range(seen.top, seen.bottom, cutting.strip):
        bottom = min(top + cutting.strip, seen.bottom)
        part = latent(Window(top, seen.left, bottom, seen.right)).contiguous(memory_format=torch.channels_last)
        out = rows.feed(part.to(device), last=bottom == seen.bottom)
        there = Window(done, 0, done + out.shape[2], out.shape[3])
        visible = there.within(wanted)
        if visible.area:
            x_hat = out[(..., *visible.relative_to(there).slices)].cpu()
            check_finite(x_hat, f"the decoder of {name}")
            pixels[visible.relative_to(wanted).slices] = _to_pixels(x_hat, bit_depth)
        done = there.bottom
    return pixels


def seen_from(window: Window, decoder: nn.Module, size: Size, plan: TilePlan | None) -> Window:
    """What the pixels of a window depend on, both given in positions of a latent of that size (h, w)."""
    whole = Window.whole(size)
    if isinstance(decoder, LiteDecoder):
        return window.grown(decoder.reach).within(whole)
    return whole if plan is None else plan.around(window, size)


def to_tensor(pixels: Pixels, factor: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in [-1, 1], the edge repeated up to multiples of the factor."""
    return _to_float(torch.from_numpy(_padded(pixels, factor)).permute(2, 0, 1)[None])


def _padded(pixels: Pixels, factor: int) -> Pixels:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")


def _to_float(levels: Tensor) -> Tensor:
    return levels.float().div_(127.5).sub_(1)


def _to_pixels(x_hat: Tensor, bit_depth: BitDepth) -> Pixels:
    """(1, 3, H, W) float, about [-1, 1] -> (H, W, 3) uint8 or uint16."""
    levels = x_hat[0].clamp(-1, 1).add_(1).mul_((2**bit_depth - 1) / 2).round_()
    pixels: Pixels = levels.to(torch.uint8 if bit_depth == 8 else torch.uint16).permute(1, 2, 0).numpy()
    return pixels
