"""latentzip for Python programs. The command line and the Pillow plugin make the same calls."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened
from threading import RLock
from typing import get_args

import torch
from PIL import Image

from latentzip.arguments import (
    ImageSource,
    Source,
    colour_or_word,
    named,
    path_of,
    read_picture,
    read_source,
    window_of,
)
from latentzip.codec import (
    analyse,
    latent_window,
    level_for,
    levels,
    paint,
    read_symbols,
    refine_latent,
    refinement_steps,
    search_longer,
    write_latent,
)
from latentzip.container import DEFAULT_QUALITY, Container, parse
from latentzip.errors import ModelError, UsageError
from latentzip.images import ALPHA_KEPT, BitDepth, MetadataWish, Picture, check_alpha_wish, to_image
from latentzip.models.autoencoder import Autoencoder
from latentzip.rate import highest_level_within
from latentzip.settings import Coding, EncodeSettings, check_choice, check_switch, is_number, is_whole
from latentzip.surroundings import undisturbed
from latentzip.tiling import MAX_PIXELS, NO_BOUNDS, Bounds, Window
from latentzip.zoo.loading import (
    LoadedDecoder,
    LoadedEncoder,
    choose_device,
    load_autoencoder,
    load_decoder,
    load_encoder,
    locate,
    weights_for,
)

MODELS_KEPT = 4

# Called with a number of steps; what it gives is entered, and gives what to call after each step.
Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
ModelSource = str | PathLike[str] | None


@dataclass(frozen=True)
class Model:
    """Which model, and where it runs. Its parts are loaded when they are first used, and kept."""

    source: str | None  # a name, weights file or folder; None: the default
    path: Path
    modified: int  # of the weights, so that those that were trained anew are loaded anew
    device: torch.device

    @property
    def encoder(self) -> LoadedEncoder:
        with _LOADING, undisturbed():
            return _load_encoder(self)

    @property
    def decoder(self) -> LoadedDecoder:
        with _LOADING, undisturbed():
            return _load_decoder(self)

    @property
    def whole(self) -> Autoencoder:
        """All of it, to follow gradients."""
        with _LOADING, undisturbed():
            return _load_whole(self)


_LOADING = RLock()  # threads that want the same model wait for one to load it


def _after_fork() -> None:
    """Whatever thread of the parent's was loading a model is not here to end that."""
    global _LOADING
    _LOADING = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(MODELS_KEPT)
def _load_encoder(model: Model) -> LoadedEncoder:
    return load_encoder(model.source, model.device)


@lru_cache(MODELS_KEPT)
def _load_decoder(model: Model) -> LoadedDecoder:
    return load_decoder(model.path, model.device)


@lru_cache(1)
def _load_whole(model: Model) -> Autoencoder:
    return load_autoencoder(model.source, model.device)


def load_model(source: ModelSource = None, device: str | torch.device = "auto") -> Model:
    """A model for `encode` and `decode`: a built-in one's name, a weights file, a run folder, or None for the default.

    device: "cpu", "cuda", "cuda:1", "mps" or "auto", or torch's. Its weights are read when they are first used, and
    kept in memory. Raises ModelError where there is no such model or device.
    """
    name = _name_of(source)
    path = locate(name)
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    return Model(name, path, modified, choose_device(device))


def _name_of(source: ModelSource) -> str | None:
    if source is None:
        return None
    path = path_of(source)
    if path is None:
        raise UsageError(f"model {shortened(source)}: give a name, or the path of a weights file or run folder")
    return source if isinstance(source, str) else str(path)


@dataclass(frozen=True)
class Encoded:
    data: bytes  # of a .lz file
    level: int  # that was chosen, of `codec.levels`


@undisturbed()
def encode_picture(
    picture: Picture, model: Model, settings: EncodeSettings, progress: Progress = lambda steps: nullcontext(_nothing)
) -> Encoded:
    """Picture -> .lz file.

    Raises LatentzipError for a size out of reach, FormatError for what no file can hold, and ModelError.
    """
    encoder = model.encoder
    analysed = analyse(picture, encoder, settings.bounds)
    limit = settings.limit(analysed.width, analysed.height)

    def highest_level(most_bytes: int) -> int:
        return highest_level_within(
            most_bytes, levels(encoder), lambda level: write_latent(analysed, encoder, level, verify=False)
        )

    level = level_for(encoder, settings.quality or DEFAULT_QUALITY) if limit is None else highest_level(limit)
    analysed = search_longer(analysed, settings.effort)
    if steps := refinement_steps(analysed, encoder, settings.effort):
        with progress(steps) as report:
            analysed = refine_latent(picture, analysed, model.whole, level, settings.effort, report)
    if settings.effort and limit is not None:  # what became smaller leaves room for a higher level
        level = highest_level(limit)
    return Encoded(write_latent(analysed, encoder, level, coding=settings.coding, verify=settings.verify), level)


