"""Options that several commands share."""

import os
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentzip.errors import UsageError
from latentzip.files import STREAM
from latentzip.rate import parse_size
from latentzip.tiling import Bounds

if TYPE_CHECKING:
    import torch

Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="File or folder to write to, or - for standard output; FOLDER/ is made where there is none.",
    ),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite existing files.")]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Take the files in folders too; a folder for -o mirrors the tree.")
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out files whose outputs are there already.")]
Jobs = Annotated[
    int,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        max=256,
        help="Files to work on at a time, for more speed and memory; files stay the same.",
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


def _input(text: str) -> Path:
    """A path without click's own look at it: a file that cannot be read is that file's error, not wrong usage."""
    return Path(text).absolute() if text != "-" and Path(text) == STREAM else Path(text)  # ./- is a file


def inputs_argument(metavar: str, help: str) -> Any:
    return typer.Argument(metavar=metavar, help=help, parser=_input)


def output_file(text: str) -> Path:
    """The path of a file to write, which a folder's name is not taken for."""
    if os.path.basename(text) in ("", os.curdir, os.pardir):
        raise typer.BadParameter(f"{text}: is a folder's name: name a file")
    return Path(text)


def place_of(output: str | None, recursive: bool) -> tuple[Path | None, bool]:
    """What -o says, and whether it is a folder: as it is one, or ends in a slash, or -r wants it to be."""
    if output is None:
        return None, recursive
    path = Path(output)
    ends_so = os.path.basename(output) in ("", os.curdir, os.pardir)
    return path, recursive or ends_so or (path != STREAM and os.path.isdir(path))


def check_streams(output: Path | None, inputs: list[Path], as_json: bool, into_folder: bool) -> None:
    """Standard output holds one thing, standard input too."""
    if as_json and (output == STREAM or (output is None and STREAM in inputs)):
        raise typer.BadParameter("--json wants standard output for itself: give -o FILE")
    if output == STREAM and (len(inputs) > 1 or into_folder):
        raise typer.BadParameter("-o - takes one input")
    if inputs.count(STREAM) > 1:
        raise typer.BadParameter("standard input can be read once")


def check_names(
    output: Path | None,
    inputs: list[Path],
    read: Collection[str],
    written: Collection[str],
    *,
    suffix: str,
    into_folder: bool,
) -> None:
    """Raise UsageError where an output is named as if it were an input, by where it stands or by its suffix.

    `read`, `written`: the suffixes of files that the command reads, and writes; `suffix`: one that it writes.
    """
    last = inputs[-1]
    if output is None and len(inputs) == 2 and not into_folder:
        first_is_input = inputs[0] == STREAM or inputs[0].suffix.lower() in read
        if os.path.isdir(last) or (first_is_input and last.suffix.lower() in written):
            raise UsageError(f"{last}: does not look like an input: to write to it, give -o {last}")
    if output is not None and output.suffix.lower() in read and not into_folder:
        raise UsageError(f"{output}: has the suffix of an input: to write to it, give -o {output.with_suffix(suffix)}")


def check_existing(force: bool, skip_existing: bool) -> None:
    """What is there already can be treated in one way."""
    if force and skip_existing:
        raise typer.BadParameter("-f overwrites existing files, and --skip-existing leaves them: give one of them")


def bounds_of(tile: int | None, memory: str | None) -> Bounds:
    """Raises UsageError."""
    if tile is not None and memory is not None:
        raise typer.BadParameter("--memory chooses --tile: give one of them")
    return Bounds(tile, parse_size(memory, "--memory") if memory is not None else None)


def torch_device(choice: Device) -> "torch.device":
    """Raises ModelError for a device that is not there."""
    from latentzip.zoo.loading import choose_device

    return choose_device(choice.value)
