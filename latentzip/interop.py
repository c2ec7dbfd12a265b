"""Latents of .lz files for other programs, diffusion models above all."""

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from latentzip.codec import read_symbols
from latentzip.container import parse
from latentzip.errors import LatentzipError
from latentzip.files import read_bytes
from latentzip.models.autoencoder import VqLatent
from latentzip.zoo.loading import load_latent, weights_for


def load_latents(path: str | PathLike[str], model: str | None = None) -> Tensor:
    """The latent that a .lz file holds, without running a network.

    KL models: (1, C, h, w) float16. Of public models it is what diffusion models see, z = (mean - shift) * scaling
    with the model's scaling and shift, so that mean = z / scaling + shift, or with statistics of each channel
    z = (mean - latents_mean) * scaling / latents_std; files of `encode --coding fp16` give it to the bit as it was
    encoded. VQ models: the grid of indices (1, S, h, w) int64, one channel for each stage; 0 ends
    a position of models with a prior of indices, and what follows is 0.

    model: the weights that encoded it, where neither built in nor in the cache. Raises LatentzipError.
    """
    container = parse(read_bytes(Path(path)))
    try:
        loaded = load_latent(weights_for(container, model))
        parsed = read_symbols(container, loaded)
    except LatentzipError as error:
        raise type(error)(str(error) if str(error).startswith(f"{path}:") else f"{path}: {error}") from None
    return parsed.symbols if isinstance(loaded.latent, VqLatent) else parsed.latent.to(torch.float16)
