"""`latentzip bench --pairs`: how pairs are chosen, and the page in a real browser."""

import base64
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IMAGES, Result
from PIL import Image

from latentzip.bench.pairs import choose_crop

Cli = Callable[..., Result]
COUNT = 6
RATES = (0.4, 0.7)
NAMES = ("kl-f16", "webp", "WebP")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of 96x80."""
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(IMAGES / "chelsea.png").convert("RGB")
    for i, name in enumerate(("one", "two", "three")):
        image.crop((90 * i, 60, 90 * i + 96, 140)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So that files are coded once."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture
def make(cli: Cli, photos: Path, results: Path) -> Callable[..., Result]:
    """`bench --pairs TARGET`, the default model against WebP."""

    def run(target: Path, *arguments: object) -> Result:
        fixed = ("--out", results, "--jobs", 1, "--device", "cpu", "--against", "webp")
        small = ("--rates", "0.4,0.7", "--pairs-count", COUNT, "--pairs-crop", 48)
        return cli("bench", photos, "-m", "kl-f16", *fixed, *small, "--pairs", target, *arguments)

    return run


def key_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    key: dict[str, Any] = json.loads(base64.b64decode(json.loads(found[1])["key"]))
    return key


def test_pairs_are_at_the_wanted_share_of_the_bytes(make: Callable[..., Result], tmp_path: Path, photos: Path) -> None:
    for share in (1, 0.6):
        folder = tmp_path / f"pairs-{share}"
        result = make(folder, "--share", share)
        assert result.code == 0, result.err
        key = json.loads((folder / "key.json").read_text())
        assert (key["share"], len(key["pairs"])) == (share, COUNT)
        assert {(pair["picture"], pair["rate"]) for pair in key["pairs"]} == {
            (path.name, rate) for path in photos.iterdir() for rate in RATES
        }
        for pair in key["pairs"]:
            tested, anchor = pair["bytes"]
            assert tested / anchor == pytest.approx(share, rel=0.1)
            assert 8 * anchor / (96 * 80) == pytest.approx(pair["rate"], rel=0.1)
            assert {pair["left"], pair["right"]} == {"kl-f16", "webp"}
            shown = np.array(Image.open(folder / pair["file"]))
            assert shown.shape == (96, 3 * 96 + 2 * 12, 3)
            # the original is in the middle
            original = Image.open(photos / pair["picture"]).crop((pair["x"], pair["y"], pair["x"] + 48, pair["y"] + 48))
            assert np.array_equal(shown[:, 108:204], np.array(original.resize((96, 96), Image.Resampling.BICUBIC)))
        assert {pair["left"] for pair in key["pairs"]} == {"kl-f16", "webp"}


def test_equal_seeds_make_equal_pairs(make: Callable[..., Result], tmp_path: Path) -> None:
    pages = []
    for name, seed in (("a.html", 3), ("b.html", 3), ("c.html", 4)):
        assert make(tmp_path / name, "--seed", seed).code == 0
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]
    assert key_of(pages[0])["pairs"] != key_of(pages[2])["pairs"]


def test_the_page_does_not_tell_what_is_what(make: Callable[..., Result], tmp_path: Path) -> None:
    """Nor does it fetch anything."""
    page = tmp_path / "pairs.html"
    assert make(page).code == 0
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.read_text())
    for name in (*NAMES, "one.png", "tested_left"):
        assert name not in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_crops_are_chosen_by_the_original_s_detail() -> None:
    """Of a picture that is plain but for a quarter, a crop that holds some of that quarter; another seed, another."""
    pixels = np.full((256, 256, 3), 90, np.uint8)
    pixels[:128, :128] = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8)
    found = {choose_crop(pixels, 64, np.random.default_rng(seed)) for seed in range(40)}
    assert len(found) > 5
    touching = [(x, y) for x, y in found if x < 128 and y < 128]
    assert len(touching) >= len(found) / 2
    assert choose_crop(pixels[:40, :50], 64, np.random.default_rng(0)) == (0, 0)  # smaller than a crop


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--share", "0"], 2, "--share 0: give a ratio such as 0.6"),
        (["--csv", "table.csv"], 2, "--pairs measures nothing"),
        (["--rates", "0.001"], 1, "have no files of these sizes: give other --rates, or another --share"),
        (["--against", "none"], 1, "there is nothing to hold against kl-f16"),
    ],
)
def test_wrong_wishes(
    make: Callable[..., Result], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    page = tmp_path / "pairs.html"
    result = make(page, *arguments)
    assert result.code == code
    assert message in re.sub(r"[\s│]+", " ", result.err)
    assert not page.exists()


def test_nothing_is_overwritten(make: Callable[..., Result], tmp_path: Path) -> None:
    page, folder = tmp_path / "pairs.html", tmp_path / "mine"
    page.write_text("mine")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for target, message in ((page, "already exists"), (folder, "is not empty: give another folder")):
        result = make(target)
        assert result.code == 1
        assert message in result.err
    assert page.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    missing = make(tmp_path / "nowhere" / "pairs")
    assert missing.code == 1
    assert "does not exist" in missing.err


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window, driven as a person would."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium and chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.add_argument("--disable-component-update")
    options.add_argument("--window-size=1200,900")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    found = webdriver.Chrome(options, Service(driver))
    yield found
    found.quit()


def wilson(wins: int, count: int) -> tuple[float, float]:
    """E. B. Wilson 1927, at 95 %."""
    z = 1.959964
    share = wins / count
    root = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    return (middle - root) / scale, (middle + root) / scale


@pytest.mark.slow
def test_judging_pairs_in_a_browser(make: Callable[..., Result], tmp_path: Path, browser: Any) -> None:
    """Through all pairs by the keyboard, back once, and what the table says in the end."""
    from selenium.webdriver.common.keys import Keys

    page = tmp_path / "pairs.html"
    assert make(page).code == 0
    pairs = key_of(page.read_text())["pairs"]
    assert len(pairs) == COUNT
    browser.get(page.as_uri())
    body = browser.find_element("tag name", "body")

    def press(key: str) -> None:
        body.send_keys(key)

    def is_shown(name: str) -> bool:
        return bool(browser.find_element("id", name).is_displayed())

    # the model wins but for the last two pairs: the other codec, and neither
    wanted = ["kl-f16"] * (COUNT - 2) + ["webp", None]
    press(Keys.ENTER)  # nothing is shown before all are judged
    for number, (pair, name) in enumerate(zip(pairs, wanted, strict=True), 1):
        assert f"Pair {number} of {COUNT}." in body.text
        assert "Crops of 48 pixels a side, at 2 times their size" in body.text
        seen = browser.execute_script("return document.body.innerText + document.querySelector('main').innerHTML")
        seen = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", seen)
        assert not any(codec in seen for codec in (*NAMES, pair["picture"]))
        sizes = browser.execute_async_script(
            "const done = arguments[0]; Promise.all(['left', 'original', 'right'].map((id) =>"
            " document.getElementById(id).decode())).then(() => requestAnimationFrame(() => done("
            "['left', 'original', 'right'].map((id) => document.getElementById(id).offsetWidth))));"
        )
        assert sizes == [96, 96, 96]
        if number == 2:  # a slip, taken back
            press(Keys.ARROW_DOWN)
            press(Keys.BACKSPACE)
        if number == 4:  # what was judged is not lost
            browser.refresh()
            body = browser.find_element("tag name", "body")
            assert f"Pair {number} of {COUNT}." in body.text
        press(Keys.ARROW_DOWN if name is None else Keys.ARROW_LEFT if name == pair["left"] else Keys.ARROW_RIGHT)
    assert is_shown("done")
    assert not is_shown("ask")
    assert not any(name in body.text for name in NAMES)
    press(Keys.BACKSPACE)
    assert is_shown("ask")
    press(Keys.ARROW_DOWN)
    press(Keys.ENTER)

    assert browser.find_element("id", "headline").text == f"kl-f16 was preferred {COUNT - 2} times, WebP 1 time"
    rows = browser.find_elements("css selector", "#result tr")
    cells = [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]
    low, high = wilson(COUNT - 2, COUNT - 1)
    share = round(100 * (COUNT - 2) / (COUNT - 1))
    whole = ["all", str(COUNT), str(COUNT - 2), "1", "1", f"{share} %", f"{100 * low:.0f} % to {100 * high:.0f} %"]
    assert cells[-1] == whole
    assert [row[0] for row in cells[1:]] == ["0.4", "0.7", "all"]
    for rate, row in zip(RATES, cells[1:], strict=False):
        here = [name for pair, name in zip(pairs, wanted, strict=True) if pair["rate"] == rate]
        counts = [len(here), here.count("kl-f16"), here.count("webp"), here.count(None)]
        assert row[1:5] == [str(count) for count in counts]
    document = browser.execute_script("return results()")
    assert [pair["chosen"] for pair in document["pairs"]] == wanted
    assert document["results"][-1]["interval"] == pytest.approx([low, high])
    press(Keys.ARROW_LEFT)  # answers stand
    assert browser.execute_script("return results()") == document
