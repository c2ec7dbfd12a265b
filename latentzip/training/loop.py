"""The training loop."""

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from latentzip.errors import TrainingError
from latentzip.models.autoencoder import Autoencoder, VqLatent
from latentzip.training.checkpoint import read_checkpoint, save_checkpoint
from latentzip.training.codebook import CodebookAverages
from latentzip.training.data import Pictures, batches
from latentzip.training.losses import Losses, Objective
from latentzip.training.optimizer import MixedOptimizer
from latentzip.training.settings import TrainSettings
from latentzip.training.validation import validate
from latentzip.zoo.checkpoints import MODEL_NAME, save_weights

LOG_SECONDS = 20.0


class Trainer:
    """One run: a model, its averages, its optimiser, and where it stands."""

    def __init__(
        self, model: Autoencoder, objective: Objective, settings: TrainSettings, out: Path, device: torch.device
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = objective
        self.settings = settings
        self.out = out
        self.device = device
        self.model.encoder.requires_grad_(not settings.freeze_encoder)
        self.optimizer = MixedOptimizer(model, settings.learning_rate)
        self.averages = {name: p.detach().clone() for name, p in model.state_dict().items()}
        self.codebooks: CodebookAverages | None = None
        if isinstance(model.latent, VqLatent):
            self.codebooks = CodebookAverages(model.latent.quantizer, settings.codebook_decay)
        self.step = 0
        self.seconds = 0.0
        self._stop = False

    def run(self, pictures: Pictures, say: Callable[[str], None]) -> None:
        """Train to the end of the settings, or to a signal; the last state is in the run's folder either way."""
        s = self.settings
        with _signals_to(self._on_signal):
            started = last_log = last_save = time.monotonic()
            before, steps_logged = self.seconds, self.step
            for x in batches(pictures.train, self.step, s.batch, s.crop, s.seed):
                progress = s.progress(self.step, self.seconds / 60)
                if progress >= 1 or self._stop:
                    break
                losses = self._train_step(x, progress)
                now = time.monotonic()
                self.seconds = before + now - started
                if now - last_log > LOG_SECONDS:
                    self._check(losses)
                    self._log(losses, progress, (self.step - steps_logged) / (now - last_log), say)
                    last_log, steps_logged = now, self.step
                if now - last_save > 60 * s.checkpoint_minutes:
                    self._check(losses)
                    say(validate(self.model, self.averages, pictures.held_out, self.objective, self.step))
                    self.save()
                    last_save = time.monotonic()
        self.save()
        say(validate(self.model, self.averages, pictures.held_out, self.objective, self.step))

    def _train_step(self, pixels: Tensor, progress: float) -> Losses:
        """pixels: (B, 3, H, W) uint8."""
        s = self.settings
        torch.manual_seed(s.seed + self.step)  # the noise too is a function of the step, for exact resumption
        x = (pixels.to(self.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        rate = self._sample_rates(len(x))
        with torch.autocast(self.device.type, torch.bfloat16):
            out = self.model(x, rate)
            losses = self.objective(x, out, rate, progress, self.step)
        self.model.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.gradient_clip)
        self.optimizer.step(self._learning_rate(progress))
        if self.codebooks is not None and out.indices is not None:
            self.codebooks.update(out.latent, out.indices)
        self._average()
        self.step += 1
        return losses

    def _sample_rates(self, count: int) -> Tensor:
        """(B,) rates spread evenly over the model's range, jittered; of a VQ model, whole stages."""
        rate = (torch.randperm(count) + torch.rand(count)) / count
        if self.codebooks is not None:
            stages = self.model.config.stages
            rate = torch.ceil(rate * stages).clamp(min=1) / stages
        return rate.to(self.device)

    def _learning_rate(self, progress: float) -> float:
        """Warm-up, then a cosine down to 3 %."""
        warmup = min(1.0, (self.step + 1) / self.settings.warmup_steps)
        return self.settings.learning_rate * warmup * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema_decay, (self.step + 1) / (self.step + 10))
        current = self.model.state_dict()
        names = [name for name, average in self.averages.items() if average.is_floating_point()]
        torch._foreach_lerp_([self.averages[name] for name in names], [current[name] for name in names], 1 - decay)

    def _check(self, losses: Losses) -> None:
        if not torch.isfinite(losses.total):
            raise TrainingError(
                f"{self.out}: the loss is no longer a number at step {self.step}: resume from the last checkpoint with"
                " a lower --learning-rate"
            )

    def _log(self, losses: Losses, progress: float, speed: float, say: Callable[[str], None]) -> None:
        record: dict[str, Any] = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "progress": round(progress, 4),
            "learning_rate": self._learning_rate(progress),
            **{name: float(value.detach()) for name, value in vars(losses).items()},
        }
        usage = ""
        if self.codebooks is not None:
            record["codebook_use"] = self.codebooks.take_usage()
            usage = "  codes in use " + "/".join(f"{share:.0%}" for share in record["codebook_use"])
        with open(self.out / "log.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        psnr = 10 * math.log10(255**2 / max(record["reconstruction"], 1e-9))
        say(
            f"step {self.step}  {record['minutes']:.1f} min ({progress:.0%})  {speed:.2f} steps/s"
            f"  loss {record['total']:.3f}  {record['bpp']:.3f} bpp  {psnr:.2f} dB"
            f"  perceptual {record['perceptual']:.3f}{usage}"
        )

    def save(self) -> None:
        """Checkpoint for resumption, and the averaged weights as a model that encode and decode can use."""
        state = {
            "config": self.model.config.to_json(),
            "settings": self.settings.to_json(),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
            "codebooks": self.codebooks.state_dict() if self.codebooks is not None else {},
        }
        save_checkpoint(self.out, state)
        trunk = Path(self.settings.perceptual).name if self.settings.perceptual else None
        public = dataclasses.replace(self.settings, perceptual=trunk)  # where it lay is nobody's business
        notes = {"steps": str(self.step), "minutes": f"{self.seconds / 60:.1f}", "settings": public.to_json()}
        save_weights(self.out / MODEL_NAME, self.model.config, self.averages, notes)

    def resume(self) -> None:
        """Go on from the checkpoint in the run's folder."""
        state = read_checkpoint(self.out)
        self.model.load_state_dict(state["model"])
        self.averages = {name: tensor.to(self.device) for name, tensor in state["averages"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.codebooks is not None:
            self.codebooks.load_state_dict(state["codebooks"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True


@contextlib.contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM call `handler` instead of ending the process."""
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in old.items():
            signal.signal(number, former)
