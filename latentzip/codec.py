"""The main path: a picture in, a .lz file's bytes out, and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentzip.container import (
    DEFAULT_QUALITY,
    MAX_LEVEL,
    MAX_SIDE,
    TILES,
    Chunk,
    ChunkType,
    Container,
    Flag,
    Header,
    Index,
    pack,
    parse,
)
from latentzip.errors import FormatError, ModelError
from latentzip.extras import pack_extras, parse_metadata, parse_transparency
from latentzip.images import BitDepth, Picture
from latentzip.models.autoencoder import Autoencoder, KlLatent, VqLatent
from latentzip.models.bands import blocks_around
from latentzip.models.cutting import cut_for_decoder, cut_for_encoder
from latentzip.models.finite import check_finite
from latentzip.models.pictures import decode_latent, encode_pixels, seen_from
from latentzip.models.posterior import GaussianPosterior
from latentzip.models.quantizer import BEAM, EFFORT_BEAMS
from latentzip.payload import parse_payload
from latentzip.payload.kl import pack_kl
from latentzip.payload.plain import pack_adaptive, pack_half
from latentzip.payload.scans import Parsed, Payload, level_of_quality, rate_of_level, stages_of_quality
from latentzip.payload.tiles import check_tile, code_tile, pack_tiles, parse_tiles
from latentzip.payload.vq import pack_vq
from latentzip.refinement import STEPS, count_tiles, refine
from latentzip.settings import Coding
from latentzip.tiling import MAX_PIXELS, NO_BOUNDS, Bounds, Size, TilePlan, Window, cut
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, LoadedLatent


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
def analyse(picture: Picture, model: LoadedEncoder, bounds: Bounds = NO_BOUNDS) -> Analysed:
    """Run the encoder. Raises FormatError for a picture that is too large, ModelError for what is not finite."""
    height, width = picture.pixels.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise FormatError(f"{width}x{height} pixels: a .lz file holds at most {MAX_SIDE} a side")
    config = model.config
    cutting = cut_for_encoder(config, (height, width), bounds)
    y = encode_pixels(model.encoder, picture.pixels, config.factor, model.device, cutting)
    if config.gives_moments:
        y = GaussianPosterior(y).mode
    check_finite(y, f"the encoder of {model.name}")
    return Analysed(y, width, height, picture.greyscale, pack_extras(picture), cutting.plan)


def level_for(model: LoadedLatent, quality: int) -> int:
    """Quality 1..100 -> the level that `write_latent` takes."""
    if stages := fixed_stages(model):
        return stages_of_quality(quality, stages)
    return level_of_quality(quality)


def levels(model: LoadedLatent) -> range:
    """All levels of a model, from the smallest file to the best picture: its `fixed_stages`, else 0..255."""
    if stages := fixed_stages(model):
        return range(1, stages + 1)
    return range(MAX_LEVEL + 1)


def fixed_stages(model: LoadedLatent) -> int:
    """How many stages a VQ model without a prior has, whose indices all have the same length; of other models 0."""
    latent = model.latent
    return latent.quantizer.stages if isinstance(latent, VqLatent) and latent.prior is None else 0


def search_longer(analysed: Analysed, effort: int) -> Analysed:
    """Let more choices of codes be tried when a VQ model's file is written. effort: 0..9, 0 for no more than usual."""
    return replace(analysed, beam=EFFORT_BEAMS[effort])


def refine_latent(
    picture: Picture, analysed: Analysed, model: Autoencoder, level: int, effort: int, report: Callable[[], None]
) -> Analysed:
    """Spend time on a smaller or better file: fit this picture's latent at this level by gradient steps.

    model: one whose `refinement_steps` are not 0; effort: 1..9. `report` is called after each step. Raises ModelError
    where they lead to what is not finite.
    """
    device = next(model.parameters()).device
    rate = rate_of_level(level).to(device)
    latent = refine(model, picture.pixels, analysed.latent, rate, STEPS[effort], report)
    check_finite(latent, "the model, in steps of effort,")
    return replace(analysed, latent=latent)


def refinement_steps(analysed: Analysed, model: LoadedLatent, effort: int) -> int:
    """How many steps `refine_latent` takes. Only KL models with a learned prior have any.

    The latents of others are kept, and what those of public models are fit for is all that is known of them.
    """
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
    size = (analysed.latent.shape[2], analysed.latent.shape[3])
    tile = code_tile(size, model.latent)

    def pack_tile(window: Window) -> list[Payload]:
        y = analysed.latent[(..., *window.slices)]
        payloads = _pack(y, model, level, coding, analysed.beam, split=tile != size)
        for payload in payloads if verify else []:
            again = parse_payload(payload.kind, model.latent, payload.scans, window.size)
            if not torch.equal(again.symbols, payload.symbols):
                raise FormatError("the latent that was written is not the one that is read again: please report this")
        return payloads

    kind, scans = pack_tiles(cut(size, tile), pack_tile)
    traits = {
        Flag.GREYSCALE: analysed.greyscale,
        Flag.ALPHA: any(chunk.type == ChunkType.ALPHA for chunk in analysed.extras),
        Flag.TILED: analysed.tiles is not None,
    }
    header = Header(
        kind=kind,
        flags=Flag(sum(flag for flag, holds in traits.items() if holds)),
        width=analysed.width,
        height=analysed.height,
        latent_fingerprint=model.latent_fingerprint,
        decoder_fingerprint=model.decoder_fingerprint,
    )
    chunks = [*analysed.extras]  # what a file that is cut short can least do without comes first
    if analysed.tiles is not None:
        chunks.insert(0, Chunk(ChunkType.TILES, TILES.pack(analysed.tiles.side, analysed.tiles.overlap)))
    if model.public_name is not None:
        chunks.append(Chunk(ChunkType.MODEL, model.public_name.encode()))
    if tile != size:
        chunks.append(Index(tile, tuple(map(len, scans))).pack())
    chunks += [Chunk(ChunkType.SCAN, scan) for scan in scans]
    return pack(Container(header, tuple(chunks)))


