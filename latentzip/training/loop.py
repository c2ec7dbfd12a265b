"""The training loop."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DistError
from torch.nn.parallel import DistributedDataParallel

from latentzip.errors import TrainingError
from latentzip.models.autoencoder import Autoencoder, VqLatent
from latentzip.models.families import config_to_json
from latentzip.training.checkpoint import fitting, save_checkpoint, usable, what_was_kept
from latentzip.training.codebook import CodebookAverages
from latentzip.training.compiling import leave_uncompiled
from latentzip.training.conversion import to_unit_variance
from latentzip.training.data import Pictures, batches
from latentzip.training.interrupts import Interrupts
from latentzip.training.journal import Journal
from latentzip.training.losses import Losses, Objective
from latentzip.training.optimizer import MixedOptimizer, load_moments
from latentzip.training.parallel import World
from latentzip.training.settings import TrainSettings
from latentzip.training.typeset import masks_of, typeset_at
from latentzip.training.validation import save_grid, validate
from latentzip.zoo.checking import listed, not_finite
from latentzip.zoo.checkpoints import MODEL_NAME, save_weights

LOG_SECONDS = 10.0
# A validation score this many times the best one means that the run falls apart.
DIVERGENCE = 2.0


class Trainer:
    """One run: a model, its averages, its discriminator, their optimisers, and where it stands."""

    def __init__(
        self,
        model: Autoencoder,
        objective: Objective,
        settings: TrainSettings,
        out: Path,
        device: torch.device,
        world: World | None = None,
        interrupts: Interrupts | None = None,
    ) -> None:
        self.world = world or World(device=device)
        self.interrupts = interrupts or Interrupts()
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = objective
        self.settings = settings
        self.out = out
        self.device = device
        _freeze(model, settings.train)
        slow: tuple[nn.Module, ...] = ()
        self.codebooks: CodebookAverages | None = None
        if isinstance(model.latent, VqLatent):
            model.latent.quantizer.requires_grad_(False)  # codes follow by averages
            model.encoder.requires_grad_(settings.train == "all" and settings.vq_encoder_share > 0)
            slow = (model.encoder,)
            if settings.train == "all":
                self.codebooks = CodebookAverages(model.latent.quantizer, settings.codebook_decay, self.world)
        self.optimizer = MixedOptimizer(model, settings.learning_rate, slow, settings.vq_encoder_share)
        self.discriminator = objective.discriminator
        if self.discriminator is not None:
            self.discriminator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            learning = [p for p in self.discriminator.parameters() if p.requires_grad]
            self.discriminator_optimizer = torch.optim.AdamW(
                learning, lr=settings.disc_learning_rate, betas=(0.5, 0.9), weight_decay=0.0
            )
        self.forward: Callable[..., Any] = self.model
        self.judge: nn.Module | None = self.discriminator
        if self.world.size > 1:
            self.forward = DistributedDataParallel(self.model)
            self.judge = self.discriminator and DistributedDataParallel(self.discriminator)
        if settings.compile:
            leave_uncompiled(model)
            self.forward = torch.compile(self.forward)
        self.averages = {name: p.detach().clone() for name, p in model.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        self.best_score = math.inf
        self._stop = False  # as agreed by all processes

    def run(self, pictures: Pictures, journal: Journal | None) -> bool:
        """Train to the end of the settings (True), or to a signal (False); the last state is saved either way.

        The process that writes has a journal. Raises TrainingError where the run falls apart or memory runs out, and
        OutputError where it cannot be saved; the last good checkpoint stays.
        """
        s = self.settings
        tally = _Tally()
        epoch_steps = max(1, round(len(pictures.train) / s.batch))
        ready = batches(pictures.train, self.step, s.batch, s.crop, s.seed, s.type_share)
        with contextlib.closing(ready), self.interrupts.noting(), _failures_explained(s, self.world):
            started, before = time.monotonic(), self.seconds
            logged = saved = self.seconds  # by the clock that all processes share, so that they report together
            share = self.world.share(s.batch)
            for pixels in ready:
                self.seconds = before + self._agree(time.monotonic() - started)
                progress = s.progress(self.step, self.seconds / 60)
                finished = progress >= 1
                if finished or self._stop:
                    break
                tally.add(self._train_step(pixels[share], progress))
                if self.codebooks is not None and self.step % epoch_steps == 0:
                    tally.codebook_use = self.codebooks.take_usage()
                save = self.seconds - saved > 60 * s.checkpoint_minutes
                if save or self.seconds - logged > LOG_SECONDS:
                    self._report(tally, self.seconds - logged, journal)
                    logged = self.seconds
                if save:
                    self._validate_and_save(pictures, journal)
                    saved = self.seconds
            if tally.steps:
                self._report(tally, self.seconds - logged, journal)
            self._validate_and_save(pictures, journal)
        return finished

    def _train_step(self, pixels: Tensor, progress: float) -> Losses:
        """pixels: this process's part of the batch, (b, 3, H, W) uint8."""
        s = self.settings
        rate = self._sample_rates()[self.world.share(s.batch)].to(self.device)
        torch.manual_seed((s.seed + self.step) * self.world.size + self.world.rank)  # of the noise
        x = (pixels.to(self.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with s.autocast(self.device):
            out = self.forward(x, rate)
        self.model.zero_grad(set_to_none=True)
        masks = masks_of(typeset_at(self.step, s.batch, s.crop, s.seed, s.type_share), s.batch, s.crop)
        if masks is not None:
            masks = masks[self.world.share(s.batch)].to(self.device)
        last_layer = self.model.decoder.last_layer
        losses = self.objective.backward(x, out, rate, last_layer, progress, self.step, masks)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.gradient_clip)
        self.optimizer.step(self.learning_rate(progress))
        if self.codebooks is not None and out.indices is not None:
            self.codebooks.update(out.latent, out.indices)
        if self.judge is not None and s.trains_discriminator(progress):
            self._train_discriminator(x, out.x_hat)
        self._average()
        self.step += 1
        return losses

    def _train_discriminator(self, x: Tensor, x_hat: Tensor) -> None:
        assert self.judge is not None
        self.judge.zero_grad(set_to_none=True)
        self.objective.discriminator_loss(x, x_hat, self.step, self.judge).backward()  # type: ignore[no-untyped-call]
        self.discriminator_optimizer.step()

    def _sample_rates(self) -> Tensor:
        """Rates (batch,) spread evenly over the model's range, jittered; of a VQ model without a prior, whole stages.

        A function of the step, as batches and noise are, so that a resumed run goes on exactly.
        """
        count = self.settings.batch
        generator = torch.Generator().manual_seed(self.settings.seed + self.step)
        rate = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        rate = rate**self.settings.rate_power
        config = self.model.config
        if config.regularizer == "vq" and not config.index_width:
            rate = torch.ceil(rate * config.stages).clamp(min=1) / config.stages
        elif config.prior == "normal":
            rate = torch.ones(count)
        return rate

    def learning_rate(self, progress: float) -> float:
        """Warm-up, then constant, or a cosine down to 3 %."""
        s = self.settings
        warmup = min(1.0, (self.step + 1) / s.warmup_steps)
        fall = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)) if s.schedule == "cosine" else 1.0
        return s.learning_rate * warmup * fall

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema_decay, (self.step + 1) / (self.step + 10))
        current = self.model.state_dict()
        names = [name for name, average in self.averages.items() if average.is_floating_point()]
        torch._foreach_lerp_([self.averages[name] for name in names], [current[name] for name in names], 1 - decay)

    def _agree(self, elapsed: float) -> float:
        """The first process's clock, by which all validate and end, and whether all stop before this step.

        What is noted after this waits for the next step, so that no process stops alone.
        """
        state = torch.tensor([elapsed if self.world.writes else 0.0, float(self.interrupts.noted)])
        elapsed, stop = self.world.sum(state.to(self.device)).tolist()
        self._stop = stop > 0
        return elapsed

    def _report(self, tally: "_Tally", seconds: float, journal: Journal | None) -> None:
        means = {name: self.world.mean(value).item() for name, value in tally.means().items()}
        if not math.isfinite(means["total"]):
            raise self._diverged(f"the loss is no longer a number at step {self.step}")
        progress = self.settings.progress(self.step, self.seconds / 60)
        record: dict[str, Any] = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "progress": round(progress, 5),
            "steps_per_second": round(tally.steps / max(seconds, 1e-9), 3),
            "learning_rate": self.learning_rate(progress),
            "psnr": 10 * math.log10(255**2 / max(means["squared_error"], 1e-9)),
            **means,
        }
        if tally.codebook_use:
            record["codebook_use"] = tally.codebook_use
        with self.world.together():
            if journal is not None:
                journal.training(record)
        tally.clear()

    def _validate_and_save(self, pictures: Pictures, journal: Journal | None) -> None:
        """On the process that writes. A model that got much worse, or whose values are no numbers, is not saved."""
        with self.world.together():
            if journal is None:
                return
            half = {f"average of {name}": t.half() for name, t in self.averages.items() if t.is_floating_point()}
            if wrong := not_finite({**self.model.state_dict(), **half}):
                raise self._diverged(f"{listed(wrong)} is no longer finite by step {self.step}")
            best = False
            if pictures.held_out:
                record, grid = validate(self.model, self.averages, pictures.held_out, self.objective)
                if not record["score"] < DIVERGENCE * self.best_score:
                    raise self._diverged(
                        f"on the held-out pictures the score went from {self.best_score:.3f} to {record['score']:.3f}"
                        f" by step {self.step}"
                    )
                best = record["score"] < self.best_score
                self.best_score = min(self.best_score, record["score"])
                save_grid(self.out, self.step, grid)
                journal.validation({"step": self.step, **record})
            self.save(best=best)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(f"{self.out}: {what}; {what_was_kept(self.out)}")

    def save(self, *, best: bool = False) -> None:
        """Checkpoint for resumption, and the averaged weights as a model that encode and decode can use."""
        state = {
            "config": config_to_json(self.model.config),
            "settings": self.settings.to_json(),
            "step": self.step,
            "seconds": self.seconds,
            "best_score": self.best_score,
            "model": self.model.state_dict(),
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.codebooks is not None:
            state["codebooks"] = self.codebooks.state_dict()
        if self.discriminator is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        save_checkpoint(self.out, state, best=best)
        notes = {
            "steps": str(self.step),
            "minutes": f"{self.seconds / 60:.1f}",
            "settings": self.settings.to_public_json(),
        }
        tensors = self.averages
        if self.model.config.prior == "normal" and self.settings.train == "all":
            tensors = to_unit_variance(tensors)
        save_weights(self.out / MODEL_NAME, self.model.config, tensors, notes)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `read_checkpoint` gave. Raises TrainingError."""
        own = self.model.state_dict()
        with usable(self.out):
            if state["model"].keys() != own.keys():
                raise TrainingError(
                    f"{self.out}: another version of latentzip made its checkpoint: begin a new run with --init"
                    f" {self.out}, which takes all that fits"
                )
            averages = fitting(state["averages"], own, "averages")
            self.model.load_state_dict(fitting(state["model"], own, "model"))
            self.averages = {name: tensor.to(self.device, copy=True) for name, tensor in averages.items()}
            self.optimizer.load_state_dict(state["optimizer"])
            if self.codebooks is not None:
                self.codebooks.load_state_dict(
                    fitting(state.get("codebooks"), self.codebooks.state_dict(), "codebooks")
                )
            if self.discriminator is not None and "discriminator" in state:
                own = self.discriminator.state_dict()
                self.discriminator.load_state_dict(fitting(state["discriminator"], own, "discriminator"))
                load_moments(self.discriminator_optimizer, state.get("discriminator_optimizer"))
        self.step, self.seconds, self.best_score = state["step"], float(state["seconds"]), float(state["best_score"])


def _freeze(model: Autoencoder, train: str) -> None:
    """Let those parts learn that are to."""
    model.requires_grad_(train == "all")
    if train == "decoder":
        model.decoder.requires_grad_(True)
    elif train == "prior":
        for part in (getattr(model.latent, "prior", None), getattr(model, "analysis", None)):
            if part is not None:
                part.requires_grad_(True)


class _Tally:
    """Sums of the losses of some steps, kept on the device: reading them out would make it wait."""

    def __init__(self) -> None:
        self.codebook_use: list[float] = []  # by stage, of the last whole epoch
        self.clear()

    def clear(self) -> None:
        self.steps = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Losses) -> None:
        self.steps += 1
        for name, value in vars(losses).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self) -> dict[str, Any]:
        return {name: value / max(1, self.steps) for name, value in self._sums.items()}


@contextlib.contextmanager
def _failures_explained(settings: TrainSettings, world: World) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if world.size > 1 and (isinstance(error, DistError) or "closed by peer" in str(error)):
            raise TrainingError(f"process {world.rank}: another one has ended; go on with --resume") from None
        from torch._dynamo.exc import BackendCompilerFailed  # slow to import, and seldom needed

        if isinstance(error, BackendCompilerFailed):
            reason = str(error).splitlines()[0]
            raise TrainingError(f"--compile: {reason}: install a C++ compiler, or leave --compile out") from None
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
            raise
        smaller = f"--batch {max(1, settings.batch // 2)}"
        if settings.batch <= 2:
            smaller = f"--crop {max(64, settings.crop // 2)}"
        raise TrainingError(
            f"out of memory with --batch {settings.batch} --crop {settings.crop}: try {smaller}"
        ) from None
