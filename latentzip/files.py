"""Streams and atomic writes. Whatever happens, a file is either whole and new, or as it was."""

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from latentzip.errors import LatentzipError, OutputError
from latentzip.locks import own_file

STREAM = Path("-")
MAX_FILE_BYTES = 2**32 - 1  # read into memory at once; more than a TIFF can have
PIECE = 2**20


def read_bytes(path: Path, check: Callable[[bytes], None] | None = None) -> bytes:
    """The whole of a file, or of standard input for `-`. Raises LatentzipError.

    `check` is given the first 8 bytes before the rest is read, and may raise: nothing large or endless is read only to
    find that it is something else.
    """
    if path == STREAM:
        if sys.stdin is None:
            raise LatentzipError("standard input is closed: give a file")
        if sys.stdin.isatty():
            raise LatentzipError("standard input is a terminal, and pictures are binary: pipe one in, or give a file")
        return _read_from(sys.stdin.buffer, path, check)
    with open_bytes(path) as file, _reading(path):
        return _read_from(file, path, check)


def open_bytes(path: Path) -> IO[bytes]:
    """A file to read parts of. Raises LatentzipError."""
    with _reading(path):
        file = path.open("rb")
    if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):  # may be endless, or wait for a person to type
        file.close()
        raise LatentzipError(f"{path}: is a device, not a file")
    return file


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise LatentzipError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise LatentzipError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise LatentzipError(f"{path}: cannot be read ({error.strerror})") from None


def _read_from(file: IO[bytes], path: Path, check: Callable[[bytes], None] | None) -> bytes:
    pieces: list[bytes] = []
    if check is not None:
        pieces.append(file.read(8))
        check(pieces[0])
    too_long = os.fstat(file.fileno()).st_size > MAX_FILE_BYTES  # never of a pipe or a device
    left = MAX_FILE_BYTES - sum(map(len, pieces))
    while not too_long and (piece := file.read(PIECE)):
        pieces.append(piece)
        left -= len(piece)
        too_long = left < 0
    if too_long:
        raise LatentzipError(f"{path}: has more than {MAX_FILE_BYTES} bytes, which is more than can be read at once")
    return b"".join(pieces)


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file atomically, or to standard output for `-`. Raises OutputError."""
    if path == STREAM:
        return write_to_stdout(data)
    return write_atomically(path, lambda file: file.write(data), overwrite=overwrite)


def make_folder_of(path: Path) -> None:
    """Make the folder that a file is to be in, and those above it. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: its folder cannot be made ({error.strerror}): choose another -o") from None


def write_to_stdout(data: bytes) -> None:
    """Binary to a pipe or file; a terminal is refused. Raises OutputError."""
    _check_stdout()
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from None


def _check_stdout() -> None:
    if sys.stdout is None:
        raise OutputError("standard output is closed: give -o FILE")
    if sys.stdout.isatty():
        raise OutputError("standard output is a terminal, and the data is binary: redirect it, or give -o FILE")


def check_output(path: Path, *, overwrite: bool, make_folders: bool = False) -> None:
    """Raise OutputError where writing `path` is sure to fail, before the work is done.

    `make_folders`: those that do not exist will be made.
    """
    if path == STREAM:
        return _check_stdout()
    if flaw := flaw_of_name(path):
        raise OutputError(f"{path}: {flaw}")
    if os.path.isdir(path):  # unlike pathlib's, these raise nothing where a folder above is closed
        raise OutputError(f"{path}: is a folder: name a file")
    if _is_stream(path):
        return None
    if os.path.islink(path):
        raise OutputError(f"{path}: is a symbolic link, which is not followed: name the file itself")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path}: is no ordinary file: name another")
    if os.path.exists(path) and not overwrite:
        raise OutputError(f"{path}: already exists: use --force to overwrite it")
    folder = nearest_folder(path.parent) if make_folders else path.parent
    if not os.path.exists(folder):
        raise OutputError(f"{path}: the folder {folder} does not exist: create it first")
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} is not writable: choose another place with -o")
    return None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, overwrite: bool) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place. Raises OutputError.

    A file that is replaced hands down its permissions, a new one has those of the umask. A pipe or character device is
    simply written to. The data is on the disk before the name is: after a power cut too, a file is whole or not there.
    """
    check_output(path, overwrite=overwrite)
    try:
        if _is_stream(path):
            with path.open("wb") as file:
                write(file)
            return
        with own_file(path.parent) as (part, file):
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # renames no open files
                file.close()
            if overwrite:
                with contextlib.suppress(OSError):
                    shutil.copymode(path, part)
                os.replace(part, path)
            else:
                _rename_to_new(part, path)
    except FileExistsError:
        raise OutputError(f"{path}: already exists: use --force to overwrite it") from None
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({reason}): choose another place with -o") from None


def _rename_to_new(part: Path, path: Path) -> None:
    """Give a file its name. Raises FileExistsError where that has been taken meanwhile."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as a memory card's
        if os.path.lexists(path):
            raise FileExistsError from None
        os.replace(part, path)


def flaw_of_name(path: Path) -> str:
    """Why no file can have this name, whatever is done about folders and permissions; nothing if one can."""
    try:
        os.lstat(nearest_folder(path.parent) / path.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except OSError as error:
        return f"cannot be called {path.name} ({error.strerror}): choose another name"
    return ""


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def ignores_case(folder: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, takes `A` and `a` for one name. Tried with a file."""
    folder = nearest_folder(folder)
    try:
        with own_file(folder) as (probe, _):
            return probe.with_name(probe.name.upper()).exists()
    except OSError:
        return False


def _is_stream(path: Path) -> bool:
    """Whether it is there, and a pipe or a character device: /dev/stdout, /dev/null, >(command)."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
