"""`latentzip decode`"""

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentzip.cli.console import Batch, Record, in_brackets
from latentzip.cli.options import Device, DeviceOption, Force, Json, Output, Quiet, check_streams
from latentzip.container import parse
from latentzip.files import plan_outputs, read_bytes, write_bytes


class BitDepth(str, Enum):
    eight = "8"
    sixteen = "16"


def decode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=".lz files, or - for standard input.")],
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
    force: Force = False,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode .lz files: photo.lz becomes photo.png."""
    check_streams(output, inputs, as_json)
    depth: Literal[8, 16] = 16 if bit_depth is BitDepth.sixteen else 8
    from latentzip.images import check_output_wishes, format_of, image_bytes

    suffix = f".{image_format.lower().lstrip('.')}" if image_format else ".png"
    format_of(Path(f"picture{suffix}"))
    jobs = plan_outputs(inputs, output, suffix, overwrite=force)

    def format_for(target: Path) -> str:
        return format_of(Path(f"picture{suffix}") if image_format or target == Path("-") else target)

    for _, target in jobs:
        check_output_wishes(format_for(target), quality, depth)
    from latentzip.api import decode_picture

    def work(job: tuple[Path, Path]) -> tuple[Record, str]:
        source, target = job
        container = parse(read_bytes(source), partial=partial)
        decoded = decode_picture(container, model, device.value, partial=partial, most_parts=scans, bit_depth=depth)
        here, all_parts = decoded.parts
        data, remarks = image_bytes(decoded.picture, format_for(target), quality)
        write_bytes(target, data, overwrite=force)
        height, width = decoded.picture.pixels.shape[:2]
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "scans": here,
            "scans_in_all": all_parts,
            "remarks": list(remarks),
        }
        amount = f"  {here} of {all_parts} scans" if here < all_parts else ""
        return record, f"{source} -> {target}  {width}x{height}{amount}{in_brackets(remarks)}"

    batch = Batch("decoded", as_json, quiet)
    batch.run(jobs, lambda job: job[0], work)
    batch.finish()
