"""Which file becomes which: everything wrong is found, and said, before any work."""

import os
from pathlib import Path

import pytest
from test_files import posix, touch

from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM
from latentzip.images import picture_suffixes
from latentzip.jobs import Plan, Source, find_sources, plan_outputs

SUFFIXES = frozenset({".png", ".jpg"})


def given(paths: list[Path]) -> list[Source]:
    return find_sources(paths, SUFFIXES, recursive=False)


def targets(plan: Plan) -> list[Path]:
    return [job.target for job in plan.jobs]


def test_outputs_land_beside_their_inputs(tmp_path: Path) -> None:
    sources = given(touch(tmp_path, "a.png", "b.c.jpg"))
    assert targets(plan_outputs(sources, None, ".lz")) == [tmp_path / "a.lz", tmp_path / "b.c.lz"]


def test_outputs_land_in_a_folder_or_a_file(tmp_path: Path) -> None:
    source = given(touch(tmp_path, "a.png"))
    folder = tmp_path / "out"
    folder.mkdir()
    assert targets(plan_outputs(source, folder, ".lz")) == [folder / "a.lz"]
    assert targets(plan_outputs(source, tmp_path / "x", ".lz")) == [tmp_path / "x"]
    assert targets(plan_outputs(given([STREAM]), None, ".lz", overwrite=True)) == [STREAM]


@pytest.mark.parametrize("overwrite", [False, True])
def test_collisions_are_found_before_any_work(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(OutputError, match="both"):
        plan_outputs(given(touch(tmp_path, "a.png", "a.jpg")), None, ".lz", overwrite=overwrite)
    with pytest.raises(OutputError, match="input itself"):
        plan_outputs(given(touch(tmp_path, "b.lz")), None, ".lz", overwrite=overwrite)
    with pytest.raises(OutputError, match="one of the inputs"):
        plan_outputs(given(touch(tmp_path, "c.png", "c.lz")), None, ".lz", overwrite=overwrite)


def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    sources = given(touch(tmp_path, "a.png", "a.jpg", "b.png"))
    touch(tmp_path, "a.lz", "b.lz")
    with pytest.raises(OutputError) as found:
        plan_outputs(sources, None, ".lz")
    assert ["both" in message for message in found.value.args] == [True, False, False, False]
    assert ["already exists" in message for message in found.value.args] == [False, True, True, True]
    many = given(touch(tmp_path / "many", *(f"{i}.png" for i in range(50))))
    touch(tmp_path / "many", *(f"{i}.lz" for i in range(50)))
    with pytest.raises(OutputError) as found:
        plan_outputs(many, None, ".lz")
    assert len(found.value.args) == 21
    assert found.value.args[-1] == "... and 30 more like these"


def test_names_that_differ_in_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collision where the file system takes them for one, and only there."""
    (tmp_path / "out").mkdir()
    sources = given(touch(tmp_path, "one/a.png", "two/A.png"))
    monkeypatch.setattr("latentzip.jobs.ignores_case", lambda _folder: False)
    assert len(plan_outputs(sources, tmp_path / "out", ".lz").jobs) == 2
    monkeypatch.setattr("latentzip.jobs.ignores_case", lambda _folder: True)
    with pytest.raises(OutputError, match="both"):
        plan_outputs(sources, tmp_path / "out", ".lz")


def test_names_that_differ_in_how_accents_are_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    sources = given(touch(tmp_path, "one/\u00e9.png", "two/e\u0301.png"))
    with pytest.raises(OutputError, match="both"):
        plan_outputs(sources, tmp_path / "out", ".lz")


def test_what_is_in_the_way_is_found_before_any_work(tmp_path: Path) -> None:
    sources = given(touch(tmp_path, "a.png", "b.png"))
    touch(tmp_path, "a.lz")
    with pytest.raises(OutputError, match="--force"):
        plan_outputs(sources, None, ".lz")
    assert len(plan_outputs(sources, None, ".lz", overwrite=True).jobs) == 2
    with pytest.raises(OutputError, match="2 inputs"):
        plan_outputs(sources, tmp_path / "missing", ".lz", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        plan_outputs(sources[:1], tmp_path / "missing" / "a.lz", ".lz", overwrite=True)
    with pytest.raises(OutputError, match="no name"):
        plan_outputs(given([STREAM]), tmp_path, ".lz", overwrite=True)


def test_finished_outputs_can_be_left_out(tmp_path: Path) -> None:
    sources = given(touch(tmp_path, "a.png", "b.png"))
    touch(tmp_path, "a.lz")
    plan = plan_outputs(sources, None, ".lz", skip_existing=True)
    assert plan.skipped == [tmp_path / "a.png"]
    assert targets(plan) == [tmp_path / "b.lz"]


def test_a_tree_is_mirrored(tmp_path: Path) -> None:
    touch(tmp_path / "in", "b.png", "sub/deep/a.JPG", "sub/notes.txt", ".hidden.png", ".git/c.png")
    extra = touch(tmp_path, "x.gif")
    sources = find_sources([tmp_path / "in", *extra], SUFFIXES, recursive=True)
    out = tmp_path / "not" / "yet"
    plan = plan_outputs(sources, out, ".lz", into_folder=True)
    assert targets(plan) == [out / "b.lz", out / "sub" / "deep" / "a.lz", out / "x.lz"]
    assert not (tmp_path / "not").exists()
    beside = plan_outputs(sources, None, ".lz", into_folder=True)
    assert targets(beside) == [tmp_path / "in/b.lz", tmp_path / "in/sub/deep/a.lz", tmp_path / "x.lz"]
    with pytest.raises(OutputError, match="not a folder"):
        plan_outputs(sources, extra[0], ".lz", into_folder=True)
    (tmp_path / "in" / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        plan_outputs(sources, tmp_path / "in" / "file" / "out", ".lz", into_folder=True)


def test_which_suffixes_are_pictures() -> None:
    import latentzip.LzImagePlugin  # noqa: F401  # which lets Pillow read .lz files

    suffixes = picture_suffixes()
    assert {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".gif", ".bmp", ".mpo", ".jp2"} <= suffixes
    assert not {".lz", ".eps", ".ps", ".pdf", ".mpg", ".h5", ".wmf", ".txt"} & suffixes


def test_a_file_that_is_named_and_found_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/b.png")
    found = find_sources([tmp_path / "in" / "b.png", tmp_path / "in"], SUFFIXES, recursive=True)
    assert [job.source.name for job in plan_outputs(found, None, ".lz").jobs] == ["b.png", "a.png"]


def test_folders_need_to_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LatentzipError, match="-r takes the files in it"):
        given([tmp_path])
    with pytest.raises(LatentzipError, match="holds no file"):
        find_sources([tmp_path], SUFFIXES, recursive=True)


@posix
def test_links_and_special_files_in_folders(tmp_path: Path) -> None:
    """Links to files are taken, broken ones too, for the error; links to folders and loops are not walked."""
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    folder = tmp_path / "in"
    (folder / "file.png").symlink_to("../elsewhere/b.png")
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "self.png").symlink_to("self.png")
    (folder / "loop").symlink_to(".")
    (folder / "away").symlink_to("../elsewhere")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    found = find_sources([folder], SUFFIXES, recursive=True)
    assert [str(source.below) for source in found] == ["a.png", "broken.png", "file.png", "self.png"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        found = find_sources([tmp_path], SUFFIXES, recursive=True)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [str(source.below) for source in found] == ["a.png", "closed"]
