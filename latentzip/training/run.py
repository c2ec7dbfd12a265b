"""`latentzip train` below its command line: put a run together, start it, or go on with one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentzip.errors import OutputError, TrainingError
from latentzip.models.autoencoder import Autoencoder, VqLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.training.checkpoint import CHECKPOINT_NAME, read_checkpoint
from latentzip.training.codebook import start_codebooks
from latentzip.training.data import Pictures, batch_at, load_pictures
from latentzip.training.loop import Trainer
from latentzip.training.losses import Objective
from latentzip.training.perceptual import VggDistance
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start_from_principal_components
from latentzip.zoo.checkpoints import read_metadata, read_tensors


def train(
    data: Path,
    out: Path,
    config: AutoencoderConfig | None,
    wishes: dict[str, Any],
    *,
    init: Path | None,
    resume: bool,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Train a model on the pictures below `data` and leave it in `out`.

    A new one is of `config` (without: kl-f16's), and starts from the principal components of the pictures, or from the
    weights file `init` where its tensors fit. A resumed run keeps its config and its settings. `wishes` are fields of
    TrainSettings that are to differ from the defaults, or from what the resumed run had.
    Raises TrainingError, ModelError or OutputError.
    """
    _prepare_folder(out, resume)
    config, settings = _resumed(out, config, wishes) if resume else _fresh(config, wishes)
    if settings.crop % config.factor:
        raise TrainingError(f"--crop {settings.crop}: must be a multiple of the model's factor {config.factor}")
    say(f"perceptual loss: {settings.perceptual or 'none'}")
    objective = Objective(settings, VggDistance(Path(settings.perceptual)).to(device) if settings.perceptual else None)
    pictures = load_pictures(data, settings.crop, settings.cache_bytes)
    say(f"{len(pictures.train)} pictures to train on, {len(pictures.held_out)} held out")
    if pictures.skipped:
        say(f"{len(pictures.skipped)} files skipped:")
    for path, reason in pictures.skipped:
        say(f"  {path}: {reason}")
    torch.manual_seed(settings.seed)
    model = Autoencoder(config)
    if not resume:
        _start(model, pictures, settings, init, say)
    trainer = Trainer(model, objective, settings, out, device)
    if resume:
        trainer.resume()
        say(f"resumed at step {trainer.step}, {trainer.seconds / 60:.1f} minutes")
    trainer.run(pictures, say)


def _fresh(config: AutoencoderConfig | None, wishes: dict[str, Any]) -> tuple[AutoencoderConfig, TrainSettings]:
    return config or AutoencoderConfig(regularizer="kl"), TrainSettings(**wishes)


def _resumed(
    out: Path, config: AutoencoderConfig | None, wishes: dict[str, Any]
) -> tuple[AutoencoderConfig, TrainSettings]:
    state = read_checkpoint(out)
    stored = AutoencoderConfig.from_json(state["config"])
    if config is not None and config != stored:
        raise TrainingError(f"{out}: its checkpoint is of another architecture: choose another --out")
    return stored, dataclasses.replace(TrainSettings.from_json(state["settings"]), **wishes)


def _prepare_folder(out: Path, resume: bool) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}): choose another --out") from None
    if not resume and (out / CHECKPOINT_NAME).exists():
        raise TrainingError(
            f"{out}: holds another run's checkpoint: go on with it by --resume, or choose another --out"
        )


def _start(
    model: Autoencoder, pictures: Pictures, settings: TrainSettings, init: Path | None, say: Callable[[str], None]
) -> None:
    start_from_principal_components(model, pictures.train, settings.lambdas, settings.seed)
    if init is not None:
        read_metadata(init)
        wanted = model.state_dict()
        given = read_tensors(init, ["encoder", "analysis", "latent", "decoder"])
        fitting = {name: t.float() for name, t in given.items() if name in wanted and wanted[name].shape == t.shape}
        if not fitting:
            raise TrainingError(f"{init}: none of its tensors fits the model to be trained")
        model.load_state_dict(fitting, strict=False)
        say(f"started {len(fitting)} of {len(wanted)} tensors from {init}")
    if isinstance(model.latent, VqLatent):
        start_codebooks(model.latent.quantizer, _latents(model, pictures, settings))


@torch.no_grad()
def _latents(model: Autoencoder, pictures: Pictures, settings: TrainSettings) -> torch.Tensor:
    """Latent vectors (P, C) of random crops, enough for k-means."""
    wanted = 32 * model.config.codebook_size
    vectors: list[torch.Tensor] = []
    while sum(map(len, vectors)) < wanted:
        pixels = batch_at(pictures.train, len(vectors), settings.batch, settings.crop, settings.seed + 1)
        y = model.encoder(pixels.float() / 127.5 - 1)
        vectors.append(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]))
    return torch.cat(vectors)[:wanted]
