"""Who is at work: files of the living stay, those of the killed go, and a folder has one run."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentzip import locks
from latentzip.errors import OutputError
from latentzip.files import write_atomically
from latentzip.locks import SILENCE, own_file, remove_leftovers, sole_use

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs locks")
HOLD = """
import sys
from pathlib import Path
from latentzip.locks import own_file, sole_use
what = own_file if sys.argv[1] == "file" else sole_use
with what(Path(sys.argv[2])):
    print("holds", flush=True)
    sys.stdin.read()
"""
NEVER = 2 * SILENCE
ELSEWHERE = ".latentzip-abcdef01-01234567"  # of another machine


@contextlib.contextmanager
def another_process(what: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """That holds a file or a folder until it is told to end."""
    command = [sys.executable, "-c", HOLD, what, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        yield process
        process.kill()


def aged(path: Path, seconds: float = NEVER) -> Path:
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of the network that knows none."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


def test_the_living_keep_their_files_and_the_killed_do_not(tmp_path: Path) -> None:
    """However long they have not written: a process may be stopped, and its number says nothing (in two containers
    both may be number 1)."""
    with another_process("file", tmp_path) as process:
        (unfinished,) = tmp_path.iterdir()
        aged(unfinished)
        remove_leftovers(tmp_path)
        assert unfinished.exists()
        process.kill()
        process.wait()
        unfinished.touch()
        assert unfinished.exists()
        remove_leftovers(tmp_path)
        assert not list(tmp_path.iterdir())


def test_files_of_other_machines_go_when_they_are_silent(tmp_path: Path) -> None:
    """Their locks may be out of sight. An older version put a process id where the machine is now."""
    young, old = tmp_path / f"{ELSEWHERE}.part", aged(tmp_path / f"{ELSEWHERE[:-1]}8.part")
    oldest, locked = aged(tmp_path / ".latentzip-1-01234567.part"), aged(tmp_path / f"{ELSEWHERE[:-1]}9.part")
    young.touch()
    with locks._try_lock(locked):
        remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, locked])
    assert not old.exists()
    assert not oldest.exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_silence_decides(tmp_path: Path) -> None:
    with own_file(tmp_path) as (mine, _):
        left = aged(tmp_path / f"{ELSEWHERE}.part")
        remove_leftovers(tmp_path)
        assert (mine.exists(), left.exists()) == (True, False)
        with sole_use(tmp_path):
            pass
        aged(mine)
        remove_leftovers(tmp_path)
        assert not mine.exists()
    with sole_use(tmp_path), pytest.raises(OutputError, match="another run is at work"), sole_use(tmp_path):
        pass


def test_nothing_else_is_deleted(tmp_path: Path) -> None:
    target = aged(tmp_path / "target")
    os.mkfifo(tmp_path / ".latentzip-1-01234567.part")
    (tmp_path / ".latentzip-2-01234567.part").symlink_to(target)
    (tmp_path / ".latentzip-3-01234567.part").mkdir()
    for name in ("latentzip-1-01234567.part", ".latentzip-1-01234567.part.png", ".latentzip-1-0123456G.part"):
        aged(tmp_path / name)
    aged(tmp_path / ".latentzip-999999999-01234567.part")
    before = sorted(os.listdir(tmp_path))
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    remove_leftovers(tmp_path / "missing")


def test_those_who_clean_up_leave_what_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the instant before it is locked, when it looks like a leftover."""
    real, seen = locks._lock, []

    def late(descriptor: int) -> bool | None:
        if not seen:
            seen.extend(tmp_path.iterdir())
            remove_leftovers(tmp_path)
            assert not seen[0].exists()
        return real(descriptor)

    monkeypatch.setattr(locks, "_lock", late)

    def write(file: object) -> None:
        remove_leftovers(tmp_path)
        file.write(b"whole")  # type: ignore[attr-defined]

    write_atomically(tmp_path / "a", write, overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert seen
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        aged(tmp_path / f".latentzip-{number}-01234567.part")
    real, first = Path.unlink, []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(".latentzip-") and not first:
            first.append(path)
        if path in first:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == first


def test_a_folder_has_one_run(tmp_path: Path) -> None:
    with another_process("folder", tmp_path) as process:
        (mark,) = tmp_path.iterdir()
        aged(mark)
        with pytest.raises(OutputError, match=f"another run is at work in it.*delete {mark.name}"), sole_use(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == [mark]
        process.kill()
        process.wait()
        with sole_use(tmp_path):
            assert not mark.exists()
            (tmp_path / "model").touch()
            with pytest.raises(OutputError), sole_use(tmp_path):
                pass
    assert os.listdir(tmp_path) == ["model"]


def test_a_run_on_another_machine_is_known_by_its_mark(tmp_path: Path) -> None:
    mark = tmp_path / f"{ELSEWHERE}.run"
    mark.touch()
    with pytest.raises(OutputError, match="another run is at work"), sole_use(tmp_path):
        pass
    aged(mark)
    with sole_use(tmp_path):
        assert not mark.exists()


def test_a_mark_is_touched_as_long_as_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.001)
    with sole_use(tmp_path):
        (mark,) = tmp_path.iterdir()
        aged(mark)
        deadline = time.monotonic() + 60
        while locks._silence(mark) > SILENCE and time.monotonic() < deadline:
            pass
        assert locks._silence(mark) < SILENCE


def test_a_folder_that_is_missing_or_closed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written to"), sole_use(tmp_path / "missing"):
        pass