@dataclass(frozen=True)
class Decoded:
    picture: Picture
    parts: tuple[int, int]  # of the latent: how many were decoded, and of how many


@undisturbed()
def decode_picture(
    container: Container,
    model: ModelSource | Model = None,
    device: str | torch.device = "auto",
    *,
    partial: bool = False,
    most_parts: int | None = None,
    bit_depth: BitDepth = 8,
    noise: float = 1.0,
    region: Window | None = None,
    bounds: Bounds = NO_BOUNDS,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """What was parsed of a .lz file -> picture.

    model: weights for a file whose own are neither built in nor in the cache. `partial`: take what has arrived of a
    file that was cut short; `most_parts`: and no more parts than that. noise: how much of the decoder's noise is used,
    0 for none. region: a part of the picture, in pixels.
    `max_pixels`: refuse to decode more. Raises FormatError or ModelError.
    """
    decoder = _model_for(container, model, device).decoder
    window = latent_window(container, decoder, region) if region else None
    parsed = read_symbols(container, decoder, window, partial=partial, most_parts=most_parts, max_pixels=max_pixels)
    return Decoded(
        paint(container, parsed, decoder, region, bit_depth=bit_depth, noise=noise, bounds=bounds), parsed.parts
    )


def _model_for(container: Container, model: ModelSource | Model, device: str | torch.device) -> Model:
    if not isinstance(model, Model):
        return load_model(weights_for(container, _name_of(model)), device)
    if device != "auto" and choose_device(device) != model.device:
        raise UsageError(f"device {device}: the model was loaded for {model.device}: leave the device out")
    weights_for(container, str(model.path))
    return model


def encode(
    image: ImageSource,
    *,
    quality: int | None = None,
    bpp: float | None = None,
    size: int | None = None,
    effort: int = 0,
    model: ModelSource | Model = None,
    coding: Coding = "auto",
    alpha: str | tuple[int, ...] = ALPHA_KEPT,
    metadata: MetadataWish = "icc",
    partial: bool = False,
    verify: bool = True,
) -> bytes:
    """Pillow's image of any mode, an array (H, W, 3) of uint8, or a picture file -> the bytes of a .lz file.

    image: an array may also have four channels, the last of them transparency, or none, of grey; a file is given as its
    path, as bytes, or open for reading.

    quality: 1 to 100, by default 50; or at most `bpp` bits per pixel, or at most `size` bytes. effort: 0 to 9, time for
    a smaller file. model: a name, weights file, run folder, or what `load_model` gave. alpha: "keep", "drop", or a
    colour, in words or as (R, G, B), to put transparent pictures on. metadata: "icc" keeps what the colour profile says
    of colours, "all" also Exif and XMP, "none" nothing. `partial`: of a picture file that is cut short take what has
    arrived. Of an animation the frame it stands at. Orientation in Exif is applied.
    Raises LatentzipError, and what Pillow raises for an image that cannot be loaded.
    """
    settings = EncodeSettings(quality, bpp, size, effort, coding, verify=verify)
    word = colour_or_word(alpha)
    check_alpha_wish(word)
    check_choice("metadata", metadata, get_args(MetadataWish))
    check_switch("partial", partial)
    loaded = model if isinstance(model, Model) else load_model(model)
    return encode_picture(read_picture(image, word, metadata, partial=partial), loaded, settings).data


def decode(
    data: Source,
    *,
    model: ModelSource | Model = None,
    device: str | torch.device = "auto",
    partial: bool = False,
    noise: float = 1.0,
    box: tuple[int, int, int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """A .lz file -> Pillow's image: mode L, LA, RGB or RGBA, `info` with icc_profile, exif and xmp.

    data: its bytes, its path, or the file, open for reading. model: weights for a file whose own are neither built in
    nor in the cache, or what `load_model` gave. `partial`: show what has arrived of a file that was cut short. noise:
    how strong the noise is that texture is painted from, 0 for the most faithful picture, 1 as it was trained. box:
    that part alone, left, upper, right and lower in pixels as `Image.crop` takes them. max_pixels: refuse to decode
    more. May be called from several threads at once. Raises LatentzipError: FormatError for a damaged file, ModelError
    for a model that is not here, UsageError for arguments that cannot be.
    """
    region = window_of(box)
    check_switch("partial", partial)
    if not is_number(noise, 0):
        raise UsageError(f"noise {shortened(noise)}: give a number from 0 on")
    if not is_whole(max_pixels, 1):
        raise UsageError(f"max_pixels {shortened(max_pixels)}: give a whole number of pixels")
    with named(data):
        container = parse(read_source(data), partial=partial)
        decoded = decode_picture(
            container, model, device, partial=partial, noise=noise, region=region, max_pixels=max_pixels
        )
    return to_image(decoded.picture)


def _nothing() -> None:
    pass
