"""Weights files: safetensors with the config in the metadata, and what their parts are called.

Tensors are named by the part they belong to: `encoder.` and `analysis.` (needed to encode), `latent.` (codebook, prior,
steps: needed for both, and what a file's symbols mean) and `decoder.` (needed to decode).
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from latentzip.errors import ModelError
from latentzip.files import write_atomically
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import ModelConfig, config_from_json, config_to_json
from latentzip.zoo.checking import listed, not_finite
from latentzip.zoo.reading import check_file, reason_of

MODEL_NAME = "model.safetensors"
FINGERPRINT_BYTES = {"latent": 8, "decoder": 4}


def fingerprint(config: ModelConfig, tensors: dict[str, Tensor], part: str) -> bytes:
    """Leading bytes of the SHA-256 over the kind of model and the part's tensors, in the order of their names.

    part: "latent" (8 bytes: what the symbols of a file mean) or "decoder" (4 bytes: what pixels they become). Of the
    config only what the tensors do not show goes in: another decoder, deeper say, leaves the latent space what it was.
    The latent space of a public KL model has no tensors that tell it from others: there the encoder's count too.
    """
    digest = hashlib.sha256(f"{config.family} {config.regularizer} f{config.factor}".encode())
    prefixes = [part + "."]
    if not isinstance(config, AutoencoderConfig) and config.regularizer == "kl" and part == "latent":
        digest.update(f" {config.scaling!r} {config.shift!r}".encode())
        if config.latents_mean:
            digest.update(f" {config.latents_mean!r} {config.latents_std!r}".encode())
        prefixes.append("encoder.")
    for name in sorted(n for n in tensors if n.startswith(tuple(prefixes))):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # as bytes, for numpy does not know all dtypes; from wherever the tensor lies
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()[: FINGERPRINT_BYTES[part]]


def save_weights(path: Path, config: ModelConfig, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Write a model, its floats in half precision. `notes` are kept in the metadata.

    Raises OutputError, or ModelError for values that half precision cannot hold.
    """
    half = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    save_as_is(path, config, half, notes, overwrite=True)


def save_as_is(
    path: Path, config: ModelConfig, tensors: dict[str, Tensor], notes: dict[str, str], *, overwrite: bool
) -> None:
    """Write a model in the precision that its tensors have. Raises OutputError, or ModelError for what is no number."""
    if wrong := not_finite(tensors):
        raise ModelError(
            f"{path}: not written, for {listed(wrong)} would hold values that are not finite: its training diverged, or"
            " they are too large for half precision"
        )
    # clones, for safetensors refuses tensors that share their memory
    kept = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    metadata = {
        **notes,
        "config": config_to_json(config),
        **{f"{part}_fingerprint": fingerprint(config, kept, part).hex() for part in FINGERPRINT_BYTES},
    }
    data = save(kept, metadata)
    write_atomically(path, lambda file: file.write(data), overwrite=overwrite)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a weights file, config included. Raises ModelError."""
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
    return metadata


def read_config(path: Path) -> ModelConfig:
    """The config of a weights file. Raises ModelError."""
    try:
        if "config" not in read_metadata(path):
            raise ModelError("holds no latentzip model (its metadata has no config)")
        return config_from_json(read_metadata(path)["config"])
    except ModelError as error:
        message = str(error)
        raise ModelError(message if message.startswith(f"{path}:") else f"{path}: {message}") from None


def read_tensors(path: Path, parts: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of some parts alone, as stored. Raises ModelError."""
    prefixes = tuple(part + "." for part in parts)
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except Exception as error:  # a damaged file can end in anything, deep inside of torch
        raise ModelError(f"{path}: not a readable weights file ({reason_of(error)})") from None
