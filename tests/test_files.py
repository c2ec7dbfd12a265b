"""Names and writing: nothing is overwritten, nothing is half written."""

import os
from pathlib import Path
from typing import IO

import pytest

from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM, plan_outputs, read_bytes, write_atomically, write_bytes


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    return paths


def test_outputs_land_beside_their_inputs(tmp_path: Path) -> None:
    sources = touch(tmp_path, "a.png", "b.c.jpg")
    targets = [target for _, target in plan_outputs(sources, None, ".lz", overwrite=False)]
    assert targets == [tmp_path / "a.lz", tmp_path / "b.c.lz"]


def test_outputs_land_in_a_folder_or_a_file(tmp_path: Path) -> None:
    source = touch(tmp_path, "a.png")
    folder = tmp_path / "out"
    folder.mkdir()
    assert plan_outputs(source, folder, ".lz", overwrite=False) == [(source[0], folder / "a.lz")]
    assert plan_outputs(source, tmp_path / "x", ".lz", overwrite=False) == [(source[0], tmp_path / "x")]
    assert plan_outputs([STREAM], None, ".lz", overwrite=True) == [(STREAM, STREAM)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_collisions_are_found_before_any_work(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(OutputError, match="both"):
        plan_outputs(touch(tmp_path, "a.png", "a.jpg"), None, ".lz", overwrite=overwrite)
    with pytest.raises(OutputError, match="input itself"):
        plan_outputs(touch(tmp_path, "b.lz"), None, ".lz", overwrite=overwrite)


def test_what_is_in_the_way_is_found_before_any_work(tmp_path: Path) -> None:
    sources = touch(tmp_path, "a.png", "b.png")
    touch(tmp_path, "a.lz")
    with pytest.raises(OutputError, match="--force"):
        plan_outputs(sources, None, ".lz", overwrite=False)
    assert len(plan_outputs(sources, None, ".lz", overwrite=True)) == 2
    with pytest.raises(OutputError, match="2 inputs"):
        plan_outputs(sources, tmp_path / "missing", ".lz", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        plan_outputs(sources[:1], tmp_path / "missing" / "a.lz", ".lz", overwrite=True)
    with pytest.raises(OutputError, match="no name"):
        plan_outputs([STREAM], tmp_path, ".lz", overwrite=True)


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


def test_unreadable_inputs_have_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(LatentzipError, match="no such file"):
        read_bytes(tmp_path / "missing")
    with pytest.raises(LatentzipError, match="is a folder"):
        read_bytes(tmp_path)
