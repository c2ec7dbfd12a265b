"""Reading and writing: nothing is overwritten, nothing is half written."""

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path
from typing import IO

import pytest

from latentzip.container import check_signature
from latentzip.errors import FormatError, LatentzipError, OutputError
from latentzip.files import (
    STREAM,
    check_output,
    ignores_case,
    read_bytes,
    write_atomically,
    write_bytes,
)

not_for_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    return paths


def test_writing_keeps_what_is_there(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a")
    with pytest.raises(OutputError, match="already exists"):
        write_bytes(path, b"new", overwrite=False)
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a")

    def fill_the_disk(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    for target in (path, tmp_path / "b"):
        with pytest.raises(OutputError, match="No space left"):
            write_atomically(target, fill_the_disk, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, lambda file: (_ for _ in ()).throw(KeyboardInterrupt), overwrite=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(OutputError, match="already exists"):
        write_atomically(path, lambda file: path.write_bytes(b"theirs"), overwrite=False)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (ordinary,) = touch(tmp_path, "ordinary")
    write_bytes(tmp_path / "new", b"", overwrite=False)
    assert (tmp_path / "new").stat().st_mode == ordinary.stat().st_mode


@posix
def test_a_file_that_is_replaced_hands_down_its_permissions(tmp_path: Path) -> None:
    (private,) = touch(tmp_path, "private")
    private.chmod(0o600)
    write_bytes(private, b"new", overwrite=True)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and the like, as on memory cards."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_bytes(tmp_path / "a", b"new", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"new"
    with pytest.raises(OutputError, match="already exists"):
        write_atomically(tmp_path / "b", lambda file: touch(tmp_path, "b"), overwrite=False)
    assert (tmp_path / "b").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@posix
def test_links_are_neither_followed_nor_replaced(tmp_path: Path) -> None:
    (target,) = touch(tmp_path, "target")
    for name, to in (("link", target), ("dangling", tmp_path / "nowhere")):
        (tmp_path / name).symlink_to(to)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="symbolic link"):
                write_bytes(tmp_path / name, b"new", overwrite=overwrite)
        assert (tmp_path / name).is_symlink()
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "target"]


@posix
def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"through", overwrite=False)
    reader.join()
    assert got == [b"through"]
    (tmp_path / "null").symlink_to("/dev/null")  # as /dev/stdout is a link to a device or pipe
    write_bytes(tmp_path / "null", b"away", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(Path("/dev/full"), b"data", overwrite=True)


@not_for_root
def test_folders_that_may_not_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="is not writable"):
            check_output(tmp_path / "a", overwrite=True)
        with pytest.raises(OutputError, match="is not writable"):
            check_output(tmp_path / "below" / "a", overwrite=True, make_folders=True)
    finally:
        tmp_path.chmod(0o700)


def test_whether_a_folder_ignores_case_is_tried(tmp_path: Path) -> None:
    touch(tmp_path, "a")
    assert ignores_case(tmp_path / "missing") == (tmp_path / "A").exists()
    assert os.listdir(tmp_path) == ["a"]


def test_unreadable_inputs_have_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(LatentzipError, match="no such file"):
        read_bytes(tmp_path / "missing")
    with pytest.raises(LatentzipError, match="is a folder"):
        read_bytes(tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_devices_are_refused_as_inputs() -> None:
    """/dev/zero has no end, and a terminal waits for a person."""
    for device in ("/dev/zero", "/dev/null"):
        for check in (None, check_signature):
            with pytest.raises(LatentzipError, match=f"{device}: is a device"):
                read_bytes(Path(device), check)


@posix
def test_a_terminal_as_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal, os.fdopen(ours):
        monkeypatch.setattr("sys.stdin", terminal)
        with pytest.raises(LatentzipError, match="standard input is a terminal"):
            read_bytes(STREAM)


@posix
def test_endless_inputs_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = threading.Event()

    def write_without_end() -> None:
        with contextlib.suppress(BrokenPipeError), pipe.open("wb") as file:
            while not ended.is_set():
                file.write(bytes(4096))

    writer = threading.Thread(target=write_without_end)
    writer.start()
    with pytest.raises(FormatError, match="not a latentzip image"):
        read_bytes(pipe, check_signature)
    ended.set()
    writer.join()


@posix
def test_inputs_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = touch(tmp_path, "a")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("latentzip.files.MAX_FILE_BYTES", 3)
    assert read_bytes(path) == b"old"
    path.write_bytes(b"long")
    with pytest.raises(LatentzipError, match="more than 3 bytes"):
        read_bytes(path)
    for data in (b"old", b"long"):
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        if data == b"old":
            assert read_bytes(pipe) == data
        else:
            with pytest.raises(LatentzipError, match="more than 3 bytes"):
                read_bytes(pipe)
        writer.join()
