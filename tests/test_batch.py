"""Many files: what is finished is whole, what is bad is passed over, what was not done is taken up again."""

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, noise_picture
from PIL import Image
from test_files import posix

from latentzip import api
from latentzip.container import parse
from latentzip.images import read_image

Cli = Callable[..., Result]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four pictures, in three folders, and what is none of them."""
    folder = tmp_path / "in"
    for number, name in enumerate(("a.png", "b/c.PNG", "b/d/e.jpg", "b/f.webp")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_picture(40, 30, seed=number).pixels).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


ORDER = ["a.lz", "b/c.lz", "b/f.lz", "b/d/e.lz"]
OUTPUTS = sorted(ORDER)


def test_a_folder_there_and_back(cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    model, lz, back = tiny_weights["vq"], tmp_path / "lz", tmp_path / "back"
    assert "-r takes the files in it" in cli("encode", tree, "-o", lz, "-m", model).err
    result = cli("encode", "-r", tree, "-o", lz, "-m", model)
    assert (result.code, files_in(lz)) == (0, OUTPUTS)
    sizes = sum((lz / name).stat().st_size for name in OUTPUTS)
    assert re.search(r"^4 encoded: 0.0 MP, .* -> .*saved$", result.err.splitlines()[-1]), result.err
    assert cli("verify", "-r", lz, "-m", model).err.splitlines()[-1] == "4 verified: 0.0 MP"
    described = json.loads(cli("info", "-r", lz, "--json").out)["files"]
    assert sum(record["bytes"] for record in described) == sizes
    assert cli("decode", "-r", lz, "-o", back, "-m", model, "--format", "webp").code == 0
    assert files_in(back) == [name.replace(".lz", ".webp") for name in OUTPUTS]


def test_finished_files_are_left_out_and_counted(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]
) -> None:
    command = ["encode", "-r", tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"]]
    (tmp_path / "lz" / "b").mkdir(parents=True)
    (tmp_path / "lz" / "b" / "c.lz").write_bytes(b"finished")
    refused = cli(*command)
    assert (refused.code, files_in(tmp_path / "lz")) == (1, ["b/c.lz"])
    assert "already exists" in refused.err
    document = json.loads(cli(*command, "--skip-existing", "--json").out)
    assert (len(document["files"]), document["skipped"]) == (3, [str(tree / "b" / "c.PNG")])
    assert (tmp_path / "lz" / "b" / "c.lz").read_bytes() == b"finished"
    again = cli(*command, "--skip-existing")
    assert (again.code, again.err) == (0, "0 encoded, 4 there already\n")
    assert cli(*command, "--skip-existing", "-f").code == 2
    assert cli("encode", "-r", tree, "-o", "-").code == 2


@pytest.mark.parametrize("kind", ["kl", "vq-prior"])
def test_the_number_of_workers_changes_nothing(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], kind: str
) -> None:
    contents = []
    for workers in (1, 3, 99):
        lz, back = tmp_path / f"lz{workers}", tmp_path / f"back{workers}"
        result = cli("encode", "-r", tree, "-o", lz, "-m", tiny_weights[kind], "-j", workers, "--json")
        assert [record["input"] for record in json.loads(result.out)["files"]] == [
            str(tree / name) for name in ("a.png", "b/c.PNG", "b/f.webp", "b/d/e.jpg")
        ]
        assert cli("decode", "-r", lz, "-o", back, "-m", tiny_weights[kind], "-j", workers).code == 0
        contents.append([(folder / name).read_bytes() for folder in (lz, back) for name in files_in(folder)])
        assert len(contents[-1]) == 8
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough memory for it"),
        (MemoryError(), "there is not enough memory for it"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError (by zero), which latentzip did not expect"),
    ],
)
def test_a_batch_goes_past_whatever_one_file_does(
    cli: Cli,
    tree: Path,
    tmp_path: Path,
    tiny_weights: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    real, calls = api.encode_picture, []

    def fail_at_the_second(*arguments: Any) -> api.Encoded:
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(api, "encode_picture", fail_at_the_second)
    result = cli("encode", "-r", tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"])
    assert result.code == 1
    assert f"latentzip: {tree / 'b' / 'c.PNG'}: {message}" in result.err
    assert files_in(tmp_path / "lz") == [name for name in OUTPUTS if name != "b/c.lz"]


def test_an_input_that_cannot_be_read_is_passed_over(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises, and wherever: it is that file's error."""
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "c.PNG":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    def fail(*arguments: Any, **options: Any) -> Any:
        if arguments[1] == str(tree / "b" / "f.webp"):
            raise OSError(5, "Input/output error")
        return read_image(*arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("latentzip.images.read_image", fail)
    long = tree / ("n" * 300 + ".png")
    command = ["encode", "-r", tree / "gone.png", long, tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"], "--json"]
    result = cli(*command)
    document = json.loads(result.out)
    assert (result.code, [record["output"] for record in document["files"]]) == (
        1,
        [str(tmp_path / "lz" / "a.lz"), str(tmp_path / "lz" / "b" / "d" / "e.lz")],
    )
    assert [(record["input"], record["error"]) for record in document["errors"]] == [
        (str(tree / "gone.png"), f"{tree / 'gone.png'}: no such file"),
        (str(long), f"{long}: cannot be read (File name too long)"),
        (str(tree / "b/c.PNG"), f"{tree / 'b/c.PNG'}: cannot be read (Permission denied)"),
        (str(tree / "b/f.webp"), f"{tree / 'b/f.webp'}: Input/output error"),
    ]


@pytest.mark.parametrize("closed", ["file.png", "folder"])
def test_what_may_not_be_read_is_no_wrong_usage(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Click, which would call it so, is not asked to look at it."""
    (tree / "file.png").write_bytes((tree / "a.png").read_bytes())
    (tree / "folder").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *mode: Path(path).name != closed and real(path, *mode))
    assert cli("encode", "-r", tree / closed, tree / "a.png", "-m", tiny_weights["vq"]).code == 0
    assert (tree / "a.lz").exists()


def test_names_that_would_be_one_are_told_apart(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: dict[str, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("IMG_1.jpg", "IMG_1.png", "IMG_2.png"):
        Image.new("RGB", (8, 8)).save(name)
    command = ["encode", "-r", ".", "-m", tiny_weights["vq"]]
    result = cli(*command)
    assert result.code == 0
    remark = "named with its suffix, as another input would become IMG_1.lz too"
    assert [remark in line for line in result.err.splitlines()] == [True, True, False, False]
    assert sorted(os.listdir()) == [
        "IMG_1.jpg", "IMG_1.jpg.lz", "IMG_1.png", "IMG_1.png.lz", "IMG_2.lz", "IMG_2.png"
    ]  # fmt: skip
    assert cli(*command, "--skip-existing").err == "0 encoded, 3 there already\n"
    document = json.loads(cli(*command, "-f", "--json").out)
    assert [record["remarks"] for record in document["files"]] == [[remark], [remark], []]
    assert cli("decode", "-r", ".", "-m", tiny_weights["vq"], "-o", "back").code == 0
    assert sorted(os.listdir("back")) == ["IMG_1.jpg.png", "IMG_1.png", "IMG_2.png"]


@posix
def test_pipes_are_read_where_they_are_named(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]
) -> None:
    """And passed over where they are found; a socket is an error of its own."""
    for name in ("pipe.png", "b/found.png"):
        os.mkfifo(tree / name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s.png"))
    writer = threading.Thread(
        target=(tree / "pipe.png").write_bytes, args=((tree / "a.png").read_bytes(),), daemon=True
    )
    writer.start()
    command = ["encode", "-r", tree / "pipe.png", tmp_path / "s.png", tree, "-o", tmp_path / "lz"]
    result = cli(*command, "-m", tiny_weights["vq"])
    writer.join()
    assert result.code == 1
    assert f"{tmp_path / 's.png'}: cannot be read" in result.err
    assert files_in(tmp_path / "lz") == sorted([*OUTPUTS, "pipe.lz"])


@pytest.mark.parametrize("full", [1, 3])
def test_a_disk_that_fills_up(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    """The first file, or the third, does not fit."""
    calls = []

    def fsync(_descriptor: int) -> None:
        calls.append(_descriptor)
        if len(calls) == full:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    result = cli("encode", "-r", tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"])
    assert result.code == 1
    assert f"{ORDER[full - 1]}: cannot be written (No space left on device)" in result.err
    assert files_in(tmp_path / "lz") == [name for name in OUTPUTS if name != ORDER[full - 1]]


RUN = """
import os, signal, sys, threading
from latentzip import api
from latentzip.cli.app import main

calls = 0
def at(number, then, real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == number:
            then()
        return real(*arguments)
    return call

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job begins without
def stop(): os.kill(os.getpid(), number)
def stop_and_stay(): stop(); threading.Event().wait()

number, patch = int(sys.argv.pop(1)), sys.argv.pop(1)
exec(patch)
main()
"""


def run_with(number: signal.Signals, patch: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, to which a signal is sent when a function is called the n-th time."""
    command = [sys.executable, "-c", RUN, str(int(number)), patch, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@posix
def test_a_kill_in_the_middle_of_a_write(cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """Killed when the third file's bytes are written, and its name is not."""
    lz = tmp_path / "lz"
    command = ["encode", "-r", tree, "-o", lz, "-m", tiny_weights["vq"]]
    killed = run_with(signal.SIGKILL, "os.fsync = at(3, stop, os.fsync)", *command)
    assert killed.returncode == -signal.SIGKILL
    finished = {name: (lz / name).stat().st_ino for name in ORDER[:2]}
    (unfinished,) = set(files_in(lz)) - set(finished)
    assert re.fullmatch(r"b/\.latentzip-[0-9a-f]{8}-[0-9a-f]{8}\.part", unfinished)
    assert cli("verify", *(lz / name for name in finished), "-m", tiny_weights["vq"]).code == 0
    again = cli(*command, "--skip-existing")
    assert (again.code, files_in(lz)) == (0, OUTPUTS)
    assert {name: (lz / name).stat().st_ino for name in finished} == finished
    assert cli("verify", "-r", lz, "-m", tiny_weights["vq"]).code == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_does_not_wait_for_the_network(
    tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], number: int, workers: int
) -> None:
    """One worker never comes back from the third picture."""
    lz = tmp_path / "lz"
    arguments = ["encode", "-r", tree, "-o", lz, "-m", tiny_weights["vq"], "-j", workers]
    run = run_with(number, "api.analyse = at(3, stop_and_stay, api.analyse)", *arguments)
    assert run.returncode == 130
    done = files_in(lz)
    assert f"interrupted: {len(done)} of 4 files were encoded" in run.stderr
    assert (len(done) == 2) if workers == 1 else (1 <= len(done) <= 3)
    for name in done:
        parse((lz / name).read_bytes())


@posix
def test_an_interrupt_in_the_middle_of_a_write(tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """What is being written is finished, and counted; the document says which files are done."""
    lz = tmp_path / "lz"
    arguments = ["encode", "-r", tree, "-o", lz, "-m", tiny_weights["vq"], "--json"]
    run = run_with(signal.SIGINT, "os.fsync = at(2, stop, os.fsync)", *arguments)
    assert run.returncode == 130
    done = files_in(lz)
    assert set(ORDER[:2]) <= set(done)
    assert {record["output"] for record in json.loads(run.stdout)["files"]} == {str(lz / name) for name in done}
    for name in done:
        parse((lz / name).read_bytes())


@posix
def test_names_of_any_bytes(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """Nothing in a name reaches the terminal as anything but text; JSON gives it back to the byte."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = [b"two\nlines.png", b"\x1b[31mred\x07.png", b"\xff\xfe.png", "\u202egnp.exe.png".encode(), b"[bold]x.png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(os.path.join(os.fsencode(folder), name), "PNG")
    bad = b"bad\r\x9b.png"
    Path(os.fsdecode(os.path.join(os.fsencode(folder), bad))).write_bytes(b"nonsense")
    result = cli("encode", "-r", folder, "-m", tiny_weights["vq"])
    assert result.code == 1
    assert all(line.isprintable() for line in result.err.splitlines())
    assert result.err.count("\n") == 5 + 1 + 2 + 1
    for escaped in ("two\\nlines.png", "\\x1b[31mred\\x07.png", "\\xff\\xfe.png", "\\u202egnp.exe.png", "[bold]x.png"):
        assert escaped in result.err
    document = json.loads(cli("encode", "-r", folder, "-m", tiny_weights["vq"], "-f", "--json").out)
    given = {os.fsencode(record["input"]) for record in document["files"] + document["errors"]}
    assert given == {os.path.join(os.fsencode(folder), name) for name in [*names, bad]}
    described = cli("info", "-r", folder).out
    assert all(line.isprintable() for line in described.splitlines())
    assert "\\xff\\xfe.lz" in described


@posix
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode a.png -o - >&-", "standard output is closed"),
        ("info - <&-", "standard input is closed"),
        ("info missing.lz 2>&-", ""),
        ("models list >&-", "standard output is closed"),
        pytest.param("--version > /dev/full", "standard output: No space left on device", marks=needs_full),
        pytest.param("models list --json > /dev/full", "standard output: No space left", marks=needs_full),
        pytest.param("encode a.png -o - > /dev/full", "No space left on device", marks=pytest.mark.slow),
        pytest.param("encode a.png -o /dev/full", "/dev/full: cannot be written (No space", marks=pytest.mark.slow),
    ],
)
def test_closed_and_full_streams(tree: Path, line: str, message: str) -> None:
    command = f"'{sys.executable}' -m latentzip {line}"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tree)
    assert (run.returncode, run.stdout) == (1, "")
    assert message in run.stderr
    assert run.stderr.count("\n") <= 1
    assert "a.lz" not in os.listdir(tree)


def test_work_does_not_hang_on_its_messages(
    cli: Cli, tree: Path, tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error is on a full disk."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    assert cli("encode", "-r", tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"]).code == 0
    assert files_in(tmp_path / "lz") == OUTPUTS


@posix
def test_progress_is_for_terminals(tree: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "latentzip", "encode", "-r", tree, "-o", tmp_path / "lz", "-m", tiny_weights["vq"]]
    run = subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "150"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that nobody writes any more
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert run.wait() == 0
    assert b"4/4" in shown
    assert re.search(rb"[\d.]+ MP/s, .* saved", shown)
