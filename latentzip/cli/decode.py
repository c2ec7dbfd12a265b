"""`latentzip decode`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentzip.cli.console import Batch, Record
from latentzip.cli.options import Device, DeviceOption, Force, Json, Output, Quiet, check_streams, torch_device
from latentzip.container import parse
from latentzip.files import plan_outputs, read_bytes, write_bytes

if TYPE_CHECKING:
    from latentzip.container import Container
    from latentzip.zoo.loading import LoadedDecoder


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
    force: Force = False,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode .lz files: photo.lz becomes photo.png."""
    check_streams(output, inputs, as_json)
    from latentzip.images import format_of, image_bytes

    suffix = f".{image_format.lower().lstrip('.')}" if image_format else ".png"
    format_of(Path(f"picture{suffix}"))
    jobs = plan_outputs(inputs, output, suffix, overwrite=force)
    from latentzip.codec import paint, read_symbols
    from latentzip.zoo.loading import load_decoder, weights_for

    torch_place = torch_device(device)
    loaded: dict[Path, LoadedDecoder] = {}

    def load(container: "Container") -> "LoadedDecoder":
        path = weights_for(container, model)
        if path not in loaded:
            loaded[path] = load_decoder(path, torch_place)
        return loaded[path]

    def work(job: tuple[Path, Path]) -> tuple[Record, str]:
        source, target = job
        image_type = format_of(Path(f"picture{suffix}") if image_format or target == Path("-") else target)
        container = parse(read_bytes(source), partial=partial)
        decoder = load(container)
        parsed = read_symbols(container, decoder, partial=partial, most_parts=scans)
        picture = paint(container, parsed, decoder)
        write_bytes(target, image_bytes(picture, image_type), overwrite=force)
        height, width = picture.pixels.shape[:2]
        here, all_parts = parsed.parts
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "scans": here,
            "scans_in_all": all_parts,
        }
        amount = f"  {here} of {all_parts} scans" if here < all_parts else ""
        return record, f"{source} -> {target}  {width}x{height}{amount}"

    batch = Batch("decoded", as_json, quiet)
    batch.run(jobs, lambda job: job[0], work)
    batch.finish()
