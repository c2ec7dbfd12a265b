"""What a training run is asked to do. Stored in its checkpoints, so that a resumed run goes on as it began."""

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch

from latentzip.errors import UsageError
from latentzip.training.discriminator import AdversarialForm
from latentzip.training.fidelity import SIDES
from latentzip.training.perceptual import NONE

VERSION = 2  # of the settings: in the first, SSIM did not count without a perceptual network
POSITIVE = math.ulp(0.0)  # the least number above 0
# The least and the most that a number may be; of the others, the least is 0.
LIMITS: dict[str, tuple[float, float]] = {
    "max_minutes": (POSITIVE, math.inf),
    "max_steps": (1, math.inf),
    "batch": (1, 2**16),
    "crop": (64, 2**16),
    "seed": (0, 2**32 - 1),
    "warmup_steps": (1, math.inf),
    "gradient_clip": (POSITIVE, math.inf),
    "ema_decay": (0, 1),
    "perceptual_start": (0, 1),
    "perceptual_crops": (1, math.inf),
    "perceptual_crop": (32, 2**16),
    "perceptual_every": (1, math.inf),
    "wasserstein_scale": (0, 6),
    "type_share": (0, 1),
    "rate_power": (0.1, 10),
    "disc_start": (0, 1),
    "disc_lead": (0, 1),
    "disc_width": (1, 2**10),
    "disc_layers": (1, 8),
    "codebook_decay": (0, 1),
    "checkpoint_minutes": (POSITIVE, math.inf),
}


@dataclass(frozen=True)
class TrainSettings:
    """Weights and shares have no unit; where the defaults were measured is in docs/training.md.

    Raises UsageError for values of another type, that are not finite, or outside of LIMITS.
    """

    max_minutes: float | None = None
    max_steps: int | None = None
    init: str = "pca"  # where the run started: a model, pca or random
    # decoder: the latent space stays, and old files stay decodable; prior: the pictures stay, their bits change
    train: Literal["all", "decoder", "prior"] = "all"
    batch: int = 12  # crops a step, over all processes
    crop: int = 192
    precision: Literal["bf16", "fp32"] = "bf16"  # of the networks' products; weights and losses are in float32
    compile: bool = False  # the networks by torch.compile: a minute at the start, faster steps
    seed: int = 0
    # rates are drawn as u ** rate_power, u even in [0, 1]: above 1 the low ones come more often
    rate_power: float = 1.0
    learning_rate: float = 4e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    # the encoder of a VQ model learns at this share of the rate: faster, its latents run away from their codes
    vq_encoder_share: float = 0.05

    # L_rec; its weight against the bits is the model's (AutoencoderConfig.lambdas)
    reconstruction: Literal["mse", "l1"] = "mse"
    reconstruction_share: float = 0.4  # beside the perceptual loss
    # of the squared errors of pixels and of the means of 2, 4, 8 and 16 pixels a side (see fidelity)
    means_weights: tuple[float, ...] = (1.0,)
    chroma_weight: float = 0.0  # of the squared errors of Cb and Cr beside that of R, G and B
    type_share: float = 0.0  # of the crops have type on them (see typeset)
    type_weight: float = 10.0  # times lambda, of the absolute error in 8-bit levels where there is type
    # the perceptual part of L_rec, on parts of some of the batch's crops: it costs more than the networks
    perceptual: str = "efficientnet"  # none, efficientnet, lpips, or a VGG16 trunk's file
    perceptual_weight: float = 0.25
    perceptual_start: float = 0.0  # of the run
    perceptual_crops: int = 4
    perceptual_crop: int = 128
    perceptual_every: int = 1  # steps; on the others the perceptual part is left out, and counts as much more on these
    # of the Wasserstein distortion on the same features, and log2 of its neighbourhood's deviation (see wasserstein)
    wasserstein_weight: float = 0.0
    wasserstein_scale: float = 3.0
    ssim_weight: float = 1.0  # of 1 - SSIM, which begins when the perceptual part does
    # L_adv, on the same parts. What weighs it against L_rec is the gradients' norms at the decoder's last layer for a
    # patch discriminator, at the reconstruction for the one on frozen features (see projected).
    discriminator: Literal["patch", "projected"] = "patch"
    adversarial: AdversarialForm = "hinge"
    disc_weight: float = 0.5  # times the adaptive weight; 0: no discriminator
    disc_start: float = 0.5  # of the run: when the autoencoder begins to see the discriminator
    disc_lead: float = 0.1  # of the run: how long before that the discriminator learns alone
    disc_learning_rate: float = 2e-4
    disc_width: int = 32
    disc_layers: int = 3
    # L_reg
    kl_weight: float = 1e-6  # to N(0, 1)
    commitment_weight: float = 0.2  # at the middle of the lambdas
    codebook_decay: float = 0.999

    cache_bytes: int = 4 << 30
    checkpoint_minutes: float = 4.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if not _is_a(value, field.type):
                raise UsageError(f"{option} {value}: no value that it can have")
            least, most = LIMITS.get(field.name, (0, math.inf))
            values = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, (int, float)) and not least <= number <= most for number in values):
                at_least = "more than 0" if least == POSITIVE else f"at least {least}"
                raise UsageError(f"{option} {value}: must be {at_least}" + f" and at most {most}" * (most < math.inf))
        if not 1 <= len(self.means_weights) <= len(SIDES):
            raise UsageError(f"--means-weights {self.means_weights}: must be one to {len(SIDES)} numbers")
        if self.max_minutes is None and self.max_steps is None:
            raise UsageError("a training run needs an end: give --max-minutes or --max-steps")

    def progress(self, step: int, minutes: float) -> float:
        """How much of the run is done, 0..1: by steps or by minutes, whichever is further."""
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_minutes = minutes / self.max_minutes if self.max_minutes else 0.0
        return min(1.0, max(by_steps, by_minutes))

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def paints(self) -> bool:
        """Whether pictures change, so that losses of pictures matter."""
        return self.train != "prior"

    @property
    def has_perceptual(self) -> bool:
        return self.paints and self.perceptual != NONE and self.perceptual_weight + self.wasserstein_weight > 0

    @property
    def has_ssim(self) -> bool:
        return self.paints and self.ssim_weight > 0

    @property
    def has_discriminator(self) -> bool:
        return self.paints and self.disc_weight > 0

    def sees_discriminator(self, progress: float) -> bool:
        return self.has_discriminator and progress >= self.disc_start

    def trains_discriminator(self, progress: float) -> bool:
        return self.has_discriminator and progress >= self.disc_start - self.disc_lead

    def to_json(self) -> str:
        return json.dumps({"settings_version": VERSION, **dataclasses.asdict(self)})

    def to_public_json(self) -> str:
        """Without the folders in which the model to start from and the perceptual trunk lay."""
        return dataclasses.replace(self, init=Path(self.init).name, perceptual=Path(self.perceptual).name).to_json()

    @classmethod
    def from_json(cls, text: str) -> "TrainSettings":
        """Inverse of `to_json`, for what earlier versions wrote too. Raises TypeError, ValueError or UsageError."""
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise TypeError("not a JSON object")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        if fields.pop("settings_version", 1) == 1 and fields.get("perceptual") == NONE:
            fields["ssim_weight"] = 0.0
        fields.setdefault("ssim_weight", 0.0)  # runs of before it was part of L_rec
        return cls(**fields)


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; of numbers only those that are finite, as computing wants them."""
    if get_origin(kind) in (Union, UnionType):
        return any(_is_a(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, NoneType if kind is None else kind)
