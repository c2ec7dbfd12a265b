"""Latents of .lz files for other programs, diffusion models above all."""

from os import PathLike
from reprlib import repr as shortened

import torch
from torch import Tensor

from latentzip.arguments import Source, named, path_of, read_source
from latentzip.codec import read_symbols
from latentzip.container import parse
from latentzip.errors import ModelError, UsageError
from latentzip.models.autoencoder import VqLatent
from latentzip.surroundings import undisturbed
from latentzip.zoo.loading import load_latent, weights_for


@undisturbed()
def load_latents(path: Source, model: str | PathLike[str] | None = None) -> Tensor:
    """The latent that a .lz file holds, without running a network.

    KL models: (1, C, h, w) float16. Of public models it is what diffusion models see, z = (mean - shift) * scaling
    with the model's scaling and shift, so that mean = z / scaling + shift, or with statistics of each channel
    z = (mean - latents_mean) * scaling / latents_std; files of `encode --coding fp16` give it to the bit as it was
    encoded. VQ models: the grid of indices (1, S, h, w) int64, one channel for each stage; 0 ends
    a position of models with a prior of indices, and what follows is 0.

    path: the file's, or its bytes, or the file, open for reading. model: the weights that encoded it, where neither
    built in nor in the cache. Raises LatentzipError, as for latents that half precision cannot hold.
    """
    weights = None if model is None else path_of(model)
    if model is not None and weights is None:
        raise UsageError(f"model {shortened(model)}: give a name, or the path of a weights file or run folder")
    with named(path):
        container = parse(read_source(path))
        loaded = load_latent(weights_for(container, None if weights is None else str(weights)))
        parsed = read_symbols(container, loaded)
        if isinstance(loaded.latent, VqLatent):
            return parsed.symbols
        half = parsed.latent.to(torch.float16)
        if not torch.isfinite(half).all():
            raise ModelError(f"half precision cannot hold its latents, of {loaded.name}: encode it with another model")
        return half
