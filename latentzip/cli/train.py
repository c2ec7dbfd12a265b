"""`latentzip train`"""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.options import Device, DeviceOption, torch_device
from latentzip.models.config import AutoencoderConfig


class Regularizer(str, Enum):
    kl = "kl"
    vq = "vq"


def train(
    data: Annotated[Path, typer.Option("--data", help="Folder with pictures, read recursively.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint, the log and the model.")],
    regularizer: Annotated[Regularizer, typer.Option("--regularizer", help="Of a new model.")] = Regularizer.kl,
    factor: Annotated[int, typer.Option("--factor", help="Pixels per latent position, one side.")] = 16,
    init: Annotated[
        Path | None, typer.Option("--init", help="Weights file to start from; else from principal components.")
    ] = None,
    perceptual: Annotated[
        Path | None, typer.Option("--perceptual", help="VGG16 trunk (safetensors) for the perceptual loss.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", min=0, help="Stop after so long.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", min=1, help="Stop after so many steps.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops in a step.")] = 12,
    crop: Annotated[int, typer.Option("--crop", min=64, help="Side of a crop in pixels.")] = 192,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="At its highest.")] = 2e-3,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of crops, rates and noise.")] = 0,
    device: DeviceOption = Device.auto,
) -> None:
    """Train a model on your pictures."""
    from latentzip.training.run import train as run
    from latentzip.training.settings import TrainSettings

    config = AutoencoderConfig(regularizer=regularizer.value, factor=factor)
    if crop % factor:
        raise typer.BadParameter(f"--crop must be a multiple of the factor {factor}")
    settings = TrainSettings(
        max_minutes=max_minutes, max_steps=max_steps, batch=batch, crop=crop, learning_rate=learning_rate, seed=seed
    )
    run(
        data,
        out,
        config,
        settings,
        init=init,
        perceptual=perceptual,
        resume=resume,
        device=torch_device(device),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
