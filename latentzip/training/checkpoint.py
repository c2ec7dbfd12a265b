"""Everything a run needs to go on as if it had never stopped: the last two states, and the best."""

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from latentzip.errors import OutputError, TrainingError
from latentzip.files import write_atomically

CHECKPOINT_NAME, PREVIOUS_NAME, BEST_NAME = "checkpoint.pt", "checkpoint-previous.pt", "checkpoint-best.pt"
CHECKPOINT_VERSION = 2


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
    temporary = target.with_name(target.name + ".new")
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


def has_checkpoint(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CHECKPOINT_NAME, PREVIOUS_NAME, BEST_NAME))


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The last state. Read with weights_only: nothing in the file is executed. Raises TrainingError."""
    path = folder / CHECKPOINT_NAME
    others = [name for name in (PREVIOUS_NAME, BEST_NAME) if (folder / name).exists()]
    remedy = f"put {' or '.join(others)} in its place" if others else "start again in another --out"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        if others:
            raise TrainingError(f"{path}: no such file, but there is an older one: {remedy}") from None
        raise TrainingError(f"{path}: no checkpoint to resume from: start the run without --resume") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise TrainingError(f"{path}: not a usable checkpoint ({reason}): {remedy}") from None
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        raise TrainingError(f"{path}: written by another version of latentzip: resume with that version")
    return state
