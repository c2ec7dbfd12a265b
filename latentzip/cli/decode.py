"""`latentzip decode`"""

import contextlib
import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentzip.cli.batch import Batch, Outcome
from latentzip.cli.console import in_brackets
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
from latentzip.container import check_signature, parse, parse_file
from latentzip.files import STREAM, open_bytes, read_bytes
from latentzip.jobs import LZ_SUFFIXES, Job, find_sources, plan_outputs
from latentzip.tiling import MAX_PIXELS, Window


class BitDepth(str, Enum):
    eight = "8"
    sixteen = "16"


def decode(
    inputs: Annotated[list[Path], inputs_argument("INPUT...", ".lz files, folders with -r, or - for stdin.")],
    output: Output = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", "--weights", help="Weights to decode with, where they are not built in."),
    ] = None,
    image_format: Annotated[
        str | None, typer.Option("--format", help="png, jpg, webp, tiff, avif, ...: else by the output's suffix.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a file that was cut short, decode what has arrived.")
    ] = False,
    scans: Annotated[
        int | None, typer.Option("--scans", min=1, help="Decode the first parts of the latent alone.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option("-q", "--quality", min=1, max=100, help="Of jpg, webp, avif.", show_default="95; webp: lossless"),
    ] = None,
    bit_depth: Annotated[
        BitDepth, typer.Option("--bit-depth", help="Of a sample; 16, for png and tiff, has the decoder's finer levels.")
    ] = BitDepth.eight,
    noise: Annotated[
        float,
        typer.Option(
            "--noise",
            min=0,
            max=2,
            help="How strong the noise is that texture is painted from; 0 gives the most faithful picture.",
        ),
    ] = 1.0,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="X,Y,W,H", help="Decode a part alone: left, top, width and height in pixels."),
    ] = None,
    tile: Tile = None,
    memory: Memory = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    recursive: Recursive = False,
    force: Force = False,
    skip_existing: SkipExisting = False,
    jobs: Jobs = 1,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode .lz files: photo.lz becomes photo.png."""
    place, into_folder = place_of(output, recursive)
    check_streams(place, inputs, as_json, into_folder)
    check_existing(force, skip_existing)
    bounds, wanted = bounds_of(tile, memory), _window_of(region)
    if partial and wanted:
        raise typer.BadParameter("--region takes a whole file: leave --partial out")
    depth: Literal[8, 16] = 16 if bit_depth is BitDepth.sixteen else 8
    from latentzip.images import check_output_wishes, format_of, image_bytes, picture_suffixes

    suffix = f".{image_format.lower().lstrip('.')}" if image_format else ".png"
    check_names(place, inputs, LZ_SUFFIXES, picture_suffixes(), suffix=suffix, into_folder=into_folder)
    names_format = not image_format and not into_folder and place not in (None, STREAM)
    format_name = format_of(place if place and names_format else Path(f"picture{suffix}"))
    check_output_wishes(format_name, quality, depth)
    sources = find_sources(inputs, LZ_SUFFIXES, recursive=recursive)
    plan = plan_outputs(sources, place, suffix, into_folder=into_folder, overwrite=force, skip_existing=skip_existing)
    batch = Batch("decoded", plan, as_json=as_json, quiet=quiet, overwrite=force, workers=jobs)
    if not plan.jobs:
        return batch.end()
    from latentzip.api import decode_picture

    def work(job: Job) -> Outcome:
        source, target = job.source, job.target
        with contextlib.ExitStack() as stack:
            if wanted and os.path.isfile(source):
                size, container = source.stat().st_size, parse_file(stack.enter_context(open_bytes(source)))
            else:
                data = read_bytes(source, check_signature)
                size, container = len(data), parse(data, partial=partial)
            decoded = decode_picture(
                container,
                model,
                device.value,
                partial=partial,
                most_parts=scans,
                bit_depth=depth,
                noise=noise,
                region=wanted,
                bounds=bounds,
                max_pixels=max_pixels,
            )
        here, all_parts = decoded.parts
        image, remarks = image_bytes(decoded.picture, format_name, quality)
        remarks = job.remarks + remarks
        height, width = decoded.picture.pixels.shape[:2]
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "input_bytes": size,
            "output_bytes": len(image),
            "scans": here,
            "scans_in_all": all_parts,
            "remarks": list(remarks),
        }
        amount = f"  {here} of {all_parts} scans" if here < all_parts else ""
        return Outcome(record, f"{source} -> {target}  {width}x{height}{amount}{in_brackets(remarks)}", data=image)

    batch.run(work)


def _window_of(region: str | None) -> Window | None:
    """ "X,Y,W,H" -> the pixels."""
    if region is None:
        return None
    try:
        left, top, width, height = map(int, region.split(","))
    except ValueError:
        width = 0
    if width < 1 or height < 1 or left < 0 or top < 0:
        raise typer.BadParameter(f"--region {region}: give left, top, width and height in pixels, as 0,0,640,480")
    return Window(top, left, top + height, left + width)
