"""Which file becomes which: everything wrong is found, and said, before any work."""

import errno
import os
from pathlib import Path

import pytest
from test_files import posix, touch

from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM
from latentzip.images import picture_suffixes
from latentzip.jobs import Plan, Source, find_sources, plan_outputs, plan_readings

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
    sources = given(touch(tmp_path, "one/a.png", "two/a.png"))
    with pytest.raises(OutputError, match="both"):
        plan_outputs(sources, tmp_path / "out", ".lz", into_folder=True, overwrite=overwrite)
    with pytest.raises(OutputError, match="one of the inputs"):
        plan_outputs(given(touch(tmp_path, "c.png", "c.lz")), None, ".lz", overwrite=overwrite)


def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    sources = given(touch(tmp_path, "one/a.png", "two/a.png", "b.png"))
    touch(tmp_path, "out/a.png.lz", "out/b.lz")
    with pytest.raises(OutputError) as found:
        plan_outputs(sources, tmp_path / "out", ".lz")
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
    out = tmp_path / "out"
    out.mkdir()
    sources = given(touch(tmp_path, "one/a.png", "two/A.png"))
    others = given(touch(tmp_path, "one/b.png", "two/B.jpg"))
    monkeypatch.setattr("latentzip.jobs.ignores_case", lambda _folder: False)
    assert targets(plan_outputs(sources, out, ".lz")) == [out / "a.lz", out / "A.lz"]
    assert targets(plan_outputs(others, out, ".lz")) == [out / "b.lz", out / "B.lz"]
    monkeypatch.setattr("latentzip.jobs.ignores_case", lambda _folder: True)
    with pytest.raises(OutputError, match="both"):
        plan_outputs(sources, out, ".lz")
    assert targets(plan_outputs(others, out, ".lz")) == [out / "b.png.lz", out / "B.jpg.lz"]


def test_sources_that_would_share_an_output_keep_their_suffix(tmp_path: Path) -> None:
    """All of them, by their names alone: in any order, and whatever an earlier run has made."""
    files = touch(tmp_path, "a.jpg", "a.png", "a.png.webp", "b.png", "c", "c.png")
    names = ["a.jpg.lz", "a.png.lz", "a.png.webp.lz", "b.lz", "c.lz", "c.png.lz"]
    plan = plan_outputs(given(files), None, ".lz")
    assert targets(plan) == [tmp_path / name for name in names]
    assert [len(job.remarks) for job in plan.jobs] == [1, 1, 1, 0, 0, 1]
    assert "another input would become a.lz too" in plan.jobs[0].remarks[0]
    assert targets(plan_outputs(given(files[::-1]), None, ".lz")) == [tmp_path / name for name in names[::-1]]
    touch(tmp_path, "a.lz")  # of one of them, when the other was not there yet
    plan = plan_outputs(given(files[:2]), None, ".lz", skip_existing=True)
    assert (targets(plan), plan.skipped) == ([tmp_path / "a.jpg.lz", tmp_path / "a.png.lz"], [])
    touch(tmp_path, "a.jpg.lz")
    plan = plan_outputs(given(files[:2]), None, ".lz", skip_existing=True)
    assert (targets(plan), plan.skipped) == ([tmp_path / "a.png.lz"], files[:1])
    missing = [*files[3:4], tmp_path / "b.jpg"]
    assert targets(plan_outputs(given(missing), None, ".lz")) == [tmp_path / "b.lz"]


def test_the_way_back_has_the_same_rule(tmp_path: Path) -> None:
    files = touch(tmp_path, "a.jpg.lz", "a.png.lz", "b.PNG.lz", "c.lz", "c.png.lz", "d.lz", "d.LZ")
    names = ["a.jpg.png", "a.png", "b.PNG", "c.lz.png", "c.png.lz.png", "d.lz.png", "d.LZ.png"]
    assert targets(plan_outputs(given(files), None, ".png")) == [tmp_path / name for name in names]


def test_what_cannot_be_done_does_not_stop_the_rest(tmp_path: Path) -> None:
    (good,) = touch(tmp_path, "a.png")
    long = touch(tmp_path, "n" * 251 + ".png")[0]  # is no name any more with another suffix
    gone, inside = tmp_path / "gone" / "a.png", good / "b.png"
    inputs = [gone, long, tmp_path, inside, tmp_path / ("n" * 300), good]
    plan = plan_outputs(given(inputs), None, ".webpage", into_folder=True)
    assert [job.source for job in plan.jobs] == [good]
    reasons = dict(plan.failed)
    for path, reason in (
        (gone, "no such file"),
        (long, "its output cannot be called"),
        (tmp_path, "is a folder: -r takes the files in it"),
        (inside, "cannot be read (Not a directory)"),
        (inputs[4], "cannot be read (File name too long)"),
    ):
        assert reasons[path].startswith(f"{path}: {reason}")
    to_read = plan_readings(given(inputs))
    assert [job.source for job in to_read.jobs] == [long, good]
    assert [path for path, _ in to_read.failed] == [gone, tmp_path, inside, inputs[4]]


def test_an_input_that_is_named_as_an_output_stops_nothing(tmp_path: Path) -> None:
    """It is its own error, when what is in it is known; no other gives way to it, and nothing becomes itself."""
    files = touch(tmp_path, "a.png", "a.lz", "b.LZ")
    (tmp_path / "out").mkdir()
    names = ["a.lz", "a.lz.lz", "b.LZ.lz"]
    assert targets(plan_outputs(given(files), tmp_path / "out", ".lz")) == [tmp_path / "out" / name for name in names]
    plan = plan_outputs(given(files), None, ".lz", skip_existing=True)
    assert (targets(plan), plan.skipped) == ([tmp_path / name for name in names[1:]], files[:1])
    (itself,) = plan_outputs(given(files[:1]), files[0], ".lz").jobs
    assert itself.becomes_itself


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
    assert given([tmp_path])[0].flaw == "is a folder: -r takes the files in it"
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
    assert [bool(source.flaw) for source in found] == [False, True, False, True]


def test_a_folder_that_cannot_be_read_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the one that was given, or that one itself."""
    touch(tmp_path, "a.png", "closed/b.png", "closed.png")
    real = os.scandir

    def scandir(path: str) -> object:  # as a user's, who may not read everything as root may
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for inputs in ([tmp_path], [tmp_path / "a.png", tmp_path / "closed.png", tmp_path / "closed"]):
        plan = plan_outputs(find_sources(inputs, SUFFIXES, recursive=True), None, ".lz", into_folder=True)
        assert targets(plan) == [tmp_path / "a.lz", tmp_path / "closed.lz"]
        assert plan.failed == [
            (tmp_path / "closed", f"{tmp_path / 'closed'}: cannot be read (Permission denied)"),
        ]
