"""Everything a run needs to go on as if it had never stopped: the last two states, and the best."""

import contextlib
import math
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentzip.errors import OutputError, TrainingError
from latentzip.files import write_atomically

CHECKPOINT_NAME, PREVIOUS_NAME, BEST_NAME = "checkpoint.pt", "checkpoint-previous.pt", "checkpoint-best.pt"
CHECKPOINT_VERSION = 2
_UNFINISHED = ".new"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "config": str,
    "settings": str,
    "step": int,
    "seconds": (int, float),
    "best_score": (int, float),
    "model": dict,
    "averages": dict,
    "optimizer": dict,
}
MOST_STEPS = 2**48  # far beyond any run; with seeds they are still numbers that generators take


def save_checkpoint(folder: Path, state: dict[str, Any], *, best: bool) -> None:
    """Write `state` (tensors, numbers, strings); what was the last checkpoint becomes the previous one.

    `best`: keep it under the best's name too. An interrupted write leaves the older files. Raises OutputError.
    """
    last = folder / CHECKPOINT_NAME
    if last.exists():
        _link(last, folder / PREVIOUS_NAME)
    write_atomically(last, lambda file: torch.save({"version": CHECKPOINT_VERSION, **state}, file), overwrite=True)
    if best:
        _link(last, folder / BEST_NAME)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, where the file system can without copying it; neither name is ever missing."""
    temporary = target.with_name(target.name + _UNFINISHED)
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}): choose another --out") from None


def remove_unfinished_links(folder: Path) -> None:
    """Delete what a run left that was killed while it gave a checkpoint its second name. Raises OutputError."""
    for name in (PREVIOUS_NAME, BEST_NAME):
        path = folder / (name + _UNFINISHED)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed ({error.strerror}): choose another --out") from None


def has_checkpoint(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CHECKPOINT_NAME, PREVIOUS_NAME, BEST_NAME))


def what_was_kept(folder: Path) -> str:
    """For the message of a run that fell apart: what there is to go on from."""
    if (folder / CHECKPOINT_NAME).exists():
        return "the last good checkpoint was kept: go on from it with --resume and a lower --learning-rate"
    return "nothing was saved: start again with a lower --learning-rate"


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The last state: its numbers are checked here, its tensors by `fitting`. Raises TrainingError.

    Read with weights_only: nothing in the file is executed.
    """
    path = folder / CHECKPOINT_NAME
    if not os.path.lexists(path):
        if remedy := _others(folder):
            raise TrainingError(f"{path}: no such file, but there is an older one: {remedy}")
        raise TrainingError(f"{path}: no checkpoint to resume from: start the run without --resume")
    with usable(folder):
        if not path.is_file():  # to open a pipe would be to wait for ever
            raise ValueError("no ordinary file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's are for its developers
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # whose message advises to execute what the file says
            raise ValueError("holds something else than tensors, numbers and text, or is damaged") from None
        except Exception as error:  # damaged pickles end in any
            raise ValueError(str(error).split("\n")[0] or type(error).__name__) from None
        if not isinstance(state, dict):
            raise ValueError("holds no state of a run")
    if state.get("version") != CHECKPOINT_VERSION:
        raise TrainingError(f"{path}: written by another version of latentzip: resume with that version")
    with usable(folder):
        for name, kind in _TYPES.items():
            if not isinstance(state.get(name), kind):
                raise ValueError(f"its {name} is missing, or of another type")
        if not 0 <= state["step"] < MOST_STEPS:
            raise ValueError(f"it is of step {state['step']}")
        if not 0 <= state["seconds"] < math.inf or math.isnan(state["best_score"]):
            raise ValueError("its clock or its best score is no number")
    return state


@contextlib.contextmanager
def usable(folder: Path) -> Iterator[None]:
    """A ValueError inside becomes a TrainingError, which says that and what to do."""
    try:
        yield
    except ValueError as error:
        remedy = _others(folder) or "start again in another --out"
        raise TrainingError(f"{folder / CHECKPOINT_NAME}: not a usable checkpoint ({error}): {remedy}") from None


def fitting(found: object, wanted: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """`found`, if its tensors have the names, shapes and dtypes of `wanted`, and finite values. Raises ValueError."""
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise ValueError(f"its {what} has other tensors")
    for name, tensor in wanted.items():
        if not is_like(found[name], tensor):
            raise ValueError(f"{name} of its {what} has another shape, or values that are not finite")
    return found


def is_like(found: object, wanted: Tensor) -> bool:
    """Whether it is a tensor like `wanted`, in the CPU's memory, with finite values."""
    return (
        type(found) is Tensor
        and found.layout == torch.strided
        and found.device.type == "cpu"
        and (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        and bool(torch.isfinite(found).all())
    )


def _others(folder: Path) -> str:
    """What to do where there are older checkpoints."""
    others = [name for name in (PREVIOUS_NAME, BEST_NAME) if (folder / name).exists()]
    return f"put {' or '.join(others)} in its place" if others else ""
