"""`latentzip train` below its command line: put a run together, start it, or go on with one."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentzip.errors import ModelError, OutputError, TrainingError
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import CONFIG_VERSION, AutoencoderConfig, Prior, Regularizer
from latentzip.models.families import config_from_json, trainable
from latentzip.training.card import write_card
from latentzip.training.checkpoint import has_checkpoint, read_checkpoint
from latentzip.training.data import Pictures, load_pictures
from latentzip.training.discriminator import PatchDiscriminator
from latentzip.training.journal import Display, Journal
from latentzip.training.loop import Trainer
from latentzip.training.losses import Objective
from latentzip.training.parallel import World
from latentzip.training.perceptual import load_perceptual
from latentzip.training.settings import TrainSettings
from latentzip.training.start import PCA, RANDOM, start
from latentzip.zoo import checkpoints
from latentzip.zoo.checkpoints import MODEL_NAME
from latentzip.zoo.loading import locate

DEFAULT_MINUTES = 30.0
# A new model learns the coarse things first, fast; perceptual gradients, of a few crops, drown in such steps.
FROM_ZERO = {"learning_rate": 2e-3, "perceptual_start": 0.3}


def train(
    data: Path,
    out: Path,
    config: AutoencoderConfig | None,
    wishes: dict[str, Any],
    *,
    init: str | None,
    resume: bool,
    device: torch.device,
    display: Display,
) -> None:
    """Train a model on the pictures below `data` and leave it in `out`.

    It starts from `init`: a model (name, weights file or run folder), "pca" or "random"; without, from principal
    components where a `config` is given, else from the default model. A resumed run keeps its config and its settings.
    `wishes` are fields of TrainSettings that are to differ from the defaults, or from what the resumed run had.
    Raises TrainingError, ModelError or OutputError.
    """
    config, settings = _resumed(out, config, wishes) if resume else _fresh(out, init, config, wishes)
    _check(settings, config)
    world, device = World.join(device)
    try:
        made = _prepare_folder(out) if world.writes else []
        say = display.say if world.writes else _say_nothing
        perceptual = load_perceptual(settings.perceptual)
        say(f"perceptual loss: {perceptual.name if perceptual is not None else 'none'}")
        try:
            pictures = load_pictures(data, settings.crop, settings.cache_bytes)
        except TrainingError:
            with contextlib.suppress(OSError):
                for folder in made:  # for nothing
                    folder.rmdir()
            raise
        _say_what_was_found(pictures, say)
        torch.manual_seed(settings.seed)
        model = Autoencoder(config)
        if not resume:
            say(start(model, pictures, settings))
        discriminator = None
        if settings.disc_weight > 0:
            discriminator = PatchDiscriminator(settings.disc_width, settings.disc_layers)
        objective = Objective(settings, config.lambdas, perceptual and perceptual.to(device), discriminator, world.size)
        trainer = Trainer(model, objective, settings, out, device, world)
        if resume:
            trainer.resume()
            say(f"resumed at step {trainer.step}, {trainer.seconds / 60:.1f} minutes")
        journal = Journal(out, display) if world.writes else None
        finished = trainer.run(pictures, journal)
        if world.writes:
            write_card(out, config, settings, pictures, trainer.step, trainer.seconds)
        if finished:
            say(f"done: {out / MODEL_NAME}; use it with: latentzip encode -m {out} PICTURE")
        else:
            say(f"stopped at step {trainer.step}; go on with: latentzip train --data {data} --out {out} --resume")
    finally:
        world.leave()


def new_config(
    init: str | None, regularizer: Regularizer | None, factor: int | None, prior: Prior | None
) -> AutoencoderConfig:
    """A new model's architecture; from a model `init` it has its networks, and what is None. Raises ModelError."""
    old: AutoencoderConfig | None = None
    if init not in (None, PCA, RANDOM):
        given = checkpoints.read_config(locate(init))
        old = given if isinstance(given, AutoencoderConfig) else None
    if regularizer is None:
        regularizer = old.regularizer if old is not None and prior is None else "kl"
    if factor is None:
        factor = old.factor if old is not None else 16
    config = AutoencoderConfig.for_factor(regularizer, factor, prior or "learned")
    return config.with_networks_of(old) if old is not None else config


