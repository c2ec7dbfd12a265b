"""`latentzip train` below its command line: put a run together, start it, or go on with one."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentzip.errors import LatentzipError, ModelError, TrainingError, UsageError
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import CONFIG_VERSION, AutoencoderConfig, Prior, Regularizer
from latentzip.models.families import config_from_json, trainable
from latentzip.models.precision import has_bfloat16
from latentzip.training.card import write_card
from latentzip.training.checkpoint import has_checkpoint, read_checkpoint, usable
from latentzip.training.data import Pictures, load_pictures
from latentzip.training.discriminator import PatchDiscriminator
from latentzip.training.folder import run_folder
from latentzip.training.interrupts import Interrupts
from latentzip.training.journal import Display, Journal
from latentzip.training.loop import Trainer
from latentzip.training.losses import Objective
from latentzip.training.parallel import World
from latentzip.training.perceptual import NONE, load_perceptual
from latentzip.training.projected import ProjectedDiscriminator
from latentzip.training.settings import TrainSettings
from latentzip.training.start import PCA, RANDOM, start
from latentzip.training.wishes import check_wishes
from latentzip.zoo import checkpoints
from latentzip.zoo.checkpoints import MODEL_NAME
from latentzip.zoo.loading import locate

DEFAULT_MINUTES = 30.0
# A new model learns the coarse things first, fast; perceptual gradients, of a few crops, drown in such steps.
FROM_ZERO = {"learning_rate": 2e-3, "perceptual_start": 0.3}
ENDS = ("max_minutes", "max_steps")


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
) -> bool:
    """Train a model on the pictures below `data` and leave it in `out`; returns whether it came to its end.

    It starts from `init`: a model (name, weights file or run folder), "pca" or "random"; without, from principal
    components where a `config` is given, else from the default model. A resumed run keeps its config and its settings.
    `wishes` are fields of TrainSettings that are to differ from the defaults, or from what the resumed run had.
    Asked to end by SIGINT or SIGTERM it saves before it does so, once it has begun its steps.
    Raises UsageError, TrainingError, ModelError or OutputError, or KeyboardInterrupt before the first step.
    """
    if resume and (init is not None or config is not None):
        raise UsageError("a resumed run goes on with the model that it has: leave --init and its architecture out")
    interrupts = Interrupts()
    with contextlib.ExitStack() as stack:
        world = World.join(device)
        stack.callback(world.leave)
        if world.size > 1:  # none is to leave before all know of it
            stack.enter_context(interrupts.noting())
        say = display.say if world.writes else _say_nothing
        with world.together():
            if world.writes:
                stack.enter_context(run_folder(out))
            state = read_checkpoint(out) if resume else None
            if state is not None:
                config, settings = _resumed(out, state, wishes)
            else:
                config, settings = _fresh(out, init, config, wishes, world.device)
            _check(settings, config, wishes, world)
            perceptual = load_perceptual(settings.perceptual if settings.has_perceptual else NONE)
            say(f"perceptual loss: {perceptual.name if perceptual is not None else 'none'}")
            pictures = load_pictures(data, settings.crop, settings.cache_bytes)
            _say_what_was_found(pictures, say)
            torch.manual_seed(settings.seed)
            model = Autoencoder(config)
            if state is None:
                say(start(model, pictures, settings))
        if world.any(interrupts.noted):
            raise KeyboardInterrupt
        discriminator: nn.Module | None = None
        if settings.has_discriminator and settings.discriminator == "projected":
            discriminator = ProjectedDiscriminator()
        elif settings.has_discriminator:
            discriminator = PatchDiscriminator(settings.disc_width, settings.disc_layers)
        if perceptual is not None:
            perceptual.to(world.device)
        objective = Objective(settings, config.lambdas, perceptual, discriminator, world.size)
        trainer = Trainer(model, objective, settings, out, world.device, world, interrupts)
        with world.together():
            if state is not None:
                trainer.resume(state)
                state = None  # it is large
                say(f"resumed at step {trainer.step}, {trainer.seconds / 60:.1f} minutes")
            journal = Journal(out, display) if world.writes else None
        finished = trainer.run(pictures, journal)
        if journal is not None:
            write_card(out, config, settings, pictures, trainer.step, trainer.seconds, journal.last_validation)
        if finished:
            say(f"done: {out / MODEL_NAME}; use it with: latentzip encode -m {out} PICTURE")
        else:
            say(f"stopped at step {trainer.step}; go on with: latentzip train --data {data} --out {out} --resume")
    return finished


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
    out: Path, init: str | None, config: AutoencoderConfig | None, wishes: dict[str, Any], device: torch.device
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
        path = locate(init)
        try:
            config = trainable(checkpoints.read_config(path))
        except ModelError as error:
            raise ModelError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    defaults: dict[str, Any] = {"precision": "bf16" if has_bfloat16(device) else "fp32"}
    if init in (PCA, RANDOM):
        defaults |= FROM_ZERO
    if wishes.get("perceptual") == NONE:  # that is, squared error and rate alone, unless SSIM is asked for
        defaults |= {"ssim_weight": 0.0}
    if not wishes.keys() & set(ENDS):
        defaults |= {"max_minutes": DEFAULT_MINUTES}
    settings = TrainSettings(**{**defaults, **wishes, "init": init})
    if settings.train != "all" and init in (PCA, RANDOM):
        raise UsageError(f"--train {settings.train} needs a model whose rest it keeps: give --init MODEL")
    return config, settings


def _resumed(out: Path, state: dict[str, Any], wishes: dict[str, Any]) -> tuple[AutoencoderConfig, TrainSettings]:
    with usable(out):
        try:
            config, settings = trainable(config_from_json(state["config"])), TrainSettings.from_json(state["settings"])
        except (LatentzipError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"of its config or settings: {error}") from None
    changed = {name for name, value in wishes.items() if getattr(settings, name) != value}
    fixed = changed & {"train", "discriminator", "disc_width", "disc_layers"}
    if not all((settings.vq_encoder_share, wishes.get("vq_encoder_share", 1))):  # 0: the encoder does not learn at all
        fixed |= changed & {"vq_encoder_share"}
    if fixed:
        raise TrainingError(f"{out}: {', '.join(sorted(fixed))} cannot change within a run: choose another --out")
    if wishes.keys() & set(ENDS):  # the new end is where it ends
        wishes = {**dict.fromkeys(ENDS), **wishes}
    return config, dataclasses.replace(settings, **wishes)


def _check(settings: TrainSettings, config: AutoencoderConfig, wishes: dict[str, Any], world: World) -> None:
    check_wishes(wishes, settings, config)
    if settings.batch < world.size:
        raise UsageError(f"--batch {settings.batch}: must have a crop for each of the {world.size} processes")
    if settings.crop % config.factor:
        raise TrainingError(f"--crop {settings.crop}: must be a multiple of the model's factor {config.factor}")


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
        if path.exists() and not path.is_file():  # to open a pipe would be to wait for ever
            raise ModelError("is no ordinary file")
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
