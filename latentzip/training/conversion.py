"""Latents of other units or directions between the same encoder and decoder: for codes, or for diffusion models."""

import math

import torch
from torch import Tensor, nn

from latentzip.models.autoencoder import Autoencoder, KlLatent
from latentzip.models.bands import SHARED
from latentzip.models.config import AutoencoderConfig

# of a channel's latents, to unit variance: one that the KL divergence has emptied would be noise, made as large as any
MOST_SCALE = 10.0


@torch.no_grad()
def in_steps(tensors: dict[str, Tensor], kl: AutoencoderConfig, vq: AutoencoderConfig) -> dict[str, Tensor]:
    """Encoder and decoder of a KL model, whose latent is then in quantisation steps of the middle of `vq`'s lambdas.

    Its gains say how much an error of each channel matters; so all channels' errors matter alike, as the distance to a
    code wants it (with kl-f16 that is 0.7 dB). The decoder takes the rate of the VQ model. The other tensors are
    given back as they are.
    """
    latent = KlLatent(kl)
    latent.log_gain.copy_(tensors["latent.log_gain"])
    low, high = (math.log(value) for value in kl.lambdas)
    start, end = ((math.log(value) - low) / (high - low) for value in vq.lambdas)  # rates of the KL model
    gain = latent.gain(torch.tensor([(start + end) / 2]).clamp(0, 1))[0]  # (C, 1, 1)

    out = _scaled(tensors, gain[:, 0, 0])
    first = out["decoder.deep.0.weight"]
    of_rate = first[:, -1:]  # of the plane of the rate
    out["decoder.deep.0.weight"] = torch.cat([first[:, :-1], of_rate * (end - start)], dim=1)
    out["decoder.deep.0.bias"] = out["decoder.deep.0.bias"] + start * of_rate.sum((1, 2, 3))
    return out


@torch.no_grad()
def to_unit_variance(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model whose prior is N(0, 1), with every channel's latents scaled to the variance that diffusion models want.

    Variances are those that training saw (`NormalLatent`): the weight of the KL divergence is too small to keep them at
    1. Pictures stay the same, and so does what the posterior's noise does to them. A channel that carries next to
    nothing stays small.
    """
    std = tensors["latent.std"].clamp(min=1 / MOST_SCALE)
    out = _scaled(tensors, torch.cat([1 / std, torch.ones_like(std)]))  # of moments the means
    out["encoder.linear.bias"] = out["encoder.linear.bias"] - 2 * torch.cat([torch.zeros_like(std), std.log()])
    out["latent.mean"], out["latent.std"] = out["latent.mean"] / std, out["latent.std"] / std
    return out


def _scaled(tensors: dict[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Encoder and decoder with each channel of what the encoder gives times a scale (C,): pictures stay the same."""
    out = dict(tensors)
    for name in ("encoder.linear.bias", last_of_encoder(out)):
        weight = name.removesuffix("bias") + "weight"
        out[name], out[weight] = out[name] * scale, out[weight] * scale[:, None, None, None]
    linear, first = out["decoder.linear.weight"], out["decoder.deep.0.weight"]
    back = 1 / scale[: len(linear), None, None]  # of moments, the decoder sees the means
    out["decoder.linear.weight"] = linear * back[..., None]
    out["decoder.deep.0.weight"] = torch.cat([first[:, :-1] * back, first[:, -1:]], dim=1)
    return out


@torch.no_grad()
def keep_principal(tensors: dict[str, Tensor], latents: Tensor, channels: int) -> dict[str, Tensor]:
    """Encoder and decoder for the `channels` directions of a latent in which it has most.

    latents: (N, C, h, w). What lies in other directions is lost; codes of fewer dimensions are nearer to what is left
    (docs/training.md).
    """
    vectors = latents.double().movedim(1, -1).flatten(0, 2)
    _, directions = torch.linalg.eigh(vectors.T @ vectors)
    kept = directions.flip(1)[:, :channels].float()  # (C, C')

    out = dict(tensors)
    for name in ("encoder.linear.bias", last_of_encoder(out)):
        weight = name.removesuffix("bias") + "weight"
        out[name], out[weight] = kept.T @ out[name], torch.einsum("cd,cixy->dixy", kept, out[weight])
    out["decoder.linear.weight"] = torch.einsum("cd,cixy->dixy", kept, out["decoder.linear.weight"])
    first = out["decoder.deep.0.weight"]
    projected = torch.einsum("cd,ocxy->odxy", kept, first[:, :-1])
    out["decoder.deep.0.weight"] = torch.cat([projected, first[:, -1:]], dim=1)
    return out


def last_of_encoder(tensors: dict[str, Tensor]) -> str:
    """The bias of the deep path's last layer."""
    return max((name for name in tensors if name.startswith("encoder.deep.") and name.endswith(".bias")), key=_depth)


def _depth(name: str) -> int:
    return int(name.split(".")[2])


@torch.no_grad()
def turn_to_shared(model: Autoencoder, latents: Tensor) -> Tensor:
    """Turn a latent space so that its first channels are what neighbours share (`models.bands`).

    latents: (N, C, h, w), of which it returns what they become. Shared are the directions in which the averages of
    these maps differ most. Pictures stay the same, and so do distances between latents.
    """
    averages = latents.double().mean((2, 3))
    _, directions = torch.linalg.eigh(torch.cov(averages.T))
    shared = directions.flip(1)[:, :SHARED]
    others = torch.eye(len(directions), dtype=torch.float64)
    turn = torch.linalg.qr(torch.cat([shared, others], 1))[0].float()  # (C, C'), orthonormal

    encoder, decoder = model.encoder, model.decoder
    last, first = encoder.deep[-1], decoder.deep[0]
    assert isinstance(last, nn.Conv2d)
    assert isinstance(first, nn.Conv2d)
    for layer in (encoder.linear, last):
        assert layer.bias is not None
        layer.weight.copy_(torch.einsum("cd,cixy->dixy", turn, layer.weight))
        layer.bias.copy_(turn.T @ layer.bias)
    decoder.linear.weight.copy_(torch.einsum("cd,cixy->dixy", turn, decoder.linear.weight))
    channels = len(turn)  # the last input of the decoder's first layer is the rate
    first.weight[:, :channels] = torch.einsum("cd,ocxy->odxy", turn, first.weight[:, :channels])
    return torch.einsum("cd,nchw->ndhw", turn, latents).contiguous()
