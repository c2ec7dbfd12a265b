"""Options that several commands share."""

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentzip.rate import parse_size
from latentzip.tiling import Bounds

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


Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=0,
        metavar="PIXELS",
        help="Height of the strips that a picture is computed in, which changes nothing but memory and time; of public"
        " models the side of their tiles, which are blended. 0: in one piece.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Take at most about so much memory (1GB): chooses --tile."),
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Refuse larger pictures: a small file can pretend to hold a huge one."),
]


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


def bounds_of(tile: int | None, memory: str | None) -> Bounds:
    """Raises LatentzipError."""
    if tile is not None and memory is not None:
        raise typer.BadParameter("--memory chooses --tile: give one of them")
    return Bounds(tile, parse_size(memory, "--memory") if memory is not None else None)


def wait_asleep() -> None:
    """To be called before torch is imported: its threads sleep while they wait for each other.

    Otherwise they keep their cores busy, which where other programs share them makes decoding three times as slow.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def torch_device(choice: Device) -> "torch.device":
    """Raises ModelError for a device that is not there."""
    from latentzip.zoo.loading import choose_device

    return choose_device(choice.value)