def _pack(y: Tensor, model: LoadedEncoder, level: int, coding: Coding, beam: int, *, split: bool) -> list[Payload]:
    """A latent (1, C, h, w) in each kind of payload that is worth trying."""
    latent = model.latent
    if isinstance(latent, VqLatent):
        if coding == "fp16":
            raise FormatError(f"{model.name} is a VQ model, whose latents are codes: --coding fp16 needs a KL model")
        return pack_vq(latent, y, level, beam, split=split)
    if coding == "fp16":
        return [pack_half(y)]
    if isinstance(latent, KlLatent):
        assert model.analysis is not None
        v = y * latent.gain(rate_of_level(level))
        hyperlatent = model.analysis(v.to(model.device)).cpu()
        check_finite(hyperlatent, f"the analysis of {model.name}")
        return [pack_kl(latent, v, hyperlatent, level, split=split)]
    return [pack_adaptive(latent, y, level)]


def decode_image(data: bytes, load: Callable[[Container], LoadedDecoder]) -> Picture:
    """The bytes of a .lz file -> picture. `load` gives the model that the file asks for.

    Raises FormatError for bytes that are not a whole, undamaged file, and ModelError for the wrong model.
    """
    container = parse(data)
    model = load(container)
    return paint(container, read_symbols(container, model), model)


@torch.inference_mode()
def read_symbols(
    container: Container,
    model: LoadedLatent,
    window: Window | None = None,
    *,
    partial: bool = False,
    most_parts: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Parsed:
    """The symbols that a file holds, or those of a window of its latent. Raises FormatError or ModelError.

    `partial`: take what has arrived of a file that was cut short; `most_parts`: and no more parts than that.
    `max_pixels`: refuse to read more than the latents of so many pixels.
    """
    header = container.header
    if header.latent_fingerprint != model.latent_fingerprint:
        raise ModelError(
            f"was encoded with another model: its latent space is {header.latent_fingerprint.hex()}, that of"
            f" {model.name} is {model.latent_fingerprint.hex()}"
        )
    size = latent_size(header, model)
    window = window or Window.whole(size)
    index = container.index
    pixels = header.width * header.height
    if index is not None:
        pixels = min(pixels, index.around(window, size).area * model.config.factor**2)
    if pixels > max_pixels:
        raise FormatError(
            f"has {header.width}x{header.height} pixels, more than is safe to decode of an unknown file"
            f" (at most {max_pixels}): raise --max-pixels, or decode a --region"
        )
    scans = container.scans
    if not len(scans):  # of a file that was cut short there may be no index either
        raise FormatError("has no whole scan: nothing of the picture has arrived")
    check_tile(size if index is None else index.tile, size, model.latent)
    if index is None:
        there = [scans[number] for number in range(len(scans))]
        parsed = parse_payload(header.kind, model.latent, there, size, partial=partial, most_parts=most_parts)
        return replace(parsed, symbols=parsed.symbols[(..., *window.slices)])
    return parse_tiles(header.kind, model.latent, scans, index, size, window, partial=partial, most_parts=most_parts)


def latent_window(container: Container, model: LoadedDecoder, region: Window) -> Window:
    """The part of the latent that a region of the picture, in pixels, is painted from. Raises FormatError."""
    size, picture = latent_size(container.header, model), Window(0, 0, container.header.height, container.header.width)
    if region.area == 0 or region.within(picture) != region:
        raise FormatError(f"is a picture of {picture.right}x{picture.bottom} pixels: the region does not lie within it")
    seen = seen_from(region.over(model.config.factor), model.decoder, size, container.tile_plan)
    return blocks_around(seen).within(Window.whole(size))


def latent_size(header: Header, model: LoadedLatent) -> Size:
    return -(-header.height // model.config.factor), -(-header.width // model.config.factor)


@torch.inference_mode()
def paint(
    container: Container,
    parsed: Parsed,
    model: LoadedDecoder,
    region: Window | None = None,
    *,
    bit_depth: BitDepth = 8,
    noise: float = 1.0,
    bounds: Bounds = NO_BOUNDS,
) -> Picture:
    """Run the decoder on a file's symbols, or, for a region in pixels, on those of its `latent_window`.

    Pixels are of 8 or 16 bits. noise: how much a decoder that has noise is to use of it, 0 for none. Public models see
    the latent in tiles where the file says so. Raises FormatError, or ModelError where the decoder gives what is not
    finite.
    """
    header, factor = container.header, model.config.factor
    region = region or Window(0, 0, header.height, header.width)
    there = latent_window(container, model, region)
    alpha, metadata = parse_transparency(container, region), parse_metadata(container)
    cutting = cut_for_decoder(model.config, there.times(factor).size, container.tile_plan, bounds)

    def latent(window: Window) -> Tensor:
        blocks = blocks_around(window).within(there)
        part = parsed.to_latent(parsed.symbols[(..., *blocks.relative_to(there).slices)])
        check_finite(part, f"the latent space of {model.name}")
        return part[(..., *window.relative_to(blocks).slices)]

    size, window = latent_size(header, model), region.over(factor)
    pixels = decode_latent(
        model.decoder, latent, parsed.rate, size, window, factor, model.device, cutting, bit_depth, noise, model.name
    )
    return Picture(
        pixels[region.relative_to(window.times(factor)).slices],
        greyscale=bool(header.flags & Flag.GREYSCALE),
        alpha=alpha,
        metadata=metadata,
    )
