"""`latentzip encode`"""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentzip.cli.console import Batch, Record, human_size
from latentzip.cli.options import Device, DeviceOption, Force, Json, Output, Quiet, check_streams, torch_device
from latentzip.container import DEFAULT_QUALITY, MAX_QUALITY
from latentzip.files import plan_outputs, read_bytes, write_bytes
from latentzip.rate import highest_level_within, parse_size

if TYPE_CHECKING:
    from latentzip.codec import Analysed


class Coding(str, Enum):
    auto = "auto"
    fp16 = "fp16"


def encode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Pictures, or - for standard input.")],
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Built-in model, weights file or run folder.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "-q", "--quality", min=1, max=MAX_QUALITY, help=f"1 (smallest) to 100 (best). [default: {DEFAULT_QUALITY}]"
        ),
    ] = None,
    bpp: Annotated[
        float | None, typer.Option("--bpp", min=0, help="At most so many bits per pixel, instead of -q.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="At most so many bytes (40KB, 40KiB, ...), instead of -q.")
    ] = None,
    effort: Annotated[
        int,
        typer.Option(
            "-e",
            "--effort",
            min=0,
            max=9,
            help="0 (fast) to 9: spend time on a smaller file, of slightly lower quality at the same -q.",
        ),
    ] = 0,
    coding: Annotated[
        Coding, typer.Option("--coding", help="fp16: a KL model's latents in half precision, for other programs.")
    ] = Coding.auto,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read each file's latent again before it is kept.")
    ] = True,
    tile: Annotated[
        int | None,
        typer.Option(
            min=0, help="Side of tiles in pixels, for public models; 0: never. [default: 512 above one megapixel]"
        ),
    ] = None,
    force: Force = False,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Encode pictures: photo.png becomes photo.lz."""
    check_streams(output, inputs, as_json)
    if sum(wish is not None for wish in (quality, bpp, size)) > 1:
        raise typer.BadParameter("-q, --bpp and --size each say how large a file becomes: give one of them")
    if coding is Coding.fp16 and (quality or bpp or size) is not None:
        raise typer.BadParameter("--coding fp16 has one size: leave -q, --bpp and --size out")
    if coding is Coding.fp16 and effort:
        raise typer.BadParameter("--coding fp16 keeps the encoder's latents as they are: leave --effort out")
    most_bytes = parse_size(size) if size is not None else None
    jobs = plan_outputs(inputs, output, ".lz", overwrite=force)
    from latentzip.cli.progress import count_steps
    from latentzip.codec import analyse, level_for, levels, refine_latent, refinement_steps, write_latent
    from latentzip.images import read_image
    from latentzip.zoo.loading import load_autoencoder, load_encoder

    loaded = load_encoder(model, torch_device(device))
    whole = load_autoencoder(model, torch_device(device)) if effort else None

    def highest_level(analysed: "Analysed", limit: int) -> int:
        return highest_level_within(
            limit, levels(loaded), lambda level: write_latent(analysed, loaded, level, verify=False)
        )

    def work(job: tuple[Path, Path]) -> tuple[Record, str]:
        source, target = job
        data = read_bytes(source)
        picture = read_image(data, name=str(source))
        analysed = analyse(picture, loaded, tile)
        width, height = analysed.width, analysed.height
        limit = int(bpp * width * height / 8) if bpp is not None else most_bytes
        level = level_for(loaded, quality or DEFAULT_QUALITY)
        if limit is not None:
            level = highest_level(analysed, limit)
        if whole is not None:
            steps = refinement_steps(analysed, loaded, effort)
            with count_steps(source.name, steps, quiet=quiet) as report:
                analysed = refine_latent(picture, analysed, whole, level, effort, report)
            if limit is not None:  # what became smaller leaves room for a higher level
                level = highest_level(analysed, limit)
        encoded = write_latent(analysed, loaded, level, coding=coding.value, verify=check)
        write_bytes(target, encoded, overwrite=force)
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "input_bytes": len(data),
            "output_bytes": len(encoded),
            "bpp": len(encoded) * 8 / (width * height),
            "model": loaded.name,
            "quality": None if limit is not None else quality or DEFAULT_QUALITY,
            "level": level,
            "effort": effort,
        }
        sizes = f"{human_size(len(data))} -> {human_size(len(encoded))}"
        return record, f"{source} -> {target}  {width}x{height}  {sizes}  {record['bpp']:.3f} bpp"

    batch = Batch("encoded", as_json, quiet, bar=not effort)
    batch.run(jobs, lambda job: job[0], work)
    batch.finish()
