"""Names, streams and atomic writes. Whatever happens, a file is either whole and new, or as it was."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from latentzip.errors import LatentzipError, OutputError

STREAM = Path("-")


def read_bytes(path: Path) -> bytes:
    """The whole of a file, or of standard input for `-`. Raises LatentzipError."""
    if path == STREAM:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LatentzipError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise LatentzipError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise LatentzipError(f"{path}: cannot be read ({error.strerror})") from None


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file atomically, or to standard output for `-`. Raises OutputError."""
    if path == STREAM:
        write_to_stdout(data)
    else:
        write_atomically(path, lambda file: file.write(data), overwrite=overwrite)


def plan_outputs(inputs: list[Path], output: Path | None, suffix: str, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which: [(input, output)]. Raises OutputError where two would collide or one is in the way.

    Without `output` each lands beside its input with another suffix; `output` is a folder, or a file for one input.
    """
    into_folder = output is not None and output != STREAM and output.is_dir()
    if len(inputs) > 1 and output is not None and not into_folder:
        raise OutputError(f"{output}: not a folder, and there are {len(inputs)} inputs: create it, or give one input")
    jobs = []
    for source in inputs:
        if output is None or into_folder:
            if source == STREAM:
                if into_folder:
                    raise OutputError("standard input has no name for a file in a folder: give -o FILE")
                target = STREAM
            else:
                target = (output or source.parent) / source.with_suffix(suffix).name
        else:
            target = output
        jobs.append((source, target))
    seen: dict[Path, Path] = {}
    for source, target in jobs:
        if target != STREAM and target.absolute() in seen:
            raise OutputError(
                f"{target}: both {seen[target.absolute()]} and {source} would become it: give -o for each apart"
            )
        if target != STREAM and source != STREAM and target.exists() and source.exists() and target.samefile(source):
            raise OutputError(f"{target}: is the input itself: give another -o")
        seen[target.absolute()] = source
        check_output(target, overwrite=overwrite)
    return jobs


def write_to_stdout(data: bytes) -> None:
    """Binary to a pipe or file; a terminal is refused. Raises OutputError."""
    _refuse_terminal()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise OutputError("standard output is a terminal, and the data is binary: redirect it, or give -o FILE")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError where writing `path` is sure to fail, before the work is done."""
    if path == STREAM:
        _refuse_terminal()
        return
    if path.is_dir():
        raise OutputError(f"{path}: is a folder: name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: already exists: use --force to overwrite it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist: create it first")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, overwrite: bool) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place. Raises OutputError."""
    check_output(path, overwrite=overwrite)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if overwrite:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # fails where the file has appeared meanwhile
            os.unlink(temporary)
        temporary = None
    except FileExistsError:
        raise OutputError(f"{path}: already exists: use --force to overwrite it") from None
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({reason}): choose another place with -o") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
