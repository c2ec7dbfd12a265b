"""What a training run is asked to do. Stored in its checkpoints, so that a resumed run goes on as it began."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from latentzip.errors import TrainingError


@dataclass(frozen=True)
class TrainSettings:
    """Defaults are those of the built-in models; where they were measured is in docs/training.md."""

    max_minutes: float | None = None
    max_steps: int | None = None
    batch: int = 12
    crop: int = 192
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    seed: int = 0
    # Lagrangian weights of the mean squared error (8-bit units, against bits per pixel) at rates 0 and 1
    lambdas: tuple[float, float] = (0.0003, 0.006)
    reconstruction_weight: float = 1.0
    perceptual: str | None = None  # VGG16 trunk, a file; without it there is no perceptual loss
    # beside the perceptual loss the reconstruction loss counts this much of its weight
    reconstruction_share: float = 0.3
    perceptual_weight: float = 0.25
    perceptual_start: float = 0.2  # of the run
    perceptual_crops: int = 3  # of each batch; the distance costs more than the networks
    perceptual_crop: int = 128
    commitment_weight: float = 0.01
    codebook_decay: float = 0.99
    freeze_encoder: bool = False  # decoder and codebooks alone learn
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    cache_bytes: int = 4 << 30
    checkpoint_minutes: float = 4.0

    def __post_init__(self) -> None:
        if self.max_minutes is None and self.max_steps is None:
            raise TrainingError("a training run needs an end: give --max-minutes or --max-steps")

    def progress(self, step: int, minutes: float) -> float:
        """How much of the run is done, 0..1: by steps or by minutes, whichever is further."""
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_minutes = minutes / self.max_minutes if self.max_minutes else 0.0
        return min(1.0, max(by_steps, by_minutes))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrainSettings":
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**fields)
