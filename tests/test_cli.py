"""The commands, as a user would type them."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES, Result, noise_picture
from PIL import Image
from test_metadata import source as metadata_source
from test_writing import png_samples

from latentzip.container import parse

Cli = Callable[..., Result]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(noise_picture(33, 20).pixels).save(path)
    return path


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_photograph_there_and_back(cli: Cli, tmp_path: Path) -> None:
    """With the default model: small, and clearly the same picture."""
    original = IMAGES / "chelsea.png"
    assert cli("encode", original, "-o", tmp_path / "c.lz").code == 0
    assert cli("decode", tmp_path / "c.lz").code == 0
    before, after = (np.asarray(Image.open(p).convert("RGB"), float) for p in (original, tmp_path / "c.png"))
    assert before.shape == after.shape
    assert 10 * np.log10(255**2 / np.square(before - after).mean()) > 24
    bpp = (tmp_path / "c.lz").stat().st_size * 8 / (451 * 300)
    assert 0.05 < bpp < 0.5


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_weights_of_ones_own(cli: Cli, picture: Path, tiny_weights: dict[str, Path], kind: str) -> None:
    lz = picture.with_suffix(".lz")
    assert cli("encode", picture, "-m", tiny_weights[kind]).code == 0
    without = cli("decode", lz, "-f")
    assert without.code == 1
    assert "needs a model that is not here" in without.err
    assert cli("decode", lz, "-f", "-m", tiny_weights[kind], "-o", picture.with_name("back.png")).code == 0
    assert Image.open(picture.with_name("back.png")).size == (33, 20)
    assert cli("verify", lz, "-m", tiny_weights[kind]).code == 0
    other = cli("verify", lz, "-m", tiny_weights["vq" if kind == "kl" else "kl"])
    assert other.code == 1
    assert "encoded with another model" in other.err


def test_streams(tmp_path: Path) -> None:
    """cat a.png | latentzip encode - -o - | latentzip decode - -o -"""
    data = (IMAGES / "chelsea.png").read_bytes()
    command = [sys.executable, "-m", "latentzip"]
    lz = subprocess.run([*command, "encode", "-"], input=data, capture_output=True, check=True).stdout
    assert parse(lz).header.width == 451
    back = subprocess.run(
        [*command, "decode", "-", "-o", "-", "--format", "webp"], input=lz, capture_output=True, check=True
    ).stdout
    image = Image.open(io.BytesIO(back))
    assert (image.format, image.size) == ("WEBP", (451, 300))


def test_batches_go_past_a_bad_file(cli: Cli, picture: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    out = tmp_path / "out"
    out.mkdir()
    second = picture.with_name("second.png")
    second.write_bytes(picture.read_bytes())
    result = cli("encode", picture, tmp_path / "bad.png", second, "-o", out, "-m", tiny_weights["vq"])
    assert result.code == 1
    assert "1 of 3 files could not be encoded" in result.err
    assert f"{tmp_path / 'bad.png'}: is text, not a picture" in result.err
    assert listing(out) == ["picture.lz", "second.lz"]


def test_json_is_one_document(cli: Cli, picture: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    missing = tmp_path / "missing.png"
    result = cli("encode", picture, missing, "-m", tiny_weights["kl"], "--json", "-q", "70")
    assert result.code == 1
    document = json.loads(result.out)
    (record,), (error,) = document["files"], document["errors"]
    size = picture.with_suffix(".lz").stat().st_size
    assert record["output_bytes"] == size
    assert record["bpp"] == pytest.approx(size * 8 / (33 * 20))
    assert (record["width"], record["height"], record["quality"]) == (33, 20, 70)
    assert error["input"] == str(missing)
    described = json.loads(cli("info", picture.with_suffix(".lz"), "--json").out)["files"][0]
    assert (described["bytes"], described["quality"], described["model"]) == (size, 70, None)


def test_nothing_is_overwritten_without_force(cli: Cli, picture: Path, tiny_weights: dict[str, Path]) -> None:
    lz = picture.with_suffix(".lz")
    lz.write_bytes(b"precious")
    result = cli("encode", picture, "-m", tiny_weights["kl"])
    assert result.code == 1
    assert "--force" in result.err
    assert lz.read_bytes() == b"precious"
    assert cli("encode", picture, "-m", tiny_weights["kl"], "-f").code == 0
    assert parse(lz.read_bytes()).header.height == 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "x.png", "-q", "0"],
        ["encode", "x.png", "-q", "101"],
        ["encode", "a.png", "b.png", "-o", "-"],
        ["encode", "-", "-", "-o", "-"],
        ["encode", "-", "-o", "-", "--json"],
        ["unknown"],
        ["decode", "x.lz", "--device", "abacus"],
        ["encode", "x.png", "--alpha", "nothing"],
        ["encode", "x.png", "--metadata", "some"],
        ["encode", "x.png", "-q", "5", "--bpp", "1"],
        ["encode", "x.png", "--coding", "fp16", "-e", "1"],
        ["decode", "x.lz", "--bit-depth", "12"],
        ["decode", "x.lz", "--format", "jpg", "--bit-depth", "16"],
        ["encode", "-", "--json"],
        ["encode", "-r", ""],
        ["decode", "x.lz", "--format", ""],
        ["encode", "x.png", "-j", "257"],
        ["bench", "--csv", "new/"],
        ["models", "convert", "x", "-o", "new.safetensors/"],
        *(["encode", "x.png", "--bpp", value] for value in ("nan", "inf", "1e400", "0", "-1")),
        *(["encode", "x.png", "--size", value] for value in ("nan", "0", "9" * 400, "x")),
        *(["decode", "x.lz", "--memory", value] for value in ("0", "9" * 400, "1e9")),
        *(["decode", "x.lz", "--region", value] for value in ("0,0,0,9", "9" * 5000, "nan,0,1,1", "0,0,9")),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).code == 2


@pytest.mark.parametrize(
    "arguments", [["--tile", "9" * 400], ["--max-pixels", "9" * 400], ["--bpp", "1e308"], ["--size", "9" * 18 + "GiB"]]
)
def test_numbers_beyond_all_measure_are_only_large(
    cli: Cli, picture: Path, tiny_weights: dict[str, Path], arguments: list[str]
) -> None:
    assert cli("encode", picture, "-m", tiny_weights["vq"], *arguments).code == 0


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("encode picture.png out.lz", "to write to it, give -o out.lz"),
        ("encode picture.png folder", "to write to it, give -o folder"),
        ("encode picture.png -o out.png", "to write to it, give -o out.lz"),
        ("encode picture.png -o new/out.JPG", "to write to it, give -o new/out.lz"),
        ("decode photo.lz out.png", "to write to it, give -o out.png"),
        ("decode photo.lz -o out.lz", "to write to it, give -o out.png"),
        ("decode photo.lz -o out.lz --format webp", "to write to it, give -o out.webp"),
    ],
)
def test_outputs_that_are_named_as_inputs(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch, line: str, hint: str
) -> None:
    monkeypatch.chdir(picture.parent)
    (picture.parent / "folder").mkdir()
    result = cli(*line.split())
    assert (result.code, hint in result.err) == (2, True)
    assert listing(picture.parent) == ["folder", "picture.png"]


def test_what_ends_in_a_slash_is_a_folder(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: dict[str, Path]
) -> None:
    """It is made, for one input and for several; a file in its place is not taken for one."""
    monkeypatch.chdir(picture.parent)
    assert cli("encode", picture, "-m", tiny_weights["vq"], "-o", "new/deep/").code == 0
    assert listing(Path("new/deep")) == ["picture.lz"]
    Image.new("RGB", (4, 4)).save("b.png")
    assert cli("encode", picture, "b.png", "-m", tiny_weights["vq"], "-o", "both/").code == 0
    assert cli("decode", "both/b.lz", "-m", tiny_weights["vq"], "-o", "back.png/").code == 0
    assert (listing(Path("both")), listing(Path("back.png"))) == (["b.lz", "picture.lz"], ["b.png"])
    result = cli("encode", picture, "-m", tiny_weights["vq"], "-o", "b.png/", "-f")
    assert (result.code, "b.png: not a folder" in result.err) == (1, True)
    result = cli("encode", picture, "b.png", "-m", tiny_weights["vq"], "-o", "not")
    assert (result.code, "give -o not/" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "missing.png"], "missing.png: no such file"),
        (["encode", IMAGES / "chelsea.png", "-m", "no-model", "-o", "x.lz"], "no-model: neither a built-in model"),
        (["encode", IMAGES / "chelsea.png", "-o", "no/where.lz"], "does not exist"),
        (["bench", "--csv", "n" * 400], "(File name too long): choose another name"),
        (["encode", IMAGES], "is a folder: -r takes the files in it"),
        (["decode", "missing.lz"], "missing.lz: no such file"),
        (["decode", "missing.lz", "--format", "pdf"], "not written as '.pdf'"),
        (["decode", "missing.lz", "-o", "x.xyz"], "not written as '.xyz'"),
        (["info", "missing.lz"], "missing.lz: no such file"),
        (["verify", "missing.lz"], "missing.lz: no such file"),
    ],
)
def test_failures_exit_with_1_and_say_why(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.code == 1
    assert message in result.err
    assert listing(tmp_path) == []


def test_transparency_is_kept_or_goes_as_one_wishes(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    source, lz = tmp_path / "a.png", tmp_path / "a.lz"
    image = Image.new("RGBA", (40, 30), (200, 100, 50, 255))
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(source)
    for wish, mode in (("keep", "RGBA"), ("drop", "RGB"), ("#ff8800", "RGB")):
        result = cli("encode", source, "-m", tiny_weights["kl"], "--alpha", wish, "-f")
        assert result.code == 0, result.err
        assert parse(lz.read_bytes()).header.mode == mode
    assert cli("encode", source, "-m", tiny_weights["kl"], "-f").code == 0
    record = json.loads(cli("info", lz, "--json").out)["files"][0]
    assert (record["mode"], record["alpha"]) == ("RGBA", True)
    assert "40x30, RGB, alpha" in cli("info", lz).out
    out = tmp_path / "b.png"
    assert cli("decode", lz, "-m", tiny_weights["kl"], "-o", out).code == 0
    assert Image.open(out).getchannel("A").tobytes() == image.getchannel("A").tobytes()
    result = cli("decode", lz, "-m", tiny_weights["kl"], "-o", tmp_path / "b.jpg")
    assert (result.code, "transparency put on white: JPEG has none" in result.err) == (0, True)
    result = cli("decode", lz, "-m", tiny_weights["kl"], "-o", tmp_path / "b.jpg", "-f", "--quiet")
    assert (result.code, result.err) == (0, "")


def test_what_became_of_a_picture_is_said(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    source = tmp_path / "a.gif"
    frames = [Image.new("L", (20, 20), level) for level in (0, 255)]
    frames[0].save(source, save_all=True, append_images=frames[1:])
    result = cli("encode", source, "-m", tiny_weights["kl"])
    assert (result.code, "has 2 frames: give --first-frame" in result.err) == (1, True)
    assert listing(tmp_path) == ["a.gif"]
    result = cli("encode", source, "-m", tiny_weights["kl"], "--first-frame")
    assert (result.code, "(the first of 2 frames; palette resolved)" in result.err) == (0, True)
    result = cli("encode", source, "-m", tiny_weights["kl"], "--first-frame", "-f", "--json")
    assert json.loads(result.out)["files"][0]["remarks"] == ["the first of 2 frames", "palette resolved"]
    assert cli("encode", source, "-m", tiny_weights["kl"], "--first-frame", "-f", "--quiet").err == ""


def test_metadata_is_kept_as_one_wishes(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    source, lz = tmp_path / "a.jpg", tmp_path / "a.lz"
    source.write_bytes(metadata_source("JPEG"))
    for wish, expected in (("icc", (True, False, False)), ("all", (True, True, True)), ("none", (False, False, False))):
        assert cli("encode", source, "-m", tiny_weights["kl"], "--metadata", wish, "-f").code == 0
        record = json.loads(cli("info", lz, "--json").out)["files"][0]
        assert (record["profile"] is not None, record["exif"], record["xmp"]) == expected
    assert cli("encode", source, "-m", tiny_weights["kl"], "-f").code == 0
    assert "20x30, RGB, profile Display P3" in cli("info", lz).out


def test_output_has_the_quality_and_the_depth_one_wishes(
    cli: Cli, picture: Path, tiny_weights: dict[str, Path]
) -> None:
    lz, out = picture.with_suffix(".lz"), picture.with_name("out.jpg")
    assert cli("encode", picture, "-m", tiny_weights["kl"], "-q", 100).code == 0
    sizes = []
    for quality in (10, 90):
        assert cli("decode", lz, "-m", tiny_weights["kl"], "-o", out, "-f", "-q", quality).code == 0
        sizes.append(out.stat().st_size)
    assert sizes[0] < sizes[1]
    deep, plain = (picture.with_name(f"{depth}.png") for depth in (16, 8))
    for path, depth in ((deep, 16), (plain, 8)):
        assert cli("decode", lz, "-m", tiny_weights["kl"], "-o", path, "--bit-depth", depth).code == 0
    fine, coarse = png_samples(deep.read_bytes()).astype(float), np.asarray(Image.open(plain)).astype(float)
    assert np.abs(fine / 257 - coarse).max() <= 0.5 + 1e-6, "the same picture"
    assert len(np.unique(fine % 257)) > 100, "with levels between those of 8 bits"
    for options, message in (
        (["-q", 50], "--quality is for"),
        (["--bit-depth", 16, "--format", "webp"], "--bit-depth 16"),
    ):
        result = cli("decode", lz, "-m", tiny_weights["kl"], "-f", *options)
        assert (result.code, message in result.err) == (2, True)


@pytest.mark.parametrize("model", ["kl-f16", "vq-f16"])
def test_a_wanted_size_is_met_from_below(cli: Cli, tmp_path: Path, model: str) -> None:
    out = tmp_path / "c.lz"
    for option, value, limit in (("--size", "3KB", 3000), ("--bpp", 0.15, int(0.15 * 451 * 300 / 8))):
        result = cli("encode", IMAGES / "chelsea.png", "-m", model, option, value, "-o", out, "-f", "--json")
        assert result.code == 0, result.err
        size = json.loads(result.out)["files"][0]["output_bytes"]
        assert size == out.stat().st_size
        assert 0.97 * limit < size <= limit  # within a level
    result = cli("encode", IMAGES / "chelsea.png", "-m", model, "--size", 100, "-o", tmp_path / "d.lz")
    assert (result.code, "cannot be made as small as 100 bytes" in result.err) == (1, True)
    assert cli("encode", IMAGES / "chelsea.png", "--size", 100, "-q", 5).code == 2
    assert listing(tmp_path) == ["c.lz"]


def test_files_that_were_cut_short(cli: Cli, tmp_path: Path) -> None:
    """Refused, and on request decoded as far as they go; a whole file as far as one asks for."""
    lz, out = tmp_path / "c.lz", tmp_path / "c.png"
    assert cli("encode", IMAGES / "coffee.png", "-q", 100, "-o", lz).code == 0
    data = lz.read_bytes()
    assert cli("decode", lz, "--scans", 3, "-o", out).code == 0
    without_the_last = out.read_bytes()
    lz.write_bytes(data[:-5])
    result = cli("decode", lz, "-o", out, "-f")
    assert (result.code, "get the file again, or --partial" in result.err) == (1, True)
    assert out.read_bytes() == without_the_last
    result = cli("decode", lz, "--partial", "-o", out, "-f")
    assert (result.code, "3 of 4 scans" in result.err) == (0, True)
    assert out.read_bytes() == without_the_last
    lz.write_bytes(data[:100])
    assert "nothing of the picture has arrived" in cli("decode", lz, "--partial", "-o", out, "-f").err


def test_interrupts_exit_with_130(cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("latentzip.api.analyse", interrupt)
    result = cli("encode", picture)
    assert result.code == 130
    assert listing(picture.parent) == ["picture.png"]


def test_models_are_listed(cli: Cli) -> None:
    names = [model["name"] for model in json.loads(cli("models", "list", "--json").out)["models"]]
    shown = cli("models", "list").out
    assert names
    assert all(name in shown for name in names)


def test_version(cli: Cli) -> None:
    assert cli("--version").out.startswith("latentzip 0.")
