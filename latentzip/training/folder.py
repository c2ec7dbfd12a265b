"""A run's folder: one run at a time is at work in it, and nothing in it is in the way of what the run will write."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from latentzip.errors import OutputError
from latentzip.locks import sole_use
from latentzip.training.card import CARD_NAME
from latentzip.training.checkpoint import BEST_NAME, CHECKPOINT_NAME, PREVIOUS_NAME, remove_unfinished_links
from latentzip.training.journal import LOG_NAME
from latentzip.training.validation import FOLDER
from latentzip.zoo.checkpoints import MODEL_NAME

FILES = (CHECKPOINT_NAME, PREVIOUS_NAME, BEST_NAME, MODEL_NAME, CARD_NAME, LOG_NAME)


@contextlib.contextmanager
def run_folder(out: Path) -> Iterator[None]:
    """Be the only run in `out` while inside. It is made where it is not there, and is gone again if nothing came in.

    What a run that was killed left unfinished is removed. Raises OutputError.
    """
    made: list[Path] = []
    try:
        try:
            made += itertools.takewhile(lambda folder: not folder.exists(), (out, *out.parents))
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written to ({error.strerror}): choose another --out") from None
        with sole_use(out):
            _check_names(out)
            remove_unfinished_links(out)
            yield
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def _check_names(out: Path) -> None:
    for path in (out / name for name in FILES):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise OutputError(f"{path}: is no ordinary file, and the run writes one: move it, or choose another --out")
    log, grids = out / LOG_NAME, out / FOLDER
    if os.path.lexists(grids) and not grids.is_dir():
        raise OutputError(f"{grids}: is no folder, and the run makes one: move it, or choose another --out")
    for path in (log, grids):
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"{path}: is not writable: change that, or choose another --out")
