"""`latentzip train`"""

import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from latentzip.cli.console import ExitCode
from latentzip.cli.options import Device, DeviceOption, torch_device
from latentzip.models.config import AutoencoderConfig

START, OBJECTIVE, RUN = "Start", "Objective", "Run"
RUNS = Path("runs")
MOST_MEANS = 5  # training.fidelity has the sides


class Regularizer(str, Enum):
    kl = "kl"
    vq = "vq"


class Prior(str, Enum):
    learned = "learned"
    normal = "normal"


class Parts(str, Enum):
    all = "all"
    decoder = "decoder"
    prior = "prior"


class Reconstruction(str, Enum):
    mse = "mse"
    l1 = "l1"


class Adversarial(str, Enum):
    hinge = "hinge"
    non_saturating = "non-saturating"
    relativistic = "relativistic"


class Discriminator(str, Enum):
    patch = "patch"
    projected = "projected"


class Schedule(str, Enum):
    cosine = "cosine"
    constant = "constant"


class Precision(str, Enum):
    bf16 = "bf16"
    fp32 = "fp32"


def _option(help: str, panel: str, **limits: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, **limits)


def train(
    data: Annotated[Path, typer.Option("--data", help="Folder with pictures, read recursively.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for checkpoints, log and model.", show_default="a new one in runs/"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    init: Annotated[
        str | None,
        _option("A model to start from, or pca or random.", START, show_default="the default model; pca for a new one"),
    ] = None,
    train_parts: Annotated[
        Parts | None,
        typer.Option(
            "--train",
            help="decoder: keep the latent space, and old files; prior: keep pictures.",
            rich_help_panel=START,
        ),
    ] = None,
    regularizer: Annotated[Regularizer | None, _option("Of a new model.", START)] = None,
    factor: Annotated[int | None, _option("Of a new model: pixels per latent position, one side.", START)] = None,
    prior: Annotated[Prior | None, _option("Of a new KL model; normal: N(0, 1), for diffusion.", START)] = None,
    config: Annotated[Path | None, _option("Architecture of a new model, JSON.", START)] = None,
    reconstruction: Annotated[Reconstruction | None, _option("Distance of pixels.", OBJECTIVE)] = None,
    reconstruction_share: Annotated[
        float | None, _option("Of its weight, beside the perceptual loss.", OBJECTIVE, min=0)
    ] = None,
    means_weights: Annotated[
        str | None,
        _option(
            "Weights of the squared errors of pixels and of means of 2x2, 4x4, 8x8 and 16x16: 0.6,0.4,0.8,1.6,1.6.",
            OBJECTIVE,
            show_default="1: pixels alone",
        ),
    ] = None,
    chroma_weight: Annotated[
        float | None,
        _option("Weight of the squared errors of Cb and Cr beside R, G and B.", OBJECTIVE, min=0, show_default="0"),
    ] = None,
    type_share: Annotated[
        float | None, _option("Share of the crops that get type on them.", OBJECTIVE, min=0, max=1, show_default="0")
    ] = None,
    type_weight: Annotated[
        float | None,
        _option("Weight of the absolute error where there is type.", OBJECTIVE, min=0, show_default="10"),
    ] = None,
    perceptual: Annotated[
        str | None, _option("efficientnet, lpips, none, or a VGG16 trunk (safetensors).", OBJECTIVE)
    ] = None,
    perceptual_weight: Annotated[float | None, _option("Of the perceptual loss.", OBJECTIVE, min=0)] = None,
    perceptual_start: Annotated[float | None, _option("Where in the run it begins.", OBJECTIVE, min=0, max=1)] = None,
    perceptual_crops: Annotated[
        int | None, _option("Crops in a step that it and the discriminator see.", OBJECTIVE, min=1)
    ] = None,
    perceptual_every: Annotated[
        int | None,
        _option("Let the perceptual loss see one step in so many: faster steps.", OBJECTIVE, min=1, show_default="1"),
    ] = None,
    wasserstein_weight: Annotated[
        float | None,
        _option(
            "Weight of the Wasserstein distortion on the perceptual loss's features, for texture.",
            OBJECTIVE,
            min=0,
            show_default="0",
        ),
    ] = None,
    wasserstein_scale: Annotated[
        float | None,
        _option("log2 of the side over which it takes textures for equal.", OBJECTIVE, min=0, max=6, show_default="3"),
    ] = None,
    ssim_weight: Annotated[float | None, _option("Of 1 - SSIM, beside the perceptual loss.", OBJECTIVE, min=0)] = None,
    discriminator: Annotated[
        Discriminator | None,
        _option("patch: the paper's; projected: on EfficientNet's frozen features.", OBJECTIVE, show_default="patch"),
    ] = None,
    adversarial: Annotated[Adversarial | None, _option("Form of the adversarial loss.", OBJECTIVE)] = None,
    disc_weight: Annotated[
        float | None, _option("Of the adversarial loss, times the adaptive weight; 0: none.", OBJECTIVE, min=0)
    ] = None,
    disc_start: Annotated[float | None, _option("Where in the run it begins.", OBJECTIVE, min=0, max=1)] = None,
    kl_weight: Annotated[float | None, _option("Of the KL divergence to N(0, 1).", OBJECTIVE, min=0)] = None,
    commitment_weight: Annotated[float | None, _option("Of the latents' distance to codes.", OBJECTIVE, min=0)] = None,
    vq_encoder_share: Annotated[
        float | None, _option("Of the learning rate, for a VQ model's encoder.", OBJECTIVE, min=0)
    ] = None,
    codebook_decay: Annotated[float | None, _option("Of the codes' averages.", OBJECTIVE, min=0, max=1)] = None,
    max_minutes: Annotated[float | None, _option("End of the run.", RUN, min=0, show_default="30")] = None,
    max_steps: Annotated[int | None, _option("End of the run.", RUN, min=1)] = None,
    batch: Annotated[int | None, _option("Crops in a step.", RUN, min=1)] = None,
    crop: Annotated[int | None, _option("Side of a crop in pixels.", RUN, min=64)] = None,
    rate_power: Annotated[
        float | None,
        _option("Above 1, crops at low rates come more often.", RUN, min=0.1, max=10, show_default="1"),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, _option("Validate and save every so many minutes.", RUN, min=0.1, show_default="4")
    ] = None,
    learning_rate: Annotated[float | None, _option("At its highest.", RUN, min=0)] = None,
    schedule: Annotated[Schedule | None, _option("Of the learning rate.", RUN)] = None,
    precision: Annotated[
        Precision | None, _option("Of the networks' products.", RUN, show_default="bf16 where the device has it")
    ] = None,
    compile: Annotated[
        bool | None, _option("By torch.compile: a minute at the start, faster steps; needs a C++ compiler.", RUN)
    ] = None,
    seed: Annotated[int | None, _option("Of crops, rates and noise.", RUN, min=0, max=2**32 - 1)] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Train or fine-tune a model on your pictures. Interrupted, it saves, and exits with 130."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs the run's folder: give --out")
    if config is not None and (regularizer or factor or prior):
        raise typer.BadParameter("--config says all of a new model: leave --regularizer, --factor and --prior out")
    wishes = {
        "train": train_parts,
        "reconstruction": reconstruction,
        "reconstruction_share": reconstruction_share,
        "means_weights": _weights(means_weights),
        "chroma_weight": chroma_weight,
        "type_share": type_share,
        "type_weight": type_weight,
        "perceptual": _perceptual(perceptual),
        "perceptual_weight": perceptual_weight,
        "perceptual_start": perceptual_start,
        "perceptual_crops": perceptual_crops,
        "perceptual_every": perceptual_every,
        "wasserstein_weight": wasserstein_weight,
        "wasserstein_scale": wasserstein_scale,
        "ssim_weight": ssim_weight,
        "discriminator": discriminator,
        "adversarial": adversarial,
        "disc_weight": disc_weight,
        "disc_start": disc_start,
        "kl_weight": kl_weight,
        "commitment_weight": commitment_weight,
        "vq_encoder_share": vq_encoder_share,
        "codebook_decay": codebook_decay,
        "max_minutes": max_minutes,
        "max_steps": max_steps,
        "batch": batch,
        "crop": crop,
        "rate_power": rate_power,
        "checkpoint_minutes": checkpoint_minutes,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "precision": precision,
        "compile": compile,
        "seed": seed,
    }
    given = {k: v.value if isinstance(v, Enum) else v for k, v in wishes.items() if v is not None}
    from latentzip.cli.progress import training_display
    from latentzip.training.run import name_run, new_config, read_config
    from latentzip.training.run import train as run

    architecture: AutoencoderConfig | None = None
    if config is not None:
        architecture = read_config(config)
    elif regularizer is not None or factor is not None or prior is not None:
        architecture = new_config(
            init,
            regularizer.value if regularizer is not None else None,
            factor,
            prior.value if prior is not None else None,
        )
    with training_display() as display:
        finished = run(
            data,
            out if out is not None else name_run(data, init, RUNS),
            architecture,
            given,
            init=init,
            resume=resume,
            device=torch_device(device),
            display=display,
        )
    if not finished:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _weights(text: str | None) -> tuple[float, ...] | None:
    """ "0.6,0.4" -> the numbers."""
    if text is None:
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not 1 <= len(weights) <= MOST_MEANS or any(not 0 <= weight < math.inf for weight in weights):
        raise typer.BadParameter(f"--means-weights {text}: give one to {MOST_MEANS} numbers, such as 0.6,0.4,0.8")
    return weights


def _perceptual(choice: str | None) -> str | None:
    """A name, or a file's whole path: a resumed run may be started from another folder."""
    if choice is None or choice in ("none", "efficientnet", "lpips"):
        return choice
    return str(Path(choice).absolute())
