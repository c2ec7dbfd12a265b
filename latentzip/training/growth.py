"""From a KL model to a larger one that begins as good as it: more blocks, and more channels of the latent."""

import numpy as np
import torch
from torch import Tensor

from latentzip.errors import TrainingError
from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.models.prior import index_of_scale
from latentzip.training.conversion import last_of_encoder
from latentzip.training.data import batch_at
from latentzip.training.settings import TrainSettings

BATCHES = 24  # on which the directions are found


def can_widen(old: AutoencoderConfig, new: AutoencoderConfig) -> bool:
    """Whether `new` is `old` with more channels in the last of the prior's groups, as far as the latent goes."""
    return (
        old.learns_prior
        and new.learns_prior
        and old.factor == new.factor
        and old.latent_channels < new.latent_channels
        and old.prior_groups[:-1] == new.prior_groups[:-1]
        and (old.hyper_channels, old.prior_width, old.gain_knots)
        == (new.hyper_channels, new.prior_width, new.gain_knots)
        and old.widths == new.widths
    )


@torch.no_grad()
def widen(
    given: dict[str, Tensor], old: AutoencoderConfig, new: Autoencoder, pictures: list[Pixels], settings: TrainSettings
) -> dict[str, Tensor]:
    """Tensors of a model with `old`'s latent, for the channels of the model `new`.

    The new channels are the principal components of what the old model's reconstructions at its highest rate lack, in
    the encoder by a linear transform of the picture and of the old latent, in the decoder by the transpose of it. Where
    they round to zero, the picture is the old one.
    """
    before = Autoencoder(old)
    before.load_state_dict(given)
    before.eval()
    config, latent = new.config, before.latent
    assert isinstance(latent, KlLatent)
    assert isinstance(new.latent, KlLatent)
    kept, more, factor = old.latent_channels, config.latent_channels - old.latent_channels, old.factor
    directions, regression, deviations = _what_is_missing(before, latent, pictures, more, settings)
    scale = 127.5 / config.step

    out = dict(given)
    # encoder: scale * (b x - R y - constant), where y is what the old channels are
    of_latent, constant = regression[:, :-1], regression[:, -1]
    last_bias = last_of_encoder(out)
    last = last_bias.replace("bias", "weight")
    linear, deep = out["encoder.linear.weight"], out[last]
    linear_bias, deep_bias = out["encoder.linear.bias"], out[last_bias]
    squares = directions.view(more, 3, factor, factor)
    seen = torch.einsum("mc,cixy->mixy", of_latent, linear)
    out["encoder.linear.weight"] = torch.cat([linear, scale * (squares - seen)])
    out["encoder.linear.bias"] = torch.cat([linear_bias, -scale * (of_latent @ linear_bias + constant)])
    out[last] = torch.cat([deep, -scale * torch.einsum("mc,cixy->mixy", of_latent, deep)])
    out[last_bias] = torch.cat([deep_bias, -scale * (of_latent @ deep_bias)])
    # decoder
    out["decoder.linear.weight"] = torch.cat([out["decoder.linear.weight"], squares / scale])
    first = out["decoder.deep.0.weight"]  # its last input is the rate
    nothing = first.new_zeros(len(first), more, *first.shape[2:])
    out["decoder.deep.0.weight"] = torch.cat([first[:, :kept], nothing, first[:, kept:]], 1)
    # gains, hyperlatent and prior
    gains = torch.tensor(config.start_log_gains)
    out["latent.log_gain"] = torch.cat([out["latent.log_gain"], gains[:, None].expand(-1, more)], 1)
    analysis = out["analysis.layers.0.weight"]
    out["analysis.layers.0.weight"] = torch.cat([analysis, analysis.new_zeros(len(analysis), more, 3, 3)], 1)
    group = f"latent.prior.contexts.{len(config.prior_groups) - 1}."
    seen = out[group + "neighbours.weight"]
    out[group + "neighbours.weight"] = torch.cat([seen, seen.new_zeros(len(seen), more, *seen.shape[2:])], 1)
    head = max(n for n in out if n.startswith(group + "head.") and n.endswith(".weight"))
    fresh = new.latent.prior.state_dict()[head.removeprefix("latent.prior.")][-more:]
    mean, index = out[head].chunk(2)
    out[head] = torch.cat([mean, torch.zeros_like(fresh), index, 0.1 * fresh])
    head = head.replace("weight", "bias")
    mean, index = out[head].chunk(2)
    scales = index_of_scale((deviations * scale * 0.5).clamp_min(0.12))
    out[head] = torch.cat([mean, mean.new_zeros(more), index, scales])
    return out


def _what_is_missing(
    model: Autoencoder, latent: KlLatent, pictures: list[Pixels], count: int, settings: TrainSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Directions (count, 3 f f) in which reconstructions lack most, and what the latent tells of the reconstruction.

    That is the regression (count, C + 1) of reconstructions, along the directions, on the latent and a constant. The
    deviations (count,) are those of what is lacking.
    """
    factor = model.config.factor
    rate = torch.ones(settings.batch)
    gain = latent.gain(rate)
    missing, painted, known = [], [], []
    for step in range(BATCHES):
        x = batch_at(pictures, step, settings.batch, settings.crop, settings.seed + 2).float() / 127.5 - 1
        y = model.encoder(x)
        x_hat = model.decoder(torch.round(y * gain) / gain, rate)
        missing.append(_squares(x - x_hat, factor))
        painted.append(_squares(x_hat, factor))
        known.append(torch.cat([y, torch.ones_like(y[:, :1])], 1).movedim(1, -1).flatten(0, 2).double())
    lacking = torch.cat(missing)
    _, vectors = np.linalg.eigh(torch.cov(lacking.T).numpy())
    if count > vectors.shape[1]:
        raise TrainingError(f"{count} more latent channels are more than a square of {factor}x{factor} pixels has")
    directions = torch.from_numpy(vectors[:, ::-1][:, :count].T.copy())
    along = torch.cat(painted) @ directions.T
    regression = torch.linalg.lstsq(torch.cat(known), along).solution.T
    return directions.float(), regression.float(), (lacking @ directions.T).std(0).float()


def _squares(x: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B * H/side * W/side, 3 * side * side), float64, one row a latent position."""
    return torch.pixel_unshuffle(x, side).movedim(1, -1).flatten(0, 2).double()
