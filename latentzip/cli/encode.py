"""`latentzip encode`"""

from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.console import Batch, Record, human_size
from latentzip.cli.options import Device, DeviceOption, Force, Json, Output, Quiet, check_streams, torch_device
from latentzip.container import DEFAULT_QUALITY, MAX_QUALITY
from latentzip.files import plan_outputs, read_bytes, write_bytes


def encode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Pictures, or - for standard input.")],
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Built-in model, weights file or run folder.")
    ] = None,
    quality: Annotated[
        int, typer.Option("-q", "--quality", min=1, max=MAX_QUALITY, help="1 (smallest) to 100 (best).")
    ] = DEFAULT_QUALITY,
    force: Force = False,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Encode pictures: photo.png becomes photo.lz."""
    check_streams(output, inputs, as_json)
    jobs = plan_outputs(inputs, output, ".lz", overwrite=force)
    from latentzip.codec import encode_image
    from latentzip.images import read_image
    from latentzip.zoo.loading import load_encoder

    loaded = load_encoder(model, torch_device(device))

    def work(job: tuple[Path, Path]) -> tuple[Record, str]:
        source, target = job
        data = read_bytes(source)
        picture = read_image(data, name=str(source))
        encoded = encode_image(picture, loaded, quality)
        write_bytes(target, encoded, overwrite=force)
        height, width = picture.pixels.shape[:2]
        record = {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "input_bytes": len(data),
            "output_bytes": len(encoded),
            "bpp": len(encoded) * 8 / (width * height),
            "model": loaded.name,
            "quality": quality,
        }
        sizes = f"{human_size(len(data))} -> {human_size(len(encoded))}"
        return record, f"{source} -> {target}  {width}x{height}  {sizes}  {record['bpp']:.3f} bpp"

    batch = Batch("encoded", as_json, quiet)
    batch.run(jobs, lambda job: job[0], work)
    batch.finish()
