"""Files that say by their lock that somebody is at work: unfinished outputs, and the marks of those who want a folder.

The lock (flock) is on the file itself, and ends with its holder however that ended. It is trusted where its absence
means something: among the processes of one running kernel, whatever containers they are in. Of other machines, and on
systems without such locks, a file is somebody's as long as it changes every now and then.
"""

import contextlib
import hashlib
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from latentzip.errors import OutputError

UNFINISHED, AT_WORK = "part", "run"  # suffixes
SILENCE = 900.0  # seconds without a change after which a file without a lock is nobody's
BEAT = 60.0  # seconds after which the mark on a folder is touched again
_NAME = re.compile(r"\.latentzip-([0-9a-f]{1,8})-[0-9a-f]{8}\.(part|run)")  # on which machine it was made
_ANY_MACHINE = "0"


@contextlib.contextmanager
def own_file(folder: Path, suffix: str = UNFINISHED) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file in a folder, open for writing, which `remove_leftovers` leaves alone. In the end its name is gone.

    Raises OSError.
    """
    while True:
        path = folder / f".latentzip-{_machine()}-{secrets.token_hex(4)}.{suffix}"
        with path.open("xb") as file:
            try:
                # somebody who cleans up may have seen it before it was locked
                if _lock(file.fileno()) is not False and _is_named(file, path):
                    yield path, file
                    return
            finally:
                if sys.platform == "win32":  # removes no open files
                    file.close()
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Be the only one at work in a folder that is there. Raises OutputError where somebody else is, or it is read-only.

    What others left who were killed is removed. Of two who come in the same instant, both may be refused.
    """
    with contextlib.ExitStack() as stack:
        try:
            mine, _ = stack.enter_context(own_file(folder, AT_WORK))
            remove_leftovers(folder)
            others = [path for path in _files_in(folder) if path.suffix == f".{AT_WORK}" and path != mine]
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written to ({error.strerror}): choose another folder") from None
        if others:
            raise OutputError(
                f"{folder}: another run is at work in it: wait for its end, or choose another folder"
                f" (if it was killed on another machine, delete {others[0].name} in it)"
            )
        ended = threading.Event()
        stack.callback(ended.set)
        threading.Thread(target=_touch, args=(mine, ended), daemon=True).start()
        yield


def remove_leftovers(folder: Path) -> None:
    """Delete what was left in a folder by those who were killed at their work."""
    with contextlib.suppress(OSError):
        for path in _files_in(folder):
            with contextlib.suppress(OSError), _try_lock(path) as locked:
                if locked is not False and ((locked and _is_of_here(path)) or _silence(path) > SILENCE):
                    path.unlink()


def _files_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(entry) for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]


def _is_of_here(path: Path) -> bool:
    """Whether a file is of a machine, this one, whose locks are all to be seen."""
    match, here = _NAME.fullmatch(path.name), _machine()
    return match is not None and match[1] == here != _ANY_MACHINE


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file that is there. False: somebody else does; None: there is no telling. Raises OSError."""
    if sys.platform == "win32":
        yield None
        return
    # some network file systems want to write what they lock
    flags = os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_named(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _silence(path: Path) -> float:
    """Seconds since a file was changed, by the clock of its file system, which may not be ours."""
    with own_file(path.parent) as (_, file):
        return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime


def _machine() -> str:
    """What the processes have in common that see each other's locks: the start of a kernel."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return _ANY_MACHINE
    return hashlib.sha256(started).hexdigest()[:8]


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
