"""The main path: a picture in, a .lz file's bytes out, and back."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentzip.container import DEFAULT_QUALITY, Chunk, ChunkType, Container, Flag, Header, PayloadKind, pack, parse
from latentzip.errors import FormatError, ModelError
from latentzip.images import Picture, Pixels
from latentzip.models.autoencoder import KlLatent, NormalLatent
from latentzip.models.posterior import GaussianPosterior
from latentzip.payload import pack_half, pack_kl, pack_vq, parse_latent, rate_of_quality
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, LoadedLatent

# The networks see a picture in one piece, and memory grows with it.
MAX_PIXELS = 100_000_000


@torch.inference_mode()
def encode_image(picture: Picture, model: LoadedEncoder, quality: int = DEFAULT_QUALITY) -> bytes:
    """Picture -> the bytes of a .lz file. quality: 1..100. Raises FormatError for a picture that is too large."""
    _check_size(picture.pixels.shape[1], picture.pixels.shape[0])
    x = _to_tensor(picture.pixels, model.config.factor)
    y = model.encoder(x.to(model.device)).float()
    if isinstance(model.latent, KlLatent):
        assert model.analysis is not None
        v = y * model.latent.gain(rate_of_quality(quality)).to(y.device)
        kind, payload = PayloadKind.KL_PRIOR, pack_kl(model.latent, v.cpu(), model.analysis(v).cpu(), quality)
    elif isinstance(model.latent, NormalLatent):
        kind, payload = PayloadKind.KL_HALF, pack_half(GaussianPosterior(y.cpu()).mode)
    else:
        kind, payload = PayloadKind.VQ_FIXED, pack_vq(model.latent, y.cpu(), quality)
    header = Header(
        kind=kind,
        flags=Flag.GREYSCALE if picture.greyscale else Flag(0),
        width=picture.pixels.shape[1],
        height=picture.pixels.shape[0],
        latent_fingerprint=model.latent_fingerprint,
        decoder_fingerprint=model.decoder_fingerprint,
    )
    return pack(Container(header, (Chunk(ChunkType.SCAN, payload),)))


@torch.inference_mode()
def decode_image(data: bytes, load: Callable[[Header], LoadedDecoder]) -> Picture:
    """The bytes of a .lz file -> picture. `load` gives the model that the header asks for.

    Raises FormatError for bytes that are not a whole, undamaged file, and ModelError for the wrong model.
    """
    container = parse(data)
    header = container.header
    model = load(header)
    latent, rate = read_latent(container, model)
    x_hat = model.decoder(latent.to(model.device), rate.to(model.device)).cpu()
    pixels = _to_pixels(x_hat)[: header.height, : header.width]
    return Picture(pixels, greyscale=bool(header.flags & Flag.GREYSCALE))


@torch.inference_mode()
def read_latent(container: Container, model: LoadedLatent) -> tuple[Tensor, Tensor]:
    """The latent (1, C, H/f, W/f) float32 that a file holds, and its rate (1,). Raises FormatError or ModelError."""
    header = container.header
    if header.latent_fingerprint != model.latent_fingerprint:
        raise ModelError(
            f"was encoded with another model: its latent space is {header.latent_fingerprint.hex()}, that of"
            f" {model.name} is {model.latent_fingerprint.hex()}"
        )
    _check_size(header.width, header.height)
    size = (-(-header.height // model.config.factor), -(-header.width // model.config.factor))
    return parse_latent(header.kind, model.latent, container.only(ChunkType.SCAN), size)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"{width}x{height} pixels are more than this version can take ({MAX_PIXELS}): cut the picture into parts"
        )


def _to_tensor(pixels: Pixels, factor: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in [-1, 1], the edge repeated up to multiples of the factor."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.pad(x, (0, -x.shape[3] % factor, 0, -x.shape[2] % factor), mode="replicate")


def _to_pixels(x_hat: Tensor) -> Pixels:
    """(1, 3, H, W) float, about [-1, 1] -> (H, W, 3) uint8."""
    levels = ((x_hat[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels: Pixels = levels.permute(1, 2, 0).numpy()
    return pixels
