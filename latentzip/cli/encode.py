"""`latentzip encode`"""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.batch import Batch, Outcome
from latentzip.cli.console import human_size, in_brackets
from latentzip.cli.options import (
    Device,
    DeviceOption,
    Force,
    Jobs,
    Json,
    MaxPixels,
    Memory,
    Output,
    Quiet,
    Recursive,
    SkipExisting,
    Tile,
    bounds_of,
    check_existing,
    check_names,
    check_streams,
    inputs_argument,
    place_of,
)
from latentzip.container import DEFAULT_QUALITY, MAX_QUALITY
from latentzip.files import read_bytes
from latentzip.jobs import LZ_SUFFIXES, Job, find_sources, plan_outputs
from latentzip.rate import parse_size
from latentzip.settings import MAX_EFFORT, EncodeSettings
from latentzip.tiling import MAX_PIXELS


class MetadataChoice(str, Enum):
    icc = "icc"
    all = "all"
    none = "none"


class Coding(str, Enum):
    auto = "auto"
    fp16 = "fp16"


def encode(
    inputs: Annotated[list[Path], inputs_argument("INPUT...", "Pictures, folders with -r, or - for stdin.")],
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Built-in model, weights file or run folder.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "-q",
            "--quality",
            min=1,
            max=MAX_QUALITY,
            help="1 (smallest) to 100 (best).",
            show_default=str(DEFAULT_QUALITY),
        ),
    ] = None,
    bpp: Annotated[float | None, typer.Option("--bpp", help="At most so many bits per pixel, instead of -q.")] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="At most so many bytes (40KB, 40KiB, ...), instead of -q.")
    ] = None,
    effort: Annotated[
        int,
        typer.Option(
            "-e",
            "--effort",
            min=0,
            max=MAX_EFFORT,
            help="0 (fast) to 9: spend time on a smaller file, of slightly lower quality at the same -q.",
        ),
    ] = 0,
    coding: Annotated[
        Coding, typer.Option("--coding", help="fp16: a KL model's latents in half precision, for other programs.")
    ] = Coding.auto,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read each file's latent again before it is kept.")
    ] = True,
    tile: Tile = None,
    memory: Memory = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    alpha: Annotated[
        str, typer.Option("--alpha", help="keep transparency, drop it, or a colour (white, #ff8800) to put it on.")
    ] = "keep",
    metadata: Annotated[
        MetadataChoice, typer.Option("--metadata", help="icc: the colour profile; all: Exif and XMP too; none.")
    ] = MetadataChoice.icc,
    first_frame: Annotated[
        bool, typer.Option("--first-frame", help="Of animations and files with several pages, the first.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of pictures that are cut short, take what has arrived.")
    ] = False,
    recursive: Recursive = False,
    force: Force = False,
    skip_existing: SkipExisting = False,
    jobs: Jobs = 1,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Encode pictures: photo.png becomes photo.lz."""
    place, into_folder = place_of(output, recursive)
    check_streams(place, inputs, as_json, into_folder)
    check_existing(force, skip_existing)
    most_bytes = parse_size(size) if size is not None else None
    settings = EncodeSettings(quality, bpp, most_bytes, effort, coding.value, bounds_of(tile, memory), check)
    from latentzip.images import check_alpha_wish, limit_pillow, picture_suffixes, read_image

    limit_pillow(max_pixels)
    check_alpha_wish(alpha)
    pictures = picture_suffixes()
    check_names(place, inputs, pictures, LZ_SUFFIXES, suffix=".lz", into_folder=into_folder)
    sources = find_sources(inputs, pictures, recursive=recursive)
    plan = plan_outputs(sources, place, ".lz", into_folder=into_folder, overwrite=force, skip_existing=skip_existing)
    batch = Batch("encoded", plan, as_json=as_json, quiet=quiet, overwrite=force, workers=jobs)
    if not plan.jobs:
        return batch.end()
    from latentzip.api import encode_picture, load_model

    loaded = load_model(model, device.value)
    name = loaded.encoder.name  # where it cannot be loaded, no file can be encoded

    def work(job: Job) -> Outcome:
        source, target = job.source, job.target
        data = read_bytes(source)
        picture = read_image(
            data,
            str(source),
            alpha=alpha,
            metadata=metadata.value,
            first_frame=first_frame,
            partial=partial,
            max_pixels=max_pixels,
        )
        encoded = encode_picture(picture, loaded, settings, lambda steps: batch.display.steps(source.name, steps))
        height, width = picture.pixels.shape[:2]
        remarks = job.remarks + picture.remarks
        chosen = bpp is None and size is None
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "input_bytes": len(data),
            "output_bytes": len(encoded.data),
            "bpp": len(encoded.data) * 8 / (width * height),
            "model": name,
            "quality": (quality or DEFAULT_QUALITY) if chosen else None,
            "level": encoded.level,
            "effort": effort,
            "remarks": list(remarks),
        }
        sizes = f"{human_size(len(data))} -> {human_size(len(encoded.data))}"
        line = f"{source} -> {target}  {width}x{height}  {sizes}  {record['bpp']:.3f} bpp"
        return Outcome(record, line + in_brackets(remarks), data=encoded.data)

    batch.run(work)
