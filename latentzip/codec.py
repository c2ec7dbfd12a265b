"""The main path: a picture in, a .lz file's bytes out, and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentzip.container import (
    DEFAULT_QUALITY,
    MAX_LEVEL,
    TILES,
    Chunk,
    ChunkType,
    Container,
    Flag,
    Header,
    pack,
    parse,
)
from latentzip.errors import FormatError, ModelError
from latentzip.extras import pack_extras, parse_metadata, parse_transparency
from latentzip.images import BitDepth, Picture, Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent, VqLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.models.posterior import GaussianPosterior
from latentzip.models.quantizer import BEAM, EFFORT_BEAMS
from latentzip.models.tiled import run_tiled
from latentzip.payload import parse_payload
from latentzip.payload.kl import pack_kl
from latentzip.payload.plain import pack_adaptive, pack_half
from latentzip.payload.scans import Parsed, Payload, level_of_quality, rate_of_level, stages_of_quality
from latentzip.payload.vq import pack_vq
from latentzip.refinement import STEPS, count_tiles, refine
from latentzip.settings import Coding
from latentzip.tiling import TilePlan
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, LoadedLatent

# The networks see a picture in one piece, and memory grows with it.
MAX_PIXELS = 100_000_000
# ... but for public models, whose attention needs memory by the square of the pixels
TILE_FROM, TILE_SIDE = 1024 * 1024, 512


@dataclass(frozen=True)
class Analysed:
    """A picture after the encoder, ready to be written at any rate."""

    latent: Tensor  # (1, C, h, w) float32; of a Gaussian posterior its mode
    width: int
    height: int
    greyscale: bool
    extras: tuple[Chunk, ...] = ()  # what the picture is beside its pixels
    tiles: TilePlan | None = None  # how the encoder saw it, and the decoder is to
    beam: int = BEAM  # of a VQ model's search: how many choices of codes it keeps


def encode_image(
    picture: Picture,
    model: LoadedEncoder,
    quality: int = DEFAULT_QUALITY,
    *,
    coding: Coding = "auto",
    verify: bool = True,
) -> bytes:
    """Picture -> the bytes of a .lz file. quality: 1..100. Raises FormatError for a picture that is too large."""
    return write_latent(analyse(picture, model), model, level_for(model, quality), coding=coding, verify=verify)


@torch.inference_mode()
def analyse(picture: Picture, model: LoadedEncoder, tile: int | None = None) -> Analysed:
    """Run the encoder. Raises FormatError for a picture that is too large.

    Models of others see pictures of more than TILE_FROM pixels in tiles of `tile` pixels a side (0: never in tiles).
    """
    height, width = picture.pixels.shape[:2]
    _check_size(width, height)
    config = model.config
    x = _to_tensor(picture.pixels, config.factor)
    plan = None if isinstance(config, AutoencoderConfig) else plan_tiles(width, height, config.factor, tile)
    y = in_tiles(lambda part: model.encoder(part.to(model.device)), x, plan, config.factor, to_latent=True).float()
    if config.gives_moments:
        y = GaussianPosterior(y).mode
    return Analysed(y, width, height, picture.greyscale, pack_extras(picture), plan)


def plan_tiles(width: int, height: int, factor: int, tile: int | None) -> TilePlan | None:
    """Tiles for a picture, or None where it is seen in one piece."""
    if tile == 0 or (tile is None and width * height <= TILE_FROM):
        return None
    side = max(2, (tile or TILE_SIDE) // factor)
    plan = TilePlan(side, side // 4)
    return plan if max(width, height) > side * factor else None


def in_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, plan: TilePlan | None, factor: int, *, to_latent: bool
) -> Tensor:
    """An encoder's or a decoder's work on x (1, C, H, W), in one piece or as the plan says."""
    if plan is None:
        return network(x)
    if to_latent:
        return run_tiled(network, x, plan, (x.shape[2] // factor, x.shape[3] // factor), 1)
    return run_tiled(network, x, plan, (x.shape[2], x.shape[3]), factor)


def level_for(model: LoadedLatent, quality: int) -> int:
    """Quality 1..100 -> the level that `write_latent` takes."""
    if isinstance(model.latent, VqLatent):
        return stages_of_quality(quality, model.latent.quantizer.stages)
    return level_of_quality(quality)


def levels(model: LoadedLatent) -> range:
    """All levels of a model, from the smallest file to the best picture: a VQ model's stages, else 0..255."""
    if isinstance(model.latent, VqLatent):
        return range(1, model.latent.quantizer.stages + 1)
    return range(MAX_LEVEL + 1)


def refine_latent(
    picture: Picture, analysed: Analysed, model: Autoencoder, level: int, effort: int, report: Callable[[], None]
) -> Analysed:
    """Spend time on a smaller or better file: fit this picture's latent at this level, as a whole model can.

    effort: 0..9, 0 for nothing. KL models with a learned prior take gradient steps and call `report` after each, see
    `refinement_steps`; VQ models are only told to search longer; latents for diffusion models stay as they are.
    """
    analysed = replace(analysed, beam=EFFORT_BEAMS[effort])
    if not isinstance(model.latent, KlLatent) or not STEPS[effort]:
        return analysed
    device = next(model.parameters()).device
    x = _to_tensor(picture.pixels, model.config.factor).to(device)
    rate = rate_of_level(level).to(device)
    return replace(analysed, latent=refine(model, x, analysed.latent.clone(), rate, STEPS[effort], report))


def refinement_steps(analysed: Analysed, model: LoadedLatent, effort: int) -> int:
    """How often `refine_latent` reports."""
    if not isinstance(model.latent, KlLatent):
        return 0
    return STEPS[effort] * count_tiles(*analysed.latent.shape[2:])


