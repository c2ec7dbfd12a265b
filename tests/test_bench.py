"""`latentzip bench`, as a user would type it, with tiny models and pictures."""

import base64
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IMAGES, Result
from PIL import Image

from latentzip.bench import commands, metrics, pictures, speed
from latentzip.bench.commands import Run
from latentzip.bench.worker import Job, Worker
from latentzip.codec import decode_image
from latentzip.zoo.loading import load_decoder

Cli = Callable[..., Result]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures of 176x168."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = Image.open(IMAGES / "chelsea.png").convert("RGB")
    for i, name in enumerate(("a.png", "b.png")):
        image.crop((90 * i, 40, 90 * i + 176, 208)).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def no_st_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as all other figures together: test_bench_distances.py has it."""
    monkeypatch.setattr(metrics, "shift_tolerant_file", lambda: None)


@pytest.fixture
def bench(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> Callable[..., Result]:
    """The command with a tiny model, in this process."""

    def run(*arguments: object, model: str = "kl", against: str = "webp,jpeg") -> Result:
        fixed = ("--out", tmp_path / "out", "--jobs", 1, "--device", "cpu", "--against", against)
        return cli("bench", "-m", tiny_weights[model], *fixed, "--quick", *arguments)

    return run


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were done, in their order."""
    jobs: list[Job] = []
    work = Worker.work

    def record(self: Worker, job: Job) -> Any:
        jobs.append(job)
        return work(self, job)

    monkeypatch.setattr(Worker, "work", record)
    return jobs


def report(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.out)
    return document


