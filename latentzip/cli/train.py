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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    regularizer: Annotated[Regularizer | None, typer.Option(help="Of a new model; kl by default.")] = None,
    factor: Annotated[int | None, typer.Option(help="Pixels per latent position, one side; 16 by default.")] = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Weights file to start from; else from principal components.")
    ] = None,
    freeze_encoder: Annotated[bool | None, typer.Option(help="Let the decoder and the codebooks alone learn.")] = None,
    perceptual: Annotated[
        Path | None, typer.Option("--perceptual", help="VGG16 trunk (safetensors) for the perceptual loss.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="End of the run.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="End of the run.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops in a step.")] = None,
    crop: Annotated[int | None, typer.Option(min=64, help="Side of a crop in pixels.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="At its highest.")] = None,
    codebook_decay: Annotated[float | None, typer.Option(min=0, max=1, help="Of the codes' moving averages.")] = None,
    reconstruction_share: Annotated[
        float | None, typer.Option(min=0, help="Of the reconstruction loss, beside the perceptual one.")
    ] = None,
    perceptual_weight: Annotated[float | None, typer.Option(min=0, help="Of the perceptual loss.")] = None,
    perceptual_start: Annotated[float | None, typer.Option(min=0, max=1, help="Where in the run it begins.")] = None,
    perceptual_crops: Annotated[int | None, typer.Option(min=1, help="Crops in a step that it sees.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of crops, rates and noise.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Train a model on your pictures."""
    wishes = {
        "max_minutes": max_minutes,
        "max_steps": max_steps,
        "batch": batch,
        "crop": crop,
        "learning_rate": learning_rate,
        "freeze_encoder": freeze_encoder,
        "codebook_decay": codebook_decay,
        "perceptual": str(perceptual.absolute()) if perceptual else None,
        "reconstruction_share": reconstruction_share,
        "perceptual_weight": perceptual_weight,
        "perceptual_start": perceptual_start,
        "perceptual_crops": perceptual_crops,
        "seed": seed,
    }
    from latentzip.training.run import train as run

    config = None
    if regularizer is not None or factor is not None:
        config = AutoencoderConfig(regularizer=(regularizer or Regularizer.kl).value, factor=factor or 16)
    run(
        data,
        out,
        config,
        {name: wish for name, wish in wishes.items() if wish is not None},
        init=init,
        resume=resume,
        device=torch_device(device),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
