"""Options that several commands share."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="File or folder to write to, or - for standard output.")
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite existing files.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


DeviceOption = Annotated[Device, typer.Option("--device", help="Where the networks run.")]


def check_streams(output: Path | None, inputs: list[Path], as_json: bool) -> None:
    """Standard output holds one thing, standard input too."""
    if output == Path("-") and as_json:
        raise typer.BadParameter("--json and -o - both want standard output")
    if output == Path("-") and len(inputs) > 1:
        raise typer.BadParameter("-o - takes one input")
    if inputs.count(Path("-")) > 1:
        raise typer.BadParameter("standard input can be read once")


def torch_device(choice: Device) -> "torch.device":
    """Raises ModelError for a device that is not there."""
    from latentzip.zoo.loading import choose_device

    return choose_device(choice.value)
