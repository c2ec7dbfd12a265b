"""latentzip for Python programs. The command line and the Pillow plugin make the same calls."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from threading import RLock

import torch
from PIL import Image

from latentzip.codec import (
    analyse,
    latent_window,
    level_for,
    levels,
    paint,
    read_symbols,
    refine_latent,
    refinement_steps,
    write_latent,
)
from latentzip.container import DEFAULT_QUALITY, Container, parse
from latentzip.images import ALPHA_KEPT, BitDepth, MetadataWish, Picture, check_alpha_wish, take_image, to_image
from latentzip.models.autoencoder import Autoencoder
from latentzip.rate import highest_level_within
from latentzip.settings import Coding, EncodeSettings
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
        with _LOADING:
            return _load_encoder(self)

    @property
    def decoder(self) -> LoadedDecoder:
        with _LOADING:
            return _load_decoder(self)

    @property
    def whole(self) -> Autoencoder:
        """All of it, to follow gradients."""
        with _LOADING:
            return _load_whole(self)


_LOADING = RLock()  # threads that want the same model wait for one to load it


@lru_cache(MODELS_KEPT)
def _load_encoder(model: Model) -> LoadedEncoder:
    return load_encoder(model.source, model.device)


@lru_cache(MODELS_KEPT)
def _load_decoder(model: Model) -> LoadedDecoder:
    return load_decoder(model.path, model.device)


@lru_cache(1)
def _load_whole(model: Model) -> Autoencoder:
    return load_autoencoder(model.source, model.device)


def load_model(source: ModelSource = None, device: str = "auto") -> Model:
    """A model for `encode` and `decode`: a built-in one's name, a weights file, a run folder, or None for the default.

    device: "cpu", "cuda", "mps" or "auto". Its weights are read when they are first used, and kept in memory. Raises
    ModelError where there is no such model or device.
    """
    name = fspath(source) if source is not None else None
    path = locate(name)
    return Model(name, path, path.stat().st_mtime_ns, choose_device(device))


@dataclass(frozen=True)
class Encoded:
    data: bytes  # of a .lz file
    level: int  # that was chosen, of `codec.levels`


def encode_picture(
    picture: Picture, model: Model, settings: EncodeSettings, progress: Progress = lambda steps: nullcontext(_nothing)
) -> Encoded:
    """Picture -> .lz file. Raises LatentzipError for a size out of reach, FormatError for what no file can hold."""
    encoder = model.encoder
    analysed = analyse(picture, encoder, settings.bounds)
    limit = settings.limit(analysed.width, analysed.height)

    def highest_level(most_bytes: int) -> int:
        return highest_level_within(
            most_bytes, levels(encoder), lambda level: write_latent(analysed, encoder, level, verify=False)
        )

    level = level_for(encoder, settings.quality or DEFAULT_QUALITY) if limit is None else highest_level(limit)
    if settings.effort:
        with progress(refinement_steps(analysed, encoder, settings.effort)) as report:
            analysed = refine_latent(picture, analysed, model.whole, level, settings.effort, report)
        if limit is not None:  # what became smaller leaves room for a higher level
            level = highest_level(limit)
    return Encoded(write_latent(analysed, encoder, level, coding=settings.coding, verify=settings.verify), level)


@dataclass(frozen=True)
class Decoded:
    picture: Picture
    parts: tuple[int, int]  # of the latent: how many were decoded, and of how many


def decode_picture(
    container: Container,
    model: ModelSource = None,
    device: str = "auto",
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
    decoder = load_model(weights_for(container, None if model is None else fspath(model)), device).decoder
    window = latent_window(container, decoder, region) if region else None
    parsed = read_symbols(container, decoder, window, partial=partial, most_parts=most_parts, max_pixels=max_pixels)
    return Decoded(
        paint(container, parsed, decoder, region, bit_depth=bit_depth, noise=noise, bounds=bounds), parsed.parts
    )


def encode(
    image: Image.Image,
    *,
    quality: int | None = None,
    bpp: float | None = None,
    size: int | None = None,
    effort: int = 0,
    model: ModelSource | Model = None,
    coding: Coding = "auto",
    alpha: str = ALPHA_KEPT,
    metadata: MetadataWish = "icc",
    verify: bool = True,
) -> bytes:
    """Pillow's image, any mode -> the bytes of a .lz file.

    quality: 1 to 100, by default 50; or at most `bpp` bits per pixel, or at most `size` bytes. effort: 0 to 9, time for
    a smaller file. model: a name, weights file, run folder, or what `load_model` gave. alpha: "keep", "drop", or a
    colour to put transparent pictures on. metadata: "icc" keeps what the colour profile says of colours, "all" also
    Exif and XMP, "none" nothing. Of an animation the frame it stands at. Orientation in Exif is applied.
    Raises LatentzipError, and what Pillow raises for an image that cannot be loaded.
    """
    check_alpha_wish(alpha)
    settings = EncodeSettings(quality, bpp, size, effort, coding, verify=verify)
    loaded = model if isinstance(model, Model) else load_model(model)
    return encode_picture(take_image(image, alpha=alpha, metadata=metadata), loaded, settings).data


def decode(
    data: bytes,
    *,
    model: ModelSource = None,
    device: str = "auto",
    partial: bool = False,
    noise: float = 1.0,
    box: tuple[int, int, int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """The bytes of a .lz file -> Pillow's image: mode L, LA, RGB or RGBA, `info` with icc_profile, exif and xmp.

    model: weights for a file whose own are neither built in nor in the cache. `partial`: show what has arrived of a
    file that was cut short. noise: how strong the noise is that texture is painted from, 0 for the most faithful
    picture, 1 as it was trained. box: that part alone, left, upper, right and lower in pixels as `Image.crop` takes
    them. max_pixels: refuse to decode more. May be called from several threads at once. Raises FormatError or
    ModelError.
    """
    region = None if box is None else Window(box[1], box[0], box[3], box[2])
    container = parse(data, partial=partial)
    decoded = decode_picture(
        container, model, device, partial=partial, noise=noise, region=region, max_pixels=max_pixels
    )
    return to_image(decoded.picture)


def _nothing() -> None:
    pass
