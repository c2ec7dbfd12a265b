"""Locate, verify and load the parts of a model that are needed, and no others."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from latentzip.container import Container
from latentzip.errors import ModelError
from latentzip.models.autoencoder import Autoencoder, Latent, make_latent
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import ModelConfig, make_decoder, make_encoder, trainable
from latentzip.models.prior import HyperAnalysis
from latentzip.zoo.checking import checked
from latentzip.zoo.checkpoints import (
    FINGERPRINT_BYTES,
    MODEL_NAME,
    fingerprint,
    read_config,
    read_metadata,
    read_tensors,
)
from latentzip.zoo.hub import cached, find_public
from latentzip.zoo.public import diffusers_folder, read_public
from latentzip.zoo.reading import PICKLES, check_file, reason_of
from latentzip.zoo.registry import built_in, find_by_fingerprint, find_by_name


@dataclass(frozen=True)
class LoadedLatent:
    """What both sides need. The latent space stays on the CPU."""

    name: str
    public_name: str | None  # of a model that `models pull` knows
    config: ModelConfig
    latent: Latent
    latent_fingerprint: bytes
    decoder_fingerprint: bytes


@dataclass(frozen=True)
class LoadedEncoder(LoadedLatent):
    encoder: nn.Module
    analysis: HyperAnalysis | None  # of models that learn their prior
    device: torch.device


@dataclass(frozen=True)
class LoadedDecoder(LoadedLatent):
    decoder: nn.Module
    device: torch.device


def choose_device(wish: str | torch.device) -> torch.device:
    """ "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is there. Raises ModelError for one that is not.

    A process that was forked from one that uses a GPU has none.
    """
    has_cuda = torch.cuda.is_available() and not torch.cuda._is_in_bad_fork()
    counts = {"cpu": 1, "cuda": torch.cuda.device_count() if has_cuda else 0, "mps": torch.backends.mps.is_available()}
    if wish == "auto":
        return torch.device("cuda" if counts["cuda"] else "mps" if counts["mps"] else "cpu")
    try:
        device = torch.device(wish) if isinstance(wish, (str, torch.device)) else None
    except RuntimeError:
        device = None
    if device is None or (device.index or 0) >= counts.get(device.type, 0):
        raise ModelError(f"device {wish}: not available here: use cpu, or auto")
    return device


def load_encoder(source: str | None, device: torch.device) -> LoadedEncoder:
    """`source`: see `locate`. Raises ModelError."""
    parts = _load_parts(locate(source), ["encoder", "analysis", "latent"])
    encoder = make_encoder(parts.config)
    parts.fill(encoder, "encoder")
    analysis = None
    if parts.config.learns_prior:
        with torch.device("meta"):
            analysis = HyperAnalysis(trainable(parts.config))
        parts.fill(analysis, "analysis")
        analysis.to(device)
    public = find_public(source) if source is not None else None
    shared = replace(_load_latent(parts), public_name=public.name) if public else _load_latent(parts)
    return LoadedEncoder(**vars(shared), encoder=encoder.to(device), analysis=analysis, device=device)


def load_decoder(path: Path, device: torch.device) -> LoadedDecoder:
    """Raises ModelError."""
    parts = _load_parts(path, ["latent", "decoder"])
    decoder = make_decoder(parts.config)
    parts.fill(decoder, "decoder")
    return LoadedDecoder(**vars(_load_latent(parts)), decoder=decoder.to(device), device=device)


def load_autoencoder(source: str | None, device: torch.device) -> Autoencoder:
    """All of a model of ours in float32, its prior not exact: to follow gradients, not to code. Raises ModelError."""
    parts = _load_parts(locate(source), ["encoder", "analysis", "latent", "decoder"])
    try:
        config = trainable(parts.config)
    except ModelError as error:
        raise ModelError(f"{parts.path}: {error}") from None
    with torch.device("meta"):
        model = Autoencoder(config)
    parts.fill(model, "")
    return model.to(device)


def load_latent(path: Path) -> LoadedLatent:
    """The latent space alone, to read symbols. Raises ModelError."""
    return _load_latent(_load_parts(path, ["latent"]))


def weights_for(container: Container, explicit: str | None) -> Path:
    """The weights that decode a file: `explicit` if given, else a built-in model's, or a public one's in the cache.

    Raises ModelError where they have another latent space, or none is here. Nothing is ever downloaded.
    """
    latent, decoder = container.header.latent_fingerprint, container.header.decoder_fingerprint
    if explicit is not None:
        path = locate(explicit)
        if is_public(path):
            return path  # what it is shows when all of it is read
        found = read_metadata(path).get("latent_fingerprint", "unknown")
        if found != latent.hex():
            raise ModelError(
                f"was encoded with another model: its latent space is {latent.hex()}, that of {explicit} is"
                f" {found}: give -m the weights that encoded it"
            )
        return path
    entry = find_by_fingerprint(latent, decoder)
    if entry is None and container.model_name is not None and find_public(container.model_name):
        return locate(container.model_name)
    if entry is None:
        raise ModelError(
            f"needs a model that is not here (latent space {latent.hex()}): give -m the weights that encoded it"
        )
    return entry.weights


def locate(source: str | None) -> Path:
    """The weights file, or folder of diffusers, that a name, a path, a run folder or None (the default) stands for.

    Names are those of built-in models, and of public ones that were pulled. Raises ModelError where there is none.
    """
    if source is None:
        return built_in()[0].weights
    try:
        return _locate(source, Path(source))
    except OSError as error:  # a folder that may not be looked into, a name that is too long
        raise ModelError(f"{source}: cannot be read ({reason_of(error)})") from None


def _locate(source: str, path: Path) -> Path:
    if path.is_dir() and not (path / MODEL_NAME).exists():
        folder = diffusers_folder(path)
        if folder is None:
            raise ModelError(f"{path}: holds neither {MODEL_NAME} nor a model of diffusers (config.json)")
        return folder
    if path.is_dir():
        path = path / MODEL_NAME
    if path.exists():
        check_file(path)
        return path
    model = find_public(source)
    if model is None:
        return find_by_name(source).weights
    place = cached(model)
    if place is None:
        raise ModelError(f"{source}: is not here yet: latentzip models pull {model.name}")
    return place


def is_public(path: Path) -> bool:
    """Whether a path that `locate` gave is a checkpoint of others, to be read by `zoo.public`. Raises ModelError."""
    if path.is_dir() or path.suffix in PICKLES:
        return True
    return "config" not in read_metadata(path)


@dataclass(frozen=True)
class _Parts:
    path: Path
    config: ModelConfig
    tensors: dict[str, Tensor]
    prints: dict[str, bytes]

    def fill(self, module: nn.Module, part: str) -> None:
        """Load the tensors of a part (or "", of all) into its module, every one and no more."""
        prefix = part + "." if part else ""
        state = {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}
        module.load_state_dict(checked(self.path, state, module.state_dict(), prefix), assign=True)
        module.requires_grad_(False).eval()


def check_whole(path: Path, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Raise ModelError where a model's tensors are not exactly those that its config asks for."""
    parts = _Parts(path, config, tensors, {})
    for part, module in (
        ("encoder", make_encoder(config)),
        ("decoder", make_decoder(config)),
        ("latent", _latent_to_fill(config)),
    ):
        parts.fill(module, part)
    strange = [name for name in tensors if not name.startswith(("encoder.", "decoder.", "latent."))]
    if strange:
        raise ModelError(f"{path}: has tensors that belong to no autoencoder: {', '.join(strange[:5])}")


