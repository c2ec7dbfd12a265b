"""An autoencoder: encoder, latent space, decoder. The three parts have weights of their own and can be had apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentzip.models.config import STEP_CONSTANT, AutoencoderConfig
from latentzip.models.exact_index_prior import ExactIndexPrior
from latentzip.models.exact_prior import ExactHyperPrior
from latentzip.models.families import ModelConfig
from latentzip.models.index_prior import IndexPrior
from latentzip.models.ldm import LdmConfig
from latentzip.models.lite import LiteDecoder, LiteEncoder
from latentzip.models.posterior import GaussianPosterior
from latentzip.models.prior import HyperAnalysis, HyperPrior, bits, scale_table
from latentzip.models.quantizer import ResidualQuantizer
from latentzip.models.tiny import TinyConfig


@dataclass(frozen=True)
class TrainingOutput:
    """What a training step needs: x_hat (B, 3, H, W), about [-1, 1], and each picture's regularisation (B,)."""

    x_hat: Tensor
    bpp: Tensor  # learned prior: estimated rate in bits per pixel; else that of the file, a constant
    commitment: Tensor  # VQ: squared distance to the codes, summed over channels, mean over positions; else zero
    kl: Tensor  # N(0, 1) prior: KL divergence in nats, per value of the picture; else zero
    latent: Tensor  # what the encoder gave (B, C, H/f, W/f)
    indices: Tensor | None  # VQ: the codes of all stages (B, K, H/f, W/f)


class KlLatent(nn.Module):
    """Latent space of a KL model: quantisation steps for every rate, and the prior.

    The encoder's latent times the gain is in units of the quantisation step. One gain curve per channel, given at
    `gain_knots` rates and log-linear between them, makes one model serve every rate (Cui et al. 2021,
    arXiv 2003.02012).
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(config.gain_knots, config.latent_channels))
        self.prior = HyperPrior(config)
        self.scale_table: Tensor
        self.register_buffer("scale_table", scale_table())
        self._exact: ExactHyperPrior | None = None

    @property
    def exact(self) -> ExactHyperPrior:
        """The prior that files are coded with, made once of the trained one: not to be asked for before that is.

        Without `cached_property`, whose lock, before Python 3.12, stays locked in a process that is forked meanwhile.
        """
        if self._exact is None:
            self._exact = ExactHyperPrior(self.prior)
        return self._exact

    @property
    def channels(self) -> int:
        return self.log_gain.shape[1]

    def gain(self, rate: Tensor) -> Tensor:
        """rate (B,) in [0, 1] -> factor (B, C, 1, 1), positive."""
        knots = self.log_gain.shape[0]
        place = rate.float() * (knots - 1)
        below = place.floor().long().clamp(max=knots - 2)
        share = (place - below)[:, None]
        log_gain = torch.lerp(self.log_gain[below], self.log_gain[below + 1], share)
        return log_gain.exp()[:, :, None, None]


class VqLatent(nn.Module):
    """Latent space of a VQ model: the codebooks, and the prior of their indices if the model has one.

    With a prior, positions take as many stages as are worth their bits at a rate, else all the same: a rate of s / K
    stands for the first s of K stages.
    """

    def __init__(self, config: AutoencoderConfig | LdmConfig) -> None:
        super().__init__()
        self.prior = IndexPrior(config) if isinstance(config, AutoencoderConfig) and config.index_width else None
        ends = self.prior is not None
        self.quantizer = ResidualQuantizer(config.stages, config.codebook_size, config.latent_channels, ends=ends)
        self.lambdas = config.lambdas if isinstance(config, AutoencoderConfig) else None
        self._exact: ExactIndexPrior | None = None

    def bit_price(self, rate: Tensor) -> Tensor:
        """With a prior: the squared error of a latent vector that a bit is worth. rate: (B,) -> (B,).

        In units of the step that is right in the middle of the rates. There the squared error of a latent vector is
        3 f f lambda / STEP_CONSTANT times the mean one of its f x f pixels, and a bit is 1 / (f f) bits per pixel.
        """
        assert self.lambdas is not None
        low, high = self.lambdas
        return 3 / STEP_CONSTANT * (high / low) ** (0.5 - rate)

    @property
    def exact(self) -> ExactIndexPrior:
        """The prior that files are coded with, where there is one: see `KlLatent.exact`."""
        if self._exact is None:
            assert self.prior is not None
            self._exact = ExactIndexPrior(self.prior, self.quantizer.codebooks)
        return self._exact


class NormalLatent(nn.Module):
    """Latent space of a KL model whose prior is N(0, 1): nothing but the statistics of its latents, per channel.

    Diffusion models want latents of unit variance: (latent - mean) / std has it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @property
    def channels(self) -> int:
        return self.mean.shape[0]

    @torch.no_grad()
    def follow(self, latent: Tensor, momentum: float = 0.01) -> None:
        """Move the statistics towards those of a batch (B, C, h, w)."""
        self.mean.lerp_(latent.mean((0, 2, 3)), momentum)
        self.std.lerp_(latent.std((0, 2, 3)), momentum)


Latent = KlLatent | VqLatent | NormalLatent


def make_latent(config: ModelConfig) -> Latent:
    """The latent space of a model of any family. Of public KL models it is scaled: its statistics stay 0 and 1."""
    if not isinstance(config, TinyConfig) and config.regularizer == "vq":
        return VqLatent(config)
    if isinstance(config, AutoencoderConfig) and config.learns_prior:
        return KlLatent(config)
    return NormalLatent(config.latent_channels)


