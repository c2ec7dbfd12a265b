"""The one description of an autoencoder, from which every module is built and which travels inside its weights file."""

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from latentzip.errors import ModelError
from latentzip.models.fields import check_fields

CONFIG_VERSION = 1

Regularizer = Literal["kl", "vq"]
Prior = Literal["learned", "normal"]

# What a new model of each factor is made of: the deep path never works at more than half of the picture's resolution
# but where the factor leaves no choice, and a linear transform of f x f pixels has at most 3 f f components.
WIDTHS = {1: (32,), 2: (64,), 4: (64, 96), 8: (96, 192), 16: (96, 192), 32: (96, 192, 256)}
CHANNELS = {1: 3, 2: 12, 4: 32, 8: 64, 16: 128, 32: 256}
# Where the groups that the prior codes one after the other end, as parts of all channels. Small ones first: these carry
# most of the bits, and tell most about the others.
GROUP_ENDS = (16, 4, 2, 1)
KL_LAMBDAS = (0.00012, 0.04)  # at factor 16 about 0.05 to 0.8 bpp
VQ_LAMBDAS = (0.00012, 0.006)  # with a prior of indices
VQ_STAGES, VQ_CODES = 12, 1024  # many small ones, as positions take but what they need
# For the Lagrangian bpp + lambda * MSE (8-bit units) at high rate, the best step is sqrt(26 / lambda): uniform
# quantisation gives MSE = step**2 / 12, and a bit less per value costs four times the error.
STEP_CONSTANT = 26.0
# of latents for diffusion models, as in LDM (arXiv 2112.10752, table 8)
NORMAL_CHANNELS = {1: 3, 2: 2, 4: 3, 8: 4, 16: 16, 32: 64}

