"""The one description of an autoencoder, from which every module is built and which travels inside its weights file."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from latentzip.errors import ModelError

CONFIG_VERSION = 1

Regularizer = Literal["kl", "vq"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Architecture of a `lite` autoencoder.

    `widths` lists the channels of the deep path level by level, finest first. The finest level is reached by
    space-to-depth of `factor / 2 ** (len(widths) - 1)` pixels, each further one by a stride of 2, so that the last
    stands at the latent's resolution.
    """

    regularizer: Regularizer
    factor: int = 16
    latent_channels: int = 128
    widths: tuple[int, ...] = (96, 192)
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    # KL: channel groups that the prior codes one after the other, its widths, and the knots of the gain curve
    prior_groups: tuple[int, ...] = (32, 96)
    hyper_channels: int = 64
    prior_width: int = 192
    gain_knots: int = 5
    # VQ: residual stages and codes in each
    stages: int = 4
    codebook_size: int = 4096

    def __post_init__(self) -> None:
        if self.factor not in (1, 2, 4, 8, 16, 32) or self.patch < 1:
            raise ModelError(
                f"a factor of {self.factor} with {len(self.widths)} levels cannot be built:"
                f" take 1, 2, 4, 8, 16 or 32, and at most one level more than its power of two"
            )
        if self.regularizer not in ("kl", "vq"):
            raise ModelError(f"regularizer {self.regularizer!r} is unknown: it is 'kl' or 'vq'")
        if self.regularizer == "kl" and sum(self.prior_groups) != self.latent_channels:
            raise ModelError(
                f"prior groups {self.prior_groups} must add up to the {self.latent_channels} latent channels"
            )

    @property
    def patch(self) -> int:
        """Side in pixels of the space-to-depth that leads to the finest level."""
        return self.factor >> (len(self.widths) - 1)

    def to_json(self) -> str:
        return json.dumps({"config_version": CONFIG_VERSION, "family": "lite", **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "AutoencoderConfig":
        """Inverse of `to_json`. Raises ModelError for a config that this version cannot build."""
        try:
            fields: dict[str, Any] = json.loads(text)
            version, family = fields.pop("config_version"), fields.pop("family")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(
                f"the model's config is not readable ({error!r}): fetch or train the model again"
            ) from None
        if version != CONFIG_VERSION or family != "lite":
            raise ModelError(
                f"the model's config has version {version!r} and family {family!r}; this latentzip knows version"
                f" {CONFIG_VERSION} of 'lite': install the latentzip that wrote it"
            )
        try:
            fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(**fields)
        except TypeError as error:
            raise ModelError(f"the model's config does not fit this version of latentzip ({error})") from None