class Autoencoder(nn.Module):
    """The whole model, for training. Codecs load the parts that they need (see zoo.loading)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = LiteEncoder(config)
        self.decoder = LiteDecoder(config)
        self.latent = make_latent(config)
        if config.learns_prior:
            self.analysis = HyperAnalysis(config)

    def forward(self, x: Tensor, rate: Tensor) -> TrainingOutput:
        """x: (B, 3, H, W) float in [-1, 1], sides multiples of the factor; rate: (B,) in [0, 1]."""
        y = self.encoder(x).float()
        if isinstance(self.latent, KlLatent):
            return self._forward_kl(self.latent, y, rate)
        if isinstance(self.latent, NormalLatent):
            return self._forward_normal(self.latent, y, rate)
        if self.latent.prior is not None:
            return self._forward_vq_with_prior(self.latent, self.latent.prior, y, rate)
        return self._forward_vq(self.latent, y, rate)

    def _forward_kl(self, latent: KlLatent, y: Tensor, rate: Tensor) -> TrainingOutput:
        """Rate by additive uniform noise, reconstruction by rounding with straight-through gradients."""
        gain = latent.gain(rate)
        v = y * gain
        parts = (self.analysis(v).float(), *torch.split(v, list(self.config.prior_groups), 1))
        expected: list[tuple[Tensor, Tensor, Tensor]] = []

        def code(part: int, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
            mean, index = mean.float(), index.float()
            expected.append((mean, index, mask))
            return straight_through(parts[part], torch.round(parts[part] - mean) + mean)

        coded = latent.prior.sweep(rate, (v.shape[2], v.shape[3]), code)
        total = torch.zeros_like(rate)
        for part, (m1, i1, even), (m2, i2, _) in zip(parts, expected[::2], expected[1::2], strict=True):
            cost = bits(with_uniform_noise(part), torch.where(even, m1, m2), torch.where(even, i1, i2))
            total = total + cost.sum((1, 2, 3))

        pixels = y.shape[2] * y.shape[3] * self.config.factor**2
        x_hat = self.decoder(coded / gain, rate).float()
        nothing = torch.zeros_like(rate)
        return TrainingOutput(x_hat, total / pixels, nothing, nothing, y.detach(), None)

    def _forward_normal(self, latent: NormalLatent, moments: Tensor, rate: Tensor) -> TrainingOutput:
        """A sample of the posterior in training, its mode in evaluation."""
        posterior = GaussianPosterior(moments)
        y = posterior.sample() if self.training else posterior.mode
        if self.training and moments.requires_grad:
            latent.follow(posterior.mode)
        x_hat = self.decoder(y, rate).float()
        values_per_position = 3 * self.config.factor**2
        kl = posterior.kl() / (values_per_position * y.shape[2] * y.shape[3])
        nothing = torch.zeros_like(rate)
        half_precision = torch.full_like(rate, 16 * y.shape[1] / self.config.factor**2)
        return TrainingOutput(x_hat, half_precision, nothing, kl, posterior.mode.detach(), None)

    def _forward_vq(self, latent: VqLatent, y: Tensor, rate: Tensor) -> TrainingOutput:
        """The first s stages of each picture's codes, with straight-through gradients to the encoder."""
        quantizer = latent.quantizer
        stages = (rate * quantizer.stages).round().long()
        indices = quantizer.search(y, beam=1)
        codes = torch.stack([book[indices[:, k]] for k, book in enumerate(quantizer.codebooks)], 1)
        partial = codes.cumsum(1).permute(0, 1, 4, 2, 3).detach()  # (B, K, C, h, w): sums of the first 1..K codes
        quantized = partial[torch.arange(len(stages)), stages - 1]
        commitment = (y - quantized).square().sum(1).mean((1, 2))
        x_hat = self.decoder(straight_through(y, quantized), rate).float()
        fixed_bits = (self.config.codebook_size - 1).bit_length()
        bpp = stages * fixed_bits / self.config.factor**2
        return TrainingOutput(x_hat, bpp, commitment, torch.zeros_like(rate), y.detach(), indices)

    def _forward_vq_with_prior(self, latent: VqLatent, prior: IndexPrior, y: Tensor, rate: Tensor) -> TrainingOutput:
        """As many stages as are worth their bits, with straight-through gradients to the encoder."""
        quantizer = latent.quantizer
        indices = quantizer.search(y, price=latent.bit_price(rate))  # as in a file: with one path, codes are others
        quantized = quantizer.decode(indices).detach()
        commitment = (y - quantized).square().sum(1).mean((1, 2))
        x_hat = self.decoder(straight_through(y, quantized), rate).float()
        total = prior.bits(quantizer.codebooks, indices, rate).sum(1)
        bpp = total / (y.shape[2] * y.shape[3] * self.config.factor**2)
        return TrainingOutput(x_hat, bpp, commitment, torch.zeros_like(rate), y.detach(), indices)


def straight_through(x: Tensor, coded: Tensor) -> Tensor:
    """The values of `coded`, with x's gradient."""
    return x + (coded - x).detach()


def with_uniform_noise(x: Tensor) -> Tensor:
    """A sample of the uniform posterior of width 1 around x."""
    return x + torch.rand_like(x) - 0.5
