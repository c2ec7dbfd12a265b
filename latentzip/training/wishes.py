"""Wishes that nothing would come of: what was asked for happens, or is refused."""

from collections.abc import Iterator, Mapping

from latentzip.errors import UsageError
from latentzip.models.config import AutoencoderConfig
from latentzip.training.perceptual import LPIPS, NONE
from latentzip.training.settings import TrainSettings

OF_PIXELS = {"reconstruction", "reconstruction_share", "means_weights", "chroma_weight", "type_weight"}
OF_NETWORK = {"perceptual", "perceptual_weight", "perceptual_every", "wasserstein_weight", "wasserstein_scale"}
OF_FEATURES = OF_NETWORK | {"perceptual_start", "perceptual_crops", "ssim_weight"}
OF_DISCRIMINATOR = {"discriminator", "adversarial", "disc_start"}
OF_CODES = {"commitment_weight", "vq_encoder_share", "codebook_decay"}
# These values say that something shall not be, which is true wherever it is not.
SAYS_NOTHING = {
    "perceptual": NONE,
    "perceptual_weight": 0,
    "wasserstein_weight": 0,
    "ssim_weight": 0,
    "chroma_weight": 0,
    "means_weights": (1.0,),
    "disc_weight": 0,
    "kl_weight": 0,
    "commitment_weight": 0,
}


def check_wishes(wishes: Mapping[str, object], settings: TrainSettings, config: AutoencoderConfig) -> None:
    """Raise UsageError where one of the wishes, fields of `settings`, would change nothing in a run for `config`."""
    if settings.train == "prior" and not (config.learns_prior or config.index_width):
        raise UsageError("--train prior: this model has no learned prior")
    if settings.has_perceptual and settings.wasserstein_weight and settings.perceptual == LPIPS:
        raise UsageError("--wasserstein-weight: --perceptual lpips gives no features to compare: take another network")
    for reason, fields in _without_effect(settings, config):
        for field in sorted(fields & wishes.keys()):
            if field not in SAYS_NOTHING or wishes[field] != SAYS_NOTHING[field]:
                raise UsageError(f"--{field.replace('_', '-')} would change nothing, for {reason}: leave it out")


def _without_effect(s: TrainSettings, config: AutoencoderConfig) -> Iterator[tuple[str, set[str]]]:
    """Reasons, and the fields that change nothing for each of them."""
    if not s.paints:
        yield "--train prior leaves pictures as they are", OF_PIXELS | OF_FEATURES | OF_DISCRIMINATOR | {"disc_weight"}
    if s.train != "all":
        yield f"--train {s.train} leaves the encoder and its latents as they are", OF_CODES | {"kl_weight"}
    if config.prior != "normal":
        yield "the model's prior is not N(0, 1)", {"kl_weight"}
    if config.regularizer != "vq":
        yield "the model has no codes", OF_CODES
    elif s.vq_encoder_share == 0:
        yield "--vq-encoder-share 0 leaves the encoder as it is", {"commitment_weight"}
    if not s.has_perceptual:
        yield "there is no perceptual loss", OF_NETWORK
        if not s.has_discriminator:
            yield "there is neither a perceptual loss nor a discriminator", {"perceptual_crops"}
    if not s.wasserstein_weight:
        yield "there is no Wasserstein distortion", {"wasserstein_scale"}
    if s.reconstruction == "l1":
        yield "the absolute error is that of R, G and B of pixels", {"means_weights", "chroma_weight"}
    if not s.type_share:
        yield "there is no type on the crops", {"type_weight"}
    if config.prior == "normal":
        yield "the model has one rate", {"rate_power"}
    if not (s.has_perceptual or s.has_ssim):
        yield "there is neither a perceptual loss nor SSIM", {"perceptual_start", "reconstruction_share"}
    elif s.perceptual_start == 1:
        yield "the perceptual loss and SSIM would begin where the run ends", {"perceptual_start"}
    if not s.has_discriminator:
        yield "there is no discriminator", OF_DISCRIMINATOR
    elif s.disc_start == 1:
        yield "the adversarial loss would begin where the run ends", {"disc_start"}
