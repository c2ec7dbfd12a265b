"""Where a run starts: another model, nothing, or a start that is already a codec.

That is the linear path of a `lite` model set to the principal components of the user's pictures.
"""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentzip.errors import TrainingError
from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent, NormalLatent, VqLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.models.lite import LiteEncoder
from latentzip.training.codebook import order_codebooks, start_codebooks
from latentzip.training.conversion import in_steps, keep_principal, turn_to_shared
from latentzip.training.data import Pictures, batch_at
from latentzip.training.growth import can_widen, widen
from latentzip.training.settings import TrainSettings
from latentzip.training.silence import listening, revive
from latentzip.zoo.loading import load_autoencoder, locate

PCA, RANDOM = "pca", "random"
PATCHES = 30_000
# For codebooks; the later stages are for few of them where positions end.
LATENTS_PER_CODE, LATENTS_PER_CODE_WITH_ENDS, MOST_SIDE = 32, 256, 24  # positions of a crop, one side
START_RATES = 5  # at which codebooks with ends are made
START_LOG_VARIANCE = -6.0  # a deviation of a twentieth of the latents'


def start(model: Autoencoder, pictures: Pictures, settings: TrainSettings) -> str:
    """Give the model its first weights; returns what was done, in a line.

    settings.init: "pca", "random" (what the modules begin with), or a model, of which all tensors that fit are taken,
    the rest as by "pca". Raises TrainingError or ModelError.
    """
    init = settings.init
    if init == RANDOM:
        return "started from random weights"
    taken: dict[str, Tensor] = {}
    if init != PCA:
        path = locate(init)
        before = load_autoencoder(init, torch.device("cpu"))
        wanted, given = model.state_dict(), before.state_dict()
        if before.config.learns_prior:
            given = _for_its_latent(given, before.config, model, pictures, settings)
        taken = {name: t for name, t in given.items() if name in wanted and wanted[name].shape == t.shape}
        if not taken:
            raise TrainingError(f"{path}: none of its tensors fits the model to be trained: choose another --init")
        if lacking := _lacking(wanted, taken, settings.train):
            raise TrainingError(
                f"{path}: --train {settings.train} keeps the rest of the model, but {lacking} does not fit: leave the"
                " options of the architecture out"
            )
    lacks_codebooks = isinstance(model.latent, VqLatent) and _lacks_codebooks(model.latent, taken)
    if lacks_codebooks:  # a prior is of no use to other ones
        taken = {name: t for name, t in taken.items() if not name.startswith("latent.")}
    if len(taken) < len(model.state_dict()):
        start_from_principal_components(model, pictures.train, settings.seed)
    model.load_state_dict(taken, strict=False)
    if isinstance(model.latent, VqLatent) and lacks_codebooks:
        latents = _latents(model.encoder, model.config, pictures, settings)
        if model.latent.quantizer.ends:
            latents = turn_to_shared(model, latents)
        start_codebooks(model.latent.quantizer, latents, model.latent.bit_price(torch.linspace(0, 1, START_RATES)))
    if isinstance(model.latent, VqLatent) and model.latent.prior and not _has_prior(taken):
        order_codebooks(model.latent.quantizer, leaf=model.latent.prior.members)
    if init == PCA:
        return f"started from the principal components of {PATCHES} patches"
    said = f"started {len(taken)} of {len(model.state_dict())} tensors from {init}"
    if settings.train == "all" and (begun_anew := _revive(model, pictures, settings)):
        said += f", {begun_anew} silent channels begun anew"
    return said


def _for_its_latent(
    given: dict[str, Tensor],
    config: AutoencoderConfig,
    model: Autoencoder,
    pictures: Pictures,
    settings: TrainSettings,
) -> dict[str, Tensor]:
    """Tensors of a KL model, made to fit the latent of `model` where that is another one that they can be made for."""
    if can_widen(config, model.config):
        return widen(given, config, model, pictures.train, settings)
    if not isinstance(model.latent, VqLatent):
        return given
    given = in_steps(given, config, model.config)
    channels = model.config.latent_channels
    if channels < config.latent_channels:
        encoder = LiteEncoder(config)
        of_encoder = {n.removeprefix("encoder."): t for n, t in given.items() if n.startswith("encoder.")}
        encoder.load_state_dict(of_encoder)
        given = keep_principal(given, _latents(encoder, model.config, pictures, settings), channels)
    return given


@torch.no_grad()
def _revive(model: Autoencoder, pictures: Pictures, settings: TrainSettings) -> int:
    """Begin hidden channels anew that do nothing for some crops at the lowest, a middle and the highest rate."""
    with listening(model) as listener:
        for step, rate in enumerate((0.0, 0.5, 1.0)):
            pixels = batch_at(pictures.train, step, settings.batch, settings.crop, settings.seed + 3)
            served = model.config.served_rates([max(rate, 1e-6)])[0]
            model(pixels.float() / 127.5 - 1, torch.full((settings.batch,), served))
    return revive(model, listener)


