"""The card that lies beside a trained model: what it is, where it comes from, how it was made."""

import json
from pathlib import Path

from latentzip.files import write_bytes
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_to_json
from latentzip.training.data import Pictures
from latentzip.training.journal import Record
from latentzip.training.settings import TrainSettings

CARD_NAME = "model.md"


def write_card(
    out: Path,
    config: AutoencoderConfig,
    settings: TrainSettings,
    pictures: Pictures,
    steps: int,
    seconds: float,
    validation: Record | None,
) -> None:
    """OUT/model.md. `validation`: the record of the last one. Raises OutputError."""
    architecture = ", ".join(f"{k} {v}" for k, v in json.loads(config_to_json(config)).items())
    chosen = "\n".join(f"| {name} | {value} |" for name, value in json.loads(settings.to_public_json()).items())
    origin = Path(settings.init).name
    text = f"""# {out.name}

A latentzip model: {config.regularizer.upper()} latents, factor {config.factor}. It started from {origin} and was
trained for {steps} steps in {seconds / 60:.1f} minutes on {len(pictures.train)} pictures;
{len(pictures.held_out)} were held out. Say here what the pictures show, where they come from and under which licence.

    latentzip encode -m {out.name} PICTURE

Architecture: {architecture}.

## On the held-out pictures

{_figures(validation)}
The perceptual distance is the one that the model was trained on, and the pictures' central parts are measured: compare
with `latentzip encode` and files before you publish figures.

## Settings

| setting | value |
|---|---|
{chosen}
"""
    write_bytes(out / CARD_NAME, text.encode(), overwrite=True)


def _figures(validation: Record | None) -> str:
    """As a table."""
    if validation is None:
        return "None were held out.\n"
    rows = "\n".join(
        f"| {r['rate']:.2f} | {r['bpp']:.3f} | {r['psnr']:.2f} | {r['perceptual']:.3f} |" for r in validation["rates"]
    )
    return f"| rate | bpp | PSNR | perceptual distance |\n|---|---|---|---|\n{rows}\n"