def name_run(data: Path, init: str | None, folder: Path) -> Path:
    """A folder below `folder` that does not exist yet, named after the start and the pictures."""
    start = Path(init).stem if init is not None else locate(None).stem
    base = f"{start}-{data.resolve().name or 'pictures'}"
    number, out = 1, folder / base
    while out.exists():
        number += 1
        out = folder / f"{base}-{number}"
    return out


def _say_nothing(_line: str) -> None:
    pass


def _fresh(
    out: Path, init: str | None, config: AutoencoderConfig | None, wishes: dict[str, Any]
) -> tuple[AutoencoderConfig, TrainSettings]:
    if has_checkpoint(out):
        raise TrainingError(
            f"{out}: holds another run's checkpoint: go on with it by --resume, or choose another --out"
        )
    if init is None:
        init = PCA if config is not None else locate(None).stem
    if config is None and init in (PCA, RANDOM):
        config = AutoencoderConfig.for_factor("kl", 16)
    elif config is None:
        config = trainable(checkpoints.read_config(locate(init)))
    if init in (PCA, RANDOM):
        wishes = {**FROM_ZERO, **wishes}
    if not wishes.keys() & {"max_minutes", "max_steps"}:
        wishes = {**wishes, "max_minutes": DEFAULT_MINUTES}
    return config, TrainSettings(**{**wishes, "init": init})


def _resumed(
    out: Path, config: AutoencoderConfig | None, wishes: dict[str, Any]
) -> tuple[AutoencoderConfig, TrainSettings]:
    state = read_checkpoint(out)
    stored = trainable(config_from_json(state["config"]))
    if config is not None and config != stored:
        raise TrainingError(f"{out}: its checkpoint is of another architecture: choose another --out")
    try:
        settings = TrainSettings.from_json(state["settings"])
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"{out}: its checkpoint's settings cannot be read ({error}): start again in another --out"
        ) from None
    fixed = {"train", "disc_width", "disc_layers"} & {k for k, v in wishes.items() if getattr(settings, k) != v}
    if fixed:
        raise TrainingError(f"{out}: {', '.join(sorted(fixed))} cannot change within a run: choose another --out")
    return stored, dataclasses.replace(settings, **wishes)


def _check(settings: TrainSettings, config: AutoencoderConfig) -> None:
    if settings.crop % config.factor:
        raise TrainingError(f"--crop {settings.crop}: must be a multiple of the model's factor {config.factor}")


def _prepare_folder(out: Path) -> list[Path]:
    """Make it, if it is not there; returns the folders that were made, the innermost first. Raises OutputError."""
    made = list(itertools.takewhile(lambda folder: not folder.exists(), (out, *out.parents)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to ({error.strerror}): choose another --out") from None
    return made


def _say_what_was_found(pictures: Pictures, say: Callable[[str], None]) -> None:
    say(f"{len(pictures.train)} pictures to train on, {len(pictures.held_out)} held out")
    if pictures.skipped:
        say(f"{len(pictures.skipped)} files skipped:")
    for path, reason in pictures.skipped:
        say(f"  {path}: {reason}")


def read_config(path: Path) -> AutoencoderConfig:
    """An architecture from a JSON file: some fields of AutoencoderConfig, the regularizer at least.

    Raises ModelError.
    """
    try:
        fields = json.loads(path.read_text())
        if isinstance(fields, dict) and fields.get("family", "lite") != "lite":
            raise ModelError(f"is of the family {fields['family']!r}: only models of the family 'lite' are trained")
        return trainable(config_from_json(json.dumps({"config_version": CONFIG_VERSION, "family": "lite", **fields})))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: not a JSON object ({error})") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