@torch.inference_mode()
def write_latent(
    analysed: Analysed, model: LoadedEncoder, level: int, *, coding: Coding = "auto", verify: bool = True
) -> bytes:
    """What the encoder made -> the bytes of a .lz file.

    `coding`: "auto" quantises, "fp16" keeps a KL model's latent in half precision, whatever the level. `verify`: read
    the payload again and compare, so that no file leaves that cannot be read. Raises FormatError.
    """
    payload = _pack(analysed, model, level, coding)
    traits = {
        Flag.GREYSCALE: analysed.greyscale,
        Flag.ALPHA: any(chunk.type == ChunkType.ALPHA for chunk in analysed.extras),
        Flag.TILED: analysed.tiles is not None,
    }
    header = Header(
        kind=payload.kind,
        flags=Flag(sum(flag for flag, holds in traits.items() if holds)),
        width=analysed.width,
        height=analysed.height,
        latent_fingerprint=model.latent_fingerprint,
        decoder_fingerprint=model.decoder_fingerprint,
    )
    # what a file that is cut short can least do without comes first
    chunks = [*analysed.extras, *(Chunk(ChunkType.SCAN, scan) for scan in payload.scans)]
    if analysed.tiles is not None:
        chunks.insert(0, Chunk(ChunkType.TILES, TILES.pack(analysed.tiles.side, analysed.tiles.overlap)))
    if model.public_name is not None:
        chunks.append(Chunk(ChunkType.MODEL, model.public_name.encode()))
    container = Container(header, tuple(chunks))
    if verify and not torch.equal(read_symbols(container, model).symbols, payload.symbols):
        raise FormatError("the latent that was written is not the one that is read again: please report this")
    return pack(container)


def _pack(analysed: Analysed, model: LoadedEncoder, level: int, coding: Coding) -> Payload:
    latent, y = model.latent, analysed.latent
    if isinstance(latent, VqLatent):
        if coding == "fp16":
            raise FormatError(f"{model.name} is a VQ model, whose latents are codes: --coding fp16 needs a KL model")
        return pack_vq(latent, y.cpu(), level, analysed.beam)
    if coding == "fp16":
        return pack_half(y.cpu())
    if isinstance(latent, KlLatent):
        assert model.analysis is not None
        v = y * latent.gain(rate_of_level(level)).to(y.device)
        return pack_kl(latent, v.cpu(), model.analysis(v).cpu(), level)
    return pack_adaptive(latent, y.cpu(), level)


def decode_image(data: bytes, load: Callable[[Container], LoadedDecoder]) -> Picture:
    """The bytes of a .lz file -> picture. `load` gives the model that the file asks for.

    Raises FormatError for bytes that are not a whole, undamaged file, and ModelError for the wrong model.
    """
    container = parse(data)
    model = load(container)
    return paint(container, read_symbols(container, model), model)


@torch.inference_mode()
def read_symbols(
    container: Container, model: LoadedLatent, *, partial: bool = False, most_parts: int | None = None
) -> Parsed:
    """The symbols that a file holds. Raises FormatError or ModelError.

    `partial`: take what has arrived of a file that was cut short; `most_parts`: and no more parts than that.
    """
    header = container.header
    if header.latent_fingerprint != model.latent_fingerprint:
        raise ModelError(
            f"was encoded with another model: its latent space is {header.latent_fingerprint.hex()}, that of"
            f" {model.name} is {model.latent_fingerprint.hex()}"
        )
    _check_size(header.width, header.height)
    size = (-(-header.height // model.config.factor), -(-header.width // model.config.factor))
    scans = [chunk.payload for chunk in container.chunks if chunk.type == ChunkType.SCAN]
    return parse_payload(header.kind, model.latent, scans, size, partial=partial, most_parts=most_parts)


@torch.inference_mode()
def paint(container: Container, parsed: Parsed, model: LoadedDecoder, bit_depth: BitDepth = 8) -> Picture:
    """Run the decoder on a file's symbols, in tiles where the file says so -> pixels of 8 or 16 bits.

    Raises FormatError.
    """
    header, rate = container.header, parsed.rate.to(model.device)
    plan = container.tile_plan
    alpha, metadata = parse_transparency(container), parse_metadata(container)

    def network(latent: Tensor) -> Tensor:
        return model.decoder(latent.to(model.device), rate).cpu()  # type: ignore[no-any-return]

    x_hat = in_tiles(network, parsed.latent, plan, model.config.factor, to_latent=False)
    pixels = _to_pixels(x_hat, bit_depth)[: header.height, : header.width]
    return Picture(pixels, bool(header.flags & Flag.GREYSCALE), alpha, metadata)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"{width}x{height} pixels are more than this version can take ({MAX_PIXELS}): cut the picture into parts"
        )


def _to_tensor(pixels: Pixels, factor: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in [-1, 1], the edge repeated up to multiples of the factor."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.pad(x, (0, -x.shape[3] % factor, 0, -x.shape[2] % factor), mode="replicate")


def _to_pixels(x_hat: Tensor, bit_depth: BitDepth) -> Pixels:
    """(1, 3, H, W) float, about [-1, 1] -> (H, W, 3) uint8 or uint16."""
    top = 2**bit_depth - 1
    levels = ((x_hat[0].clamp(-1, 1) + 1) * (top / 2)).round().to(torch.uint8 if bit_depth == 8 else torch.uint16)
    pixels: Pixels = levels.permute(1, 2, 0).numpy()
    return pixels