# What no model comes near: so that a strange config costs neither time nor memory.
MOST_CHANNELS, MOST_WIDTH, MOST_LEVELS, MOST_BLOCKS, MOST_CODES = 4096, 4096, 8, 64, 2**20
MOST_PARTS = 240  # of a latent: each may be a chunk of a file, which has 255 at most, with those of other types
MAX_TERMS = 2**12  # a sum of the prior that files are coded with has fewer: see `models.exact`
BOUNDS = {
    "factor": (1, 32),
    "latent_channels": (1, MOST_CHANNELS),
    "widths": (1, MOST_WIDTH),
    "encoder_blocks": (0, MOST_BLOCKS),
    "decoder_blocks": (0, MOST_BLOCKS),
    "detail_width": (0, MOST_WIDTH),
    "detail_blocks": (0, MOST_BLOCKS),
    "noise_planes": (0, MOST_WIDTH),
    "lambdas": (1e-9, 1e3),
    "prior_groups": (1, MOST_CHANNELS),
    "hyper_channels": (1, MOST_CHANNELS),
    "prior_width": (2, MOST_WIDTH),
    "gain_knots": (1, 256),
    "stages": (1, MOST_PARTS),
    "codebook_size": (2, MOST_CODES),
    "index_width": (0, MOST_WIDTH),
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Architecture of a `lite` autoencoder.

    `widths` lists the channels of the deep path level by level, finest first. The finest level is reached by
    space-to-depth of `factor / 2 ** (len(widths) - 1)` pixels, each further one by a stride of 2, so that the last
    stands at the latent's resolution.
    """

    family: ClassVar[Literal["lite"]] = "lite"

    regularizer: Regularizer
    # KL: to a learned prior, the rate of a compressed file, or to N(0, 1), for latents that diffusion models like
    prior: Prior = "learned"
    factor: int = 16
    latent_channels: int = 128
    widths: tuple[int, ...] = (96, 192)
    # residual blocks of every level, or of each, finest first
    encoder_blocks: int | tuple[int, ...] = 2
    decoder_blocks: int | tuple[int, ...] = 3
    # of the decoder's path at twice the finest level's resolution, which adds what squares of `patch` pixels painted
    # each from one position lack; 0: there is none
    detail_width: int = 0
    detail_blocks: int = 2
    # planes of noise for the decoder's finest level and its path for detail (see noise); 0: the decoder has none
    noise_planes: int = 0
    # Lagrangian weights at rates 0 and 1 of the squared error (8-bit units) against bits per pixel: what the rates mean
    lambdas: tuple[float, float] = (0.0003, 0.006)
    # KL: channel groups that the prior codes one after the other, its widths, and the knots of the gain curve
    prior_groups: tuple[int, ...] = (8, 24, 32, 64)
    hyper_channels: int = 64
    prior_width: int = 192
    gain_knots: int = 5
    # VQ: residual stages and codes in each
    stages: int = 4
    codebook_size: int = 4096
    # of the learned prior of indices, with which positions differ in how many stages they take; 0: there is none, all
    # take as many, and indices have a fixed length
    index_width: int = 0

    def __post_init__(self) -> None:
        check_fields(self, BOUNDS)
        if self.factor not in WIDTHS or not self.widths or self.patch < 1:
            raise ModelError(
                f"a factor of {self.factor} with {len(self.widths)} levels cannot be built:"
                f" take 1, 2, 4, 8, 16 or 32, and at most one level more than its power of two"
            )
        for blocks in (self.encoder_blocks, self.decoder_blocks):
            if isinstance(blocks, tuple) and len(blocks) != len(self.widths):
                raise ModelError(
                    f"{len(blocks)} numbers of blocks must be as many as the {len(self.widths)} widths, or one number"
                )
        if self.detail_width and self.patch < 2:
            raise ModelError("a path for detail needs a finest level coarser than the pixels")
        if self.prior == "normal" and self.regularizer != "kl":
            raise ModelError(f"a {self.regularizer} model has no prior 'normal': 'learned', or for kl also 'normal'")
        if self.lambdas[0] > self.lambdas[1]:
            raise ModelError(f"lambdas {self.lambdas} must not fall: they are those at the lowest and highest rate")
        if self.learns_prior:
            self._check_hyper_prior()
        if self.regularizer == "vq" and self.index_width:
            self._check_index_prior()

    def _check_hyper_prior(self) -> None:
        groups = self.prior_groups
        if sum(groups) != self.latent_channels or len(groups) > MOST_PARTS:
            raise ModelError(
                f"prior groups {reprlib.repr(groups)} must add up to the {self.latent_channels} latent channels, and be"
                f" at most {MOST_PARTS}"
            )
        # inputs of the largest kernels, see `models.prior`: 5x5 around the first parts, 3x3 elsewhere
        terms = {
            "hyper_channels": 25 * self.hyper_channels,
            "prior_groups": max(25 * groups[0], 9 * max(groups), 9 * sum(groups[:-1])),
            "prior_width": 9 * self.prior_width,
        }
        self._check_terms(terms)

    def _check_index_prior(self) -> None:
        if self.codebook_size < 4 or self.codebook_size & (self.codebook_size - 1):
            raise ModelError(f"a prior of indices needs a codebook of a power of two, not {self.codebook_size} codes")
        if self.index_width < 2:
            raise ModelError("a prior of indices has a width of 2 at least, and 0 where there is none")
        self._check_terms({"latent_channels": self.latent_channels + 1, "index_width": 25 * (self.index_width // 2)})

    def _check_terms(self, terms: dict[str, int]) -> None:
        for name, number in terms.items():
            if number >= MAX_TERMS:
                raise ModelError(
                    f"{name} {reprlib.repr(getattr(self, name))} is more than a prior that is exact everywhere can have"
                )

    @classmethod
    def for_factor(cls, regularizer: Regularizer, factor: int, prior: Prior = "learned") -> "AutoencoderConfig":
        """A new model's architecture. Raises ModelError for a factor that is not 1, 2, 4, 8, 16 or 32."""
        if factor not in WIDTHS:
            raise ModelError(f"a factor of {factor} cannot be built: take 1, 2, 4, 8, 16 or 32")
        channels = (NORMAL_CHANNELS if prior == "normal" else CHANNELS)[factor]
        ends = [0, *sorted({-(-channels // share) for share in GROUP_ENDS})]
        return cls(
            regularizer=regularizer,
            prior=prior,
            factor=factor,
            latent_channels=channels,
            widths=WIDTHS[factor],
            lambdas=cls.lambdas if prior == "normal" else KL_LAMBDAS if regularizer == "kl" else VQ_LAMBDAS,
            prior_groups=tuple(end - start for start, end in itertools.pairwise(ends)),
            stages=VQ_STAGES if regularizer == "vq" else cls.stages,
            codebook_size=VQ_CODES if regularizer == "vq" else cls.codebook_size,
            index_width=128 if regularizer == "vq" else 0,
        )

    def with_networks_of(self, other: "AutoencoderConfig") -> "AutoencoderConfig":
        """This latent space between the encoder and the decoder of `other`; of another factor they do not fit."""
        if other.factor != self.factor:
            return self
        names = ("widths", "encoder_blocks", "decoder_blocks", "detail_width", "detail_blocks", "noise_planes")
        return dataclasses.replace(self, **{name: getattr(other, name) for name in names})

    @property
    def learns_prior(self) -> bool:
        return self.regularizer == "kl" and self.prior == "learned"

    @property
    def gives_moments(self) -> bool:
        """Whether the encoder gives mean and log variance of a Gaussian posterior, or the latent itself."""
        return self.prior == "normal"

    @property
    def moments(self) -> int:
        """Channels that the encoder gives."""
        return self.latent_channels * (2 if self.gives_moments else 1)

    @property
    def index_digits(self) -> tuple[int, int]:
        """Values of an index's two digits: groups of codes, and codes in each."""
        bits = self.codebook_size.bit_length() - 1
        return 1 << bits // 2, 1 << bits - bits // 2

    def served_rates(self, rates: Iterable[float]) -> list[float]:
        """The rates in (0, 1] that the model really has, nearest above each of `rates`, without repetition."""
        if self.regularizer == "vq" and not self.index_width:
            return sorted({math.ceil(rate * self.stages) / self.stages for rate in rates})
        return [1.0] if self.prior == "normal" else list(rates)

    @property
    def step(self) -> float:
        """The quantisation step that is right in the middle of the lambdas, in 8-bit levels of a pixel."""
        low, high = self.lambdas
        return math.sqrt(STEP_CONSTANT / math.sqrt(low * high))

    @property
    def start_log_gains(self) -> list[float]:
        """Those of a new channel at each knot: between the ends the lambdas, and so steps, are interpolated."""
        low, high = self.lambdas
        last = max(1, self.gain_knots - 1)
        return [0.5 * (knot / last - 0.5) * math.log(high / low) for knot in range(self.gain_knots)]

    @property
    def patch(self) -> int:
        """Side in pixels of the space-to-depth that leads to the finest level."""
        return self.factor >> (len(self.widths) - 1)
