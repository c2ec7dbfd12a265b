"""What torch.compile is to step over."""

import torch
from torch import nn

from latentzip.models.autoencoder import Autoencoder, VqLatent


def leave_uncompiled(model: Autoencoder) -> None:
    """Let torch.compile, wherever it meets them, call those methods of a model as they are that it makes worse.

    They are not decorated where they are defined: that would import torch's compiler, which takes a second, with the
    codec.
    """
    # in one graph with the layers before, the gradient of the last one alone would take, and use up, those of all
    methods: list[tuple[nn.Module, str]] = [(model.decoder, "last_layers")]
    if isinstance(model.latent, VqLatent):
        methods.append((model.latent.quantizer, "search"))
        if model.latent.prior is not None:
            methods.append((model.latent.prior, "bits"))  # to compile its stages, unrolled, takes minutes
    for module, name in methods:
        setattr(module, name, torch.compiler.disable(getattr(module, name)))  # type: ignore[no-untyped-call]
