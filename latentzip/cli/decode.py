"""`latentzip decode`"""

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
    Output,
    Quiet,
    Recursive,
    SkipExisting,
    check_existing,
    check_streams,
)
from latentzip.container import check_signature, parse
from latentzip.files import STREAM, read_bytes
from latentzip.jobs import LZ_SUFFIXES, Job, find_sources, plan_outputs


class BitDepth(str, Enum):
    eight = "8"
    sixteen = "16"


def decode(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help=".lz files, folders with -r, or - for stdin.")
    ],
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
        typer.Option("-q", "--quality", min=1, max=100, help="Of jpg, webp, avif. [default: 95; webp loses nothing]"),
    ] = None,
    bit_depth: Annotated[
        BitDepth, typer.Option("--bit-depth", help="Of a sample; 16, for png and tiff, has the decoder's finer levels.")
    ] = BitDepth.eight,
    recursive: Recursive = False,
    force: Force = False,
    skip_existing: SkipExisting = False,
    jobs: Jobs = 1,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode .lz files: photo.lz becomes photo.png."""
    check_streams(output, inputs, as_json, recursive)
    check_existing(force, skip_existing)
    depth: Literal[8, 16] = 16 if bit_depth is BitDepth.sixteen else 8
    from latentzip.images import check_output_wishes, format_of, image_bytes

    suffix = f".{image_format.lower().lstrip('.')}" if image_format else ".png"
    format_of(Path(f"picture{suffix}"))
    sources = find_sources(inputs, LZ_SUFFIXES, recursive=recursive)
    plan = plan_outputs(sources, output, suffix, into_folder=recursive, overwrite=force, skip_existing=skip_existing)
    batch = Batch("decoded", plan, as_json=as_json, quiet=quiet, overwrite=force, workers=jobs)

    def format_for(target: Path) -> str:
        return format_of(Path(f"picture{suffix}") if image_format or target == STREAM else target)

    for job in plan.jobs:
        check_output_wishes(format_for(job.target), quality, depth)
    if not plan.jobs:
        return batch.account()
    from latentzip.api import decode_picture

    def work(job: Job) -> Outcome:
        source, target = job.source, job.target
        data = read_bytes(source, check_signature)
        container = parse(data, partial=partial)
        decoded = decode_picture(container, model, device.value, partial=partial, most_parts=scans, bit_depth=depth)
        here, all_parts = decoded.parts
        image, remarks = image_bytes(decoded.picture, format_for(target), quality)
        height, width = decoded.picture.pixels.shape[:2]
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "input_bytes": len(data),
            "output_bytes": len(image),
            "scans": here,
            "scans_in_all": all_parts,
            "remarks": list(remarks),
        }
        amount = f"  {here} of {all_parts} scans" if here < all_parts else ""
        return Outcome(record, f"{source} -> {target}  {width}x{height}{amount}{in_brackets(remarks)}", image)

    batch.run(work)
