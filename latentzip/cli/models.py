"""`latentzip models`"""

import json
from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.console import Record, emit, human_size, inform
from latentzip.cli.options import Force, Json, Quiet, output_file
from latentzip.errors import ModelError
from latentzip.zoo.hub import ARCHIVES, MOVING, PUBLIC_MODELS, PublicModel, cached, cached_bytes, find_public, pull
from latentzip.zoo.registry import ModelEntry, built_in

app = typer.Typer(help="The models that are here, and public ones that can be.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="MODEL", help="A name of `models list`.")]


@app.callback()
def root() -> None:
    """The models that are here, and public ones that can be."""


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the built-in models, the default first, and public ones, cached or not."""
    entries = built_in()
    if as_json:
        archives = [{**vars(archive), "state": "archive"} for archive in ARCHIVES]
        records = [*map(_record_of, entries), *map(_record_of, PUBLIC_MODELS)]
        emit(json.dumps({"models": [*records, *archives]}, indent=2))
        return
    for entry in entries:
        mark = "*" if entry is entries[0] else " "
        emit(f"{mark} {entry.name:18} {human_size(entry.size):>9}  {entry.license:20} {entry.summary}")
    emit("\nPublic models, by `latentzip models pull MODEL`:")
    for model in PUBLIC_MODELS:
        state = human_size(cached_bytes(model)) if cached(model) else "-"
        what = f"{model.regularizer.upper()}, factor {model.factor}, {model.channels} channels; {model.repository}"
        marks = [mark for mark, holds in (("gated", model.gated), ("follows main", model.revision == MOVING)) if holds]
        note = f" ({', '.join(marks)})" if marks else ""
        emit(f"  {model.name:18} {state:>9}  {model.license:20} {what}{note}")
    emit("\nPublished as archives: fetch and unpack them, then `latentzip models convert CKPT -o FILE`:")
    for archive in ARCHIVES:
        what = f"{archive.regularizer.upper()}, factor {archive.factor}, {archive.channels} channels"
        emit(f"  {archive.name:18} {'-':>9}  {'':20} {what}; {archive.url}")
    emit("\n* the default; a size: it is here")


@app.command("show")
def show(name: Name, as_json: Json = False) -> None:
    """Say all that is known of a model."""
    record = _record_of(_find(name))
    if as_json:
        emit(json.dumps(record, indent=2))
        return
    for key, value in record.items():
        emit(f"{key.replace('_', ' '):20} {value}")


@app.command("path")
def path(name: Name) -> None:
    """Print where a model's weights lie."""
    emit(str(_path_of(_find(name))))


@app.command("pull")
def pull_models(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names of public models.")],
    quiet: Quiet = False,
) -> None:
    """Download public models into the cache of the Hugging Face Hub (HF_HOME; HF_TOKEN for gated ones)."""
    for model in [_public(name) for name in names]:
        if quiet:
            from huggingface_hub.utils.tqdm import disable_progress_bars

            disable_progress_bars()
        found = pull(model, (lambda _line: None) if quiet else inform)
        if not quiet:
            inform(f"{model.name}: {found}")


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="File, or folder of diffusers.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", parser=output_file, help="The safetensors file to write.")
    ],
    scaling: Annotated[
        float | None, typer.Option("--scaling-factor", min=0, help="Of a KL model's latents, where the file has none.")
    ] = None,
    shift: Annotated[float | None, typer.Option("--shift-factor", help="Of a KL model's latents, likewise.")] = None,
    force: Force = False,
) -> None:
    """Convert a public checkpoint to one safetensors file that `-m` takes, without any pickle."""
    from latentzip.files import check_output

    check_output(output, overwrite=force)
    if output.suffix != ".safetensors":
        raise ModelError(f"{output}: models are kept as .safetensors: name it so")
    if not source.exists():
        raise ModelError(f"{source}: no such checkpoint")
    from dataclasses import replace

    from latentzip.models.ldm import LdmConfig
    from latentzip.zoo.checkpoints import save_as_is
    from latentzip.zoo.loading import check_whole, is_public, locate
    from latentzip.zoo.public import read_public

    place = locate(str(source))
    if not is_public(place):
        raise ModelError(f"{source}: is a model of latentzip already")
    config, tensors = read_public(place)
    if scaling is not None or shift is not None:
        if not isinstance(config, LdmConfig) or config.regularizer != "kl":
            raise ModelError(f"{source}: only the latents of KL models are scaled: leave the factors out")
        try:
            config = replace(
                config,
                scaling=config.scaling if scaling is None else scaling,
                shift=config.shift if shift is None else shift,
            )
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None
    check_whole(place, config, tensors)
    save_as_is(output, config, tensors, {}, overwrite=force)
    inform(f"{source} -> {output}  {human_size(output.stat().st_size)}")


def _find(name: str) -> ModelEntry | PublicModel:
    entry = next((entry for entry in built_in() if entry.name == name), None)
    return entry or _public(name)


def _public(name: str) -> PublicModel:
    model = find_public(name)
    if model is not None:
        return model
    archive = next((archive for archive in ARCHIVES if archive.name == name), None)
    if archive is not None:
        raise ModelError(f"{name}: is not on the Hub: fetch {archive.url}, unpack it, and use `models convert`")
    raise ModelError(f"{name}: no model of this name is known: see `latentzip models list`")


def _path_of(found: ModelEntry | PublicModel) -> Path:
    if isinstance(found, ModelEntry):
        return found.path
    place = cached(found)
    if place is None:
        raise ModelError(f"{found.name}: is not here yet: latentzip models pull {found.name}")
    return place


def _record_of(found: ModelEntry | PublicModel) -> Record:
    if isinstance(found, PublicModel):
        place = cached(found)
        state = {"state": "cached" if place else "available", "bytes": cached_bytes(found)}
        return {**vars(found), "revision": found.revision, **state, "path": str(place) if place else None}
    return {
        "name": found.name,
        "state": "built in",
        "default": found is built_in()[0],
        "regularizer": found.regularizer,
        "factor": found.factor,
        "bytes": found.size,
        "license": found.license,
        "summary": found.summary,
        "latent_fingerprint": found.latent_fingerprint.hex(),
        "decoder_fingerprint": found.decoder_fingerprint.hex(),
        "path": str(found.path),
    }