def _lacks_codebooks(latent: VqLatent, taken: dict[str, Tensor]) -> bool:
    """Those of a model whose positions do not end are of no use to one whose positions do."""
    return any(f"latent.quantizer.{name}" not in taken for name in latent.quantizer.state_dict())


def _has_prior(taken: dict[str, Tensor]) -> bool:
    return any(name.startswith("latent.prior.") for name in taken)


def _lacking(wanted: dict[str, Tensor], taken: dict[str, Tensor], train: str) -> str | None:
    """The first tensor that the run would have to keep and that the start does not have."""
    new = {"all": ("",), "decoder": ("decoder.",), "prior": ("latent.prior.", "analysis.")}[train]
    return next((name for name in wanted if not name.startswith(new) and name not in taken), None)


@torch.no_grad()
def _latents(encoder: LiteEncoder, config: AutoencoderConfig, pictures: Pictures, settings: TrainSettings) -> Tensor:
    """Latents (N, C, h, w) of random crops, enough for k-means for a VQ model of this config."""
    wanted = config.codebook_size * (LATENTS_PER_CODE_WITH_ENDS if config.index_width else LATENTS_PER_CODE)
    latents: list[Tensor] = []
    for step in itertools.count():
        pixels = batch_at(pictures.train, step, settings.batch, settings.crop, settings.seed + 1)
        latents.append(encoder(pixels.float() / 127.5 - 1)[:, :, :MOST_SIDE, :MOST_SIDE].contiguous())
        if sum(y[:, 0].numel() for y in latents) >= wanted:
            break
    return torch.cat(latents)


def start_from_principal_components(model: Autoencoder, pictures: list[Pixels], seed: int) -> None:
    """Set the linear transforms, the gains and the prior's scales.

    Between its ends the Lagrangian weight is interpolated logarithmically. The latent is scaled so that a step of 1 is
    right in the middle; where the prior is N(0, 1), to unit variance.
    """
    config = model.config
    patches = _random_patches(pictures, config.factor, seed)  # (N, 3 f f) in [-1, 1]
    if config.latent_channels > patches.shape[1]:
        raise TrainingError(
            f"{config.latent_channels} latent channels are more than the {patches.shape[1]} principal components of"
            f" {config.factor}x{config.factor} pixels: give the config fewer, or --init random"
        )
    mean = patches.mean(0)
    variances, vectors = np.linalg.eigh(np.cov((patches - mean).T))
    order = np.argsort(variances)[::-1][: config.latent_channels]
    basis, deviations = vectors[:, order].T, np.sqrt(np.maximum(variances[order], 1e-6))  # (C, 3 f f), (C,)

    scale = np.full((len(basis), 1), 127.5 / config.step)
    if isinstance(model.latent, NormalLatent):
        scale = 1 / deviations[:, None]
    shape = (config.latent_channels, 3, config.factor, config.factor)
    average_color = mean.reshape(3, -1).mean(1)
    encoder = model.encoder.linear
    with torch.no_grad():
        bias = -(basis.reshape(*shape[:2], -1).sum(2) * average_color).sum(1) * scale[:, 0]
        assert encoder.bias is not None
        # of a Gaussian posterior the means alone; its log variances are the same everywhere at first
        encoder.weight.zero_()[: len(basis)] = torch.from_numpy(basis * scale).view(shape)
        encoder.bias.fill_(START_LOG_VARIANCE)[: len(basis)] = torch.from_numpy(bias)
        model.decoder.linear.weight.copy_(torch.from_numpy(basis / scale).view(shape))
        model.decoder.linear.bias.copy_(torch.from_numpy(average_color))  # type: ignore[union-attr]
        if isinstance(model.latent, KlLatent):
            gains = torch.tensor(config.start_log_gains)
            model.latent.log_gain.copy_(gains[:, None].expand_as(model.latent.log_gain))
            model.latent.prior.start_at(torch.from_numpy(deviations * scale[:, 0] * 0.5 + 0.05).float())


def _random_patches(pictures: list[Pixels], side: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, 1])
    patches = np.empty((PATCHES, side, side, 3), dtype=np.float32)
    for patch in patches:
        picture = pictures[rng.integers(len(pictures))]
        top, left = (rng.integers(0, extent - side + 1) for extent in picture.shape[:2])
        patch[:] = picture[top : top + side, left : left + side]
    return (patches.transpose(0, 3, 1, 2).reshape(PATCHES, -1) / 127.5 - 1).astype(np.float64)