def _load_parts(path: Path, parts: list[str]) -> _Parts:
    for entry in built_in():
        if entry.path == path and entry.found_sha256() != entry.sha256:
            raise ModelError(f"{path}: damaged (its SHA-256 is not the manifest's): install latentzip again")
    if is_public(path):
        public, tensors = read_public(path)
        check_whole(path, public, tensors)
        return _Parts(path, public, tensors, {part: fingerprint(public, tensors, part) for part in FINGERPRINT_BYTES})
    config, metadata = read_config(path), read_metadata(path)
    if not isinstance(config, AutoencoderConfig):
        parts = ["encoder", "latent", "decoder"]  # the encoder tells one latent space from another
    tensors = read_tensors(path, parts)
    prints = {}
    for part, length in FINGERPRINT_BYTES.items():
        try:
            prints[part] = bytes.fromhex(metadata[f"{part}_fingerprint"])
        except (KeyError, ValueError):
            prints[part] = b""
        has_part = any(name.startswith(part + ".") for name in tensors)
        if len(prints[part]) != length or (has_part and fingerprint(config, tensors, part) != prints[part]):
            raise ModelError(f"{path}: its {part} tensors are not those that its metadata names: get it again")
    return _Parts(path, config, tensors, prints)


def _latent_to_fill(config: ModelConfig) -> Latent:
    """On `meta`, as the networks are: random numbers to begin with would take time, and be missed by the program."""
    with torch.device("meta"):
        return make_latent(config)


def _load_latent(parts: _Parts) -> LoadedLatent:
    latent = _latent_to_fill(parts.config)
    parts.fill(latent, "latent")
    name = parts.path.parent.name if parts.path.name == MODEL_NAME else parts.path.stem
    return LoadedLatent(name, None, parts.config, latent, parts.prints["latent"], parts.prints["decoder"])