def test_what_is_measured_is_what_lies_on_the_disk(
    bench: Callable[..., Result], photos: Path, tmp_path: Path, tiny_weights: dict[str, Path], perceptual_file: Path
) -> None:
    result = bench(photos, "--json", "--perceptual-weights", perceptual_file)
    assert result.code == 0, result.err
    document = report(result)
    assert document["errors"] == []
    assert [codec["name"] for codec in document["codecs"]] == ["tiny-kl", "webp", "jpeg"]
    assert len(document["measurements"]) == 2 * 3 * 3
    sizes = {path.stat().st_size for path in (tmp_path / "out" / "files").rglob("*.*")}
    for one in document["measurements"]:
        assert one["bytes"] in sizes
        assert one["bpp"] == pytest.approx(8 * one["bytes"] / (176 * 168))
        assert {"psnr", "mean8_cb", "ms_ssim", "ssimulacra2", "efficientnet", "lpips_alex", "lpips", "dists"} <= set(
            one
        )
        assert one["seconds"]["encode"] > 0
        assert one["seconds"]["decode"] > 0
    models = [one for one in document["measurements"] if one["codec"] == "tiny-kl"]
    assert [one["setting"] for one in models[:3]] == ["-q 1", "-q 60", "-q 100"]
    for one in models:
        parts = one["seconds"]
        assert parts["encode"] == pytest.approx(parts["encode_network"] + parts["encode_coding"])
        assert parts["decode"] == pytest.approx(parts["decode_network"] + parts["decode_coding"])
    # the figures are those of the file that is kept
    lz = next((tmp_path / "out" / "files").glob("a-*/tiny-kl-q60.lz"))
    decoded = decode_image(lz.read_bytes(), lambda _: load_decoder(tiny_weights["kl"], _cpu())).pixels
    original = np.array(Image.open(photos / "a.png"))
    error = np.square(original.astype(float) - decoded).mean()
    assert models[1]["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    means = {(row["codec"], row["setting"]): row for row in document["means"]}
    both = [one["psnr"] for one in models if one["setting"] == "-q 60"]
    assert means["tiny-kl", "-q 60"]["psnr"] == pytest.approx(np.mean(both))
    assert document["anchor"] == "webp"
    assert {(one["codec"], one["metric"]) for one in document["equal_quality"]} >= {
        ("jpeg", "psnr"),
        ("tiny-kl", "psnr"),
    }
    assert any("Fréchet distance is left out" in line for line in document["remarks"])


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def test_nothing_is_measured_twice(
    bench: Callable[..., Result], photos: Path, worked: list[Job], perceptual_file: Path, tmp_path: Path
) -> None:
    first = report(bench(photos, "--json", model="vq"))
    assert len(worked) == 2 * (3 + 3 + 3 + 1)  # three settings of three codecs, and the original's patches
    worked.clear()
    again = report(bench(photos, "--json", model="vq"))
    assert worked == []
    assert again["measurements"] == first["measurements"]
    # a figure more is measured alone, from the files that are there
    more = report(bench(photos, "--json", "--perceptual-weights", perceptual_file, model="vq"))
    assert {job.wanted for job in worked} == {frozenset({"lpips_alex", "lpips", "dists", "vgg16"})}
    assert [one["seconds"] for one in more["measurements"]] == [one["seconds"] for one in first["measurements"]]
    worked.clear()
    # what was removed, or is only half there, is made again
    next((tmp_path / "out" / "files").rglob("webp-q0.webp")).unlink()
    results = tmp_path / "out" / "results.jsonl"
    results.write_bytes(results.read_bytes() + b'{"version": 1, "picture"')
    assert bench(photos, model="vq").code == 0
    assert [(job.codec, job.setting) for job in worked] == [("webp", 0)]


def test_an_interrupted_run_keeps_what_was_measured(
    bench: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, worked: list[Job]
) -> None:
    work = Worker.work

    def interrupt(self: Worker, job: Job) -> Any:
        if len(worked) == 5:
            raise KeyboardInterrupt
        return work(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "work", interrupt)
        result = bench(photos, "--html", tmp_path / "page.html")
    assert result.code == 130
    assert f"{tmp_path / 'out'}: what was measured is kept there: the same command goes on from it" in result.err
    assert not (tmp_path / "page.html").exists()
    worked.clear()
    assert bench(photos).code == 0
    assert len(worked) == 2 * 10 - 5


def test_a_broken_picture_is_passed_over(bench: Callable[..., Result], photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"nonsense")
    result = bench(photos, "--json")
    assert result.code == 1
    assert f"latentzip: {photos / 'broken.png'}: is text, not a picture: get the picture itself" in result.err
    document = report(result)
    assert [picture["name"] for picture in document["pictures"]] == ["a.png", "b.png"]
    assert [error["input"] for error in document["errors"]] == [str(photos / "broken.png")]


def test_a_codec_that_fails_on_a_picture_is_passed_over(bench: Callable[..., Result], photos: Path) -> None:
    """WebP holds at most 16,383 pixels a side. Means are over the pictures that all have."""
    Image.new("RGB", (16400, 2), "red").save(photos / "wide.png")
    result = bench(photos, "--json", against="webp,jpeg")
    assert result.code == 1
    assert f"{photos / 'wide.png'}, WebP: WebP cannot code it at q 0" in result.err
    document = report(result)
    assert any("means are over the 2 of 3 pictures" in line for line in document["remarks"])
    assert {one["codec"] for one in document["measurements"] if one["picture"] == "wide.png"} == {"tiny-kl", "jpeg"}


def test_a_folder_that_cannot_be_read(
    bench: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    iterdir = Path.iterdir

    def refuse(self: Path) -> Iterator[Path]:
        if self == photos:
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = bench(photos)
    assert (result.code, result.err) == (1, f"latentzip: {photos}: cannot be read (Permission denied)\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no pictures" in bench(empty).err
    assert "no such file or folder" in bench(tmp_path / "missing").err
    (empty / "broken.png").write_bytes(b"nonsense")
    nothing = bench(empty)
    assert nothing.code == 1
    assert "nothing could be measured" in nothing.err


def test_a_plugin_that_is_not_installed(
    cli: Cli,
    bench: Callable[..., Result],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_weights: dict[str, Path],
) -> None:
    """Left out with a line; a failure where it was asked for by name."""
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    line = "JPEG XL is left out: pillow-jxl-plugin is not installed: pip install 'latentzip[bench]'"
    result = bench(photos, "--json", against="jxl,jpeg")
    assert result.code == 1
    assert line in result.err
    assert [codec["name"] for codec in report(result)["codecs"]] == ["tiny-kl", "jpeg"]
    options = ("--out", tmp_path / "out", "--jobs", 1, "--quick", "--limit", 1, "--json")
    default = cli("bench", photos, "-m", tiny_weights["kl"], *options)
    assert default.code == 0
    assert line in report(default)["remarks"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--against", "jpeg,heic"], 2, "--against heic: not a codec that is known here: choose from avif, jxl, webp"),
        (["--anchor", "avif"], 2, "--anchor avif: not measured here: choose from tiny-kl, webp, jpeg"),
        (["--rates", "0.1,many"], 2, "give bits per pixel, such as 0.1,0.2,0.4"),
        (["--rates", "0"], 2, "give bits per pixel"),
        (["--plot", "curves.gif"], 2, "curves.gif: plots are written as .png, .svg, .pdf"),
        (["--html", "nowhere/page.html"], 1, "the folder nowhere does not exist"),
        (["--perceptual-weights", "missing.safetensors"], 1, "missing.safetensors: cannot be read"),
        (["--perceptual-weights", __file__], 1, "not a safetensors file"),
        (["--speed", "--csv", "table.csv"], 2, "--speed gives tables"),
        (["-m", "kl-f99"], 1, "kl-f99: neither a built-in model"),
    ],
)
def test_wrong_wishes(
    bench: Callable[..., Result], photos: Path, worked: list[Job], arguments: list[str], code: int, message: str
) -> None:
    """Said before anything is measured."""
    result = bench(photos, *arguments)
    assert result.code == code
    assert message in re.sub(r"[\s│]+", " ", result.err)
    assert worked == []


def test_a_report_is_not_overwritten(
    bench: Callable[..., Result], photos: Path, tmp_path: Path, worked: list[Job]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    result = bench(photos, "--html", page)
    assert result.code == 1
    assert "already exists" in result.err
    assert worked == []
    assert page.read_text() == "mine"


def test_pictures_must_be_given_where_none_are_installed(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pictures, "files", lambda _: tmp_path / "site-packages" / "latentzip")
    result = bench()
    assert result.code == 1
    assert "no pictures are installed with latentzip: name some, or a folder of them" in result.err


def test_wanted_rates_are_met(bench: Callable[..., Result], photos: Path, worked: list[Job]) -> None:
    """Each codec comes as near as its settings allow; a second run does not search again."""
    arguments = (photos, "--rates", "0.4,0.9", "--json")
    document = report(bench(*arguments))
    assert {row["setting"] for row in document["means"]} == {"0.4 bpp", "0.9 bpp"}
    for one in document["measurements"]:
        if one["codec"] == "webp":
            assert min(abs(one["bpp"] / rate - 1) for rate in (0.4, 0.9)) < 0.06
    worked.clear()
    assert report(bench(*arguments))["measurements"] == document["measurements"]
    assert worked == []


def test_csv_and_markdown_and_plots(bench: Callable[..., Result], photos: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"report.{name}" for name in ("csv", "md", "svg", "png")}
    result = bench(photos, "--csv", paths["csv"], "--markdown", paths["md"], "--plot", paths["svg"])
    assert result.code == 0
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert len(rows) == 18
    assert all(float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (176 * 168), abs=1e-5) for row in rows)
    text = paths["md"].read_text()
    assert "### Bytes for equal quality, against WebP" in text
    assert "### Difference at equal bytes, to WebP\n\n| codec | PSNR dB ↑ | 8×8 Y dB ↑ |" in text
    means = text[text.index("### Means over 2 pictures") :].split("\n\n")[1].splitlines()
    assert len(means) == 2 + 9
    assert len({line.count("|") for line in means}) == 1
    assert "- PSNR: higher is better; 10 log10(255² / mean squared error)" in text
    assert "Means over 2 pictures" in result.out
    assert "WebP: lossy, method 6; Pillow" in result.out
    svg = paths["svg"].read_text()
    assert svg.count('id="axes_') == 7
    assert bench(photos, "--plot", paths["png"]).code == 0
    assert Image.open(paths["png"]).size[0] > 1000
    assert bench(photos, "--plot", paths["svg"], "-f").code == 0
    assert paths["svg"].read_text() == svg  # equal figures, equal file


def test_the_page_stands_alone(bench: Callable[..., Result], photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert bench(photos, "--html", page, "--html-pictures", 1).code == 0
    text = page.read_text()
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<script[^>]+src=|@import|url\(", text)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert [picture["name"] for picture in data["pictures"]] == ["a.png"]
    shown = data["pictures"][0]
    assert len(shown["files"]) == 3
    for files in shown["files"]:
        assert set(files) == {"tiny-kl", "webp", "jpeg"}
        for name, file in files.items():
            raw = base64.b64decode(file["image"].partition(",")[2])
            assert Image.open(io.BytesIO(raw)).size == (176, 168)
            if name != "tiny-kl":  # browsers show these: they are the measured files themselves
                assert len(raw) == file["bytes"]
    # nearest in bytes: the next setting of a baseline is not nearer
    leading, webp = shown["files"][1]["tiny-kl"]["bytes"], shown["files"][1]["webp"]
    sizes = [len(_webp(photos / "a.png", q)) for q in range(101)]
    assert abs(np.log(webp["bytes"] / leading)) <= min(abs(np.log(size / leading)) for size in sizes) + 0.005
    original = Image.open(io.BytesIO(base64.b64decode(shown["original"].partition(",")[2])))
    assert original.size == (176, 168)
    assert len(data["rows"]) == 9  # what was searched for the gallery is not among the settings


def _webp(path: Path, quality: int) -> bytes:
    out = io.BytesIO()
    Image.open(path).save(out, "WEBP", quality=quality, method=6)
    return out.getvalue()


def test_a_picture_s_name_cannot_break_the_page(bench: Callable[..., Result], photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<" / "script><b>&"  # so that a path holds "</script>"
    folder.mkdir(parents=True)
    name = "</script>.png"
    (photos / "a.png").rename(folder / name.replace("/", "∕"))
    page = tmp_path / "page.html"
    assert bench(folder, "--html", page).code == 0
    assert page.read_text().count("</script>") == 2


def test_large_sets_have_a_frechet_distance(
    bench: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all patches together: smaller at a higher rate, and the same when asked for again."""
    monkeypatch.setattr("latentzip.bench.summary.FEWEST_PATCHES", 8)
    one, two = (report(bench(photos, "--json")) for _ in range(2))
    assert one["means"] == two["means"]
    jpeg = [row["frechet"] for row in one["means"] if row["codec"] == "jpeg"]
    assert jpeg[0] > jpeg[-1] > 0


def test_models_of_one_name_cannot_be_told_apart(
    cli: Cli, photos: Path, tiny_weights: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "more" / tiny_weights["kl"].name
    other.parent.mkdir()
    other.write_bytes(tiny_weights["kl"].read_bytes())
    result = cli("bench", photos, "-m", tiny_weights["kl"], "-m", other, "--out", tmp_path / "out")
    assert result.code == 2
    assert "another model of this comparison is called tiny-kl too" in result.err


def test_speed(bench: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sizes, threads and start-up, with commands that only pretend to run."""
    lines: list[list[str]] = []

    def pretend(line: list[str]) -> Run:
        lines.append(line)
        return Run(0.5, 100 * 2**20)

    monkeypatch.setattr(speed, "run", pretend)
    monkeypatch.setattr(speed, "QUICK_SIDES", (32, 64, 96))
    result = bench(photos, "--speed", "--json", "--markdown", tmp_path / "speed.md")
    assert result.code == 0, result.err
    document = report(result)
    assert {(one["codec"], one["side"]) for one in document["timings"]} == {
        (codec, side) for codec in ("tiny-kl", "WebP", "JPEG") for side in (32, 64, 96)
    }
    assert [one["codec"] for one in document["starts"]] == ["tiny-kl", "WebP", "JPEG"]
    assert ["encode" in line for line in lines[:4]] == [True, True, False, False]
    text = (tmp_path / "speed.md").read_text()
    assert "Megapixels a second" in text
    assert "| codec | device | threads |  | ms a picture | s a megapixel | exponent | network |" in text


def test_time_is_split_into_what_a_picture_and_what_a_pixel_costs() -> None:
    from latentzip.bench.speed_tables import fit

    timings = [speed.Timing("x", "cpu", 1, side, {"encode": 0.2 + 0.5 * side**2 / 1e6}) for side in (256, 1024, 2048)]
    found = fit(timings, "encode")
    assert (found.fixed, found.per_megapixel) == pytest.approx((0.2, 0.5))
    assert 0.7 < found.exponent < 1


@pytest.mark.slow
def test_several_processes_and_whole_commands(
    cli: Cli, photos: Path, tmp_path: Path, tiny_weights: dict[str, Path]
) -> None:
    """A pool measures what one process does; commands tell time and memory."""
    fixed = ("bench", photos, "-m", tiny_weights["kl"], "--against", "jpeg", "--limit", 1, "--json", "--device", "cpu")
    one = report(cli(*fixed, "--out", tmp_path / "one", "--jobs", 1, "--quick"))
    two = report(cli(*fixed, "--out", tmp_path / "two", "--jobs", 2))

    def figures(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
        return {
            (one["codec"], one["setting"]): {k: v for k, v in one.items() if isinstance(v, int | float)}
            for one in document["measurements"]
        }

    assert len(figures(one)) == 6
    assert len(figures(two)) == 11
    for name, values in figures(one).items():
        # a network's sums may be ordered otherwise with another number of threads
        assert figures(two)[name] == pytest.approx(values, rel=1e-4)
    for name in ("tiny-kl", "jpeg"):
        for verb in ("encode", "decode"):
            run = two["commands"][name][verb]
            assert run["seconds"] > 0
            assert sys.platform == "win32" or 20 * 2**20 < run["memory"] < 4 * 2**30
    # Pillow alone is smaller than this process with torch is: the memory is the command's own
    assert two["commands"]["jpeg"]["encode"]["memory"] < two["commands"]["tiny-kl"]["encode"]["memory"] / 2


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(commands.BenchError, match=r"ended with 1: .*missing.png"):
        commands.run([sys.executable, "-m", "latentzip", "encode", "missing.png"])
