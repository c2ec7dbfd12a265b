"""Everything a run needs to go on as if it had never stopped, in one file."""

import pickle
from pathlib import Path
from typing import Any

import torch

from latentzip.errors import TrainingError
from latentzip.files import write_atomically

CHECKPOINT_NAME = "checkpoint.pt"
CHECKPOINT_VERSION = 1


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings) so that an interrupted write leaves the old file."""
    write_atomically(
        folder / CHECKPOINT_NAME,
        lambda file: torch.save({"version": CHECKPOINT_VERSION, **state}, file),
        overwrite=True,
    )


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read with weights_only: nothing in the file is executed. Raises TrainingError."""
    path = folder / CHECKPOINT_NAME
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no checkpoint to resume from: start the run without --resume") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise TrainingError(f"{path}: not a usable checkpoint ({error}): start again in another --out") from None
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        raise TrainingError(f"{path}: written by another version of latentzip: resume with that version")
    return state
