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
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Take the files in folders too; a folder for -o mirrors the tree.")
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out files whose outputs are there already.")]
Jobs = Annotated[
    int,
    typer.Option(
        "-j", "--jobs", min=1, help="Files to work on at a time, for more speed and memory; files stay the same."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


DeviceOption = Annotated[Device, typer.Option("--device", help="Where the networks run.")]


def check_streams(output: Path | None, inputs: list[Path], as_json: bool, recursive: bool = False) -> None:
    """Standard output holds one thing, standard input too."""
    if output == Path("-") and as_json:
        raise typer.BadParameter("--json and -o - both want standard output")
    if output == Path("-") and (len(inputs) > 1 or recursive):
        raise typer.BadParameter("-o - takes one input")
    if inputs.count(Path("-")) > 1:
        raise typer.BadParameter("standard input can be read once")


def check_existing(force: bool, skip_existing: bool) -> None:
    """What is there already can be treated in one way."""
    if force and skip_existing:
        raise typer.BadParameter("-f overwrites existing files, and --skip-existing leaves them: give one of them")


def torch_device(choice: Device) -> "torch.device":
    """Raises ModelError for a device that is not there."""
    from latentzip.zoo.loading import choose_device

    return choose_device(choice.value)
