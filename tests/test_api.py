"""latentzip for Python programs: `encode`, `decode`, `read_header`, `load_model`."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES, Result
from PIL import Image
from test_metadata import source
from test_profiles import P3, with_profile

import latentzip
from latentzip import api
from latentzip.errors import FormatError, ModelError, TruncatedError, UsageError
from latentzip.images.profiles import recognise
from latentzip.settings import EncodeSettings

PHOTO = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 197, 113))


def test_there_and_back(tiny_weights: dict[str, Path]) -> None:
    image = with_profile(PHOTO, P3)
    data = latentzip.encode(image, model=tiny_weights["kl"], quality=100)
    back = latentzip.decode(data, model=tiny_weights["kl"])
    assert (back.mode, back.size) == ("RGB", PHOTO.size)
    assert recognise(back.info["icc_profile"]) == 2
    header = latentzip.read_header(data[:32])
    assert (header.width, header.height, header.mode) == (97, 63, "RGB")


def test_a_box_is_what_crop_would_give(tiny_weights: dict[str, Path]) -> None:
    image = PHOTO.convert("RGBA")
    image.putalpha(image.getchannel("R"))
    data = latentzip.encode(image, model=tiny_weights["kl"], quality=100)
    whole, box = latentzip.decode(data, model=tiny_weights["kl"]), (20, 5, 71, 40)
    part = latentzip.decode(data, model=tiny_weights["kl"], box=box)
    assert (part.mode, part.size) == ("RGBA", (51, 35))
    assert part.tobytes() == whole.crop(box).tobytes()
    for outside in ((0, 0, 98, 10), (-1, 0, 5, 5), (5, 5, 5, 9), (9, 9, 5, 5)):
        with pytest.raises(FormatError, match="does not lie within it"):
            latentzip.decode(data, model=tiny_weights["kl"], box=outside)
    with pytest.raises(FormatError, match="more than is safe"):
        latentzip.decode(data, model=tiny_weights["kl"], max_pixels=1000)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "F"]
)
def test_any_mode_goes_in(mode: str, tiny_weights: dict[str, Path]) -> None:
    if mode in ("I;16", "F"):
        floats = np.asarray(PHOTO.convert("L")) / 255
        image = Image.fromarray((floats * 65535).astype(np.uint16) if mode == "I;16" else floats.astype(np.float32))
    else:
        image = PHOTO.convert("RGBA") if "A" in mode.upper() else PHOTO
        if "A" in mode.upper():
            image.putalpha(100)
        image = image.convert(mode)
    back = latentzip.decode(latentzip.encode(image, model=tiny_weights["vq"]), model=tiny_weights["vq"])
    grey = mode in ("1", "L", "LA", "I;16", "F")
    assert back.mode == ("L" if grey else "RGB") + ("A" if "A" in mode.upper() else "")


def test_grey_takes_fewer_bytes_than_colour() -> None:
    """With the default model, without a network of its own."""
    with Image.open(IMAGES / "coffee.png") as photo:
        colour = photo.convert("RGB")
    grey, coloured = (len(latentzip.encode(image, metadata="none")) for image in (colour.convert("L"), colour))
    assert grey < 0.95 * coloured


def test_what_nobody_sees_costs_next_to_nothing() -> None:
    """A picture whose right half is fully transparent, whatever colours lie there, costs what its left half does."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    with Image.open(IMAGES / "coffee.png") as photo:
        noise[:, :300] = np.asarray(photo.convert("RGB"))[:, :300]
    alpha = Image.new("L", (600, 400))
    alpha.paste(255, (0, 0, 300, 400))
    whole = Image.fromarray(noise)
    whole.putalpha(alpha)
    half = latentzip.encode(Image.fromarray(noise[:, :300].copy()))
    assert len(latentzip.encode(whole)) < 1.15 * len(half)
    assert len(latentzip.encode(whole, alpha="drop")) > 3 * len(half)


def test_the_image_is_left_as_it_was(tiny_weights: dict[str, Path]) -> None:
    image = Image.open(io.BytesIO(source("JPEG")))
    image.load()
    before = image.tobytes(), dict(image.info), image.size
    latentzip.encode(image, model=tiny_weights["vq"], metadata="all")
    assert (image.tobytes(), dict(image.info), image.size) == before


def test_an_animation_gives_the_frame_it_stands_at(tiny_weights: dict[str, Path]) -> None:
    out = io.BytesIO()
    Image.new("L", (20, 20), 0).save(out, "GIF", save_all=True, append_images=[Image.new("L", (20, 20), 255)])
    animation = Image.open(out)
    files = []
    for frame in (0, 1):
        animation.seek(frame)
        files.append(latentzip.encode(animation, model=tiny_weights["kl"]))
    assert files[0] != files[1]


def test_the_command_line_makes_the_same_files(
    cli,
    tmp_path: Path,
    tiny_weights: dict[str, Path],  # type: ignore[no-untyped-def]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(source("PNG"))
    for options, settings in (
        ([], {}),
        (["-q", 77, "--metadata", "all"], {"quality": 77, "metadata": "all"}),
        (["--size", 700], {"size": 700}),
        (["--bpp", 8], {"bpp": 8.0}),
        (["--coding", "fp16"], {"coding": "fp16"}),
        (["-e", 1], {"effort": 1}),
    ):
        result: Result = cli("encode", path, "-m", tiny_weights["kl"], "-f", *options)
        assert result.code == 0, result.err
        with Image.open(path) as image:
            data = latentzip.encode(image, model=tiny_weights["kl"], **settings)  # type: ignore[arg-type]
        assert (tmp_path / "a.lz").read_bytes() == data
    assert cli("decode", tmp_path / "a.lz", "-m", tiny_weights["kl"], "-o", tmp_path / "b.png").code == 0
    ours = latentzip.decode(data, model=tiny_weights["kl"])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(ours))


def test_threads_decode_at_once_and_load_the_model_once(
    tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [PHOTO.rotate(90 * (i % 4)) for i in range(8)]
    files = [latentzip.encode(image, model=tiny_weights["kl"], quality=90) for image in images]
    expected = [np.asarray(latentzip.decode(data, model=tiny_weights["kl"])) for data in files]
    api._load_decoder.cache_clear()
    loads = []
    load = api.load_decoder
    monkeypatch.setattr(api, "load_decoder", lambda *arguments: loads.append(arguments) or load(*arguments))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda data: latentzip.decode(data, model=tiny_weights["kl"]), files * 4))
    assert len(loads) == 1
    for i, result in enumerate(results):
        assert np.array_equal(np.asarray(result), expected[i % 8])


def test_weights_that_were_trained_anew_are_loaded_anew(tiny_weights: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    fingerprints = []
    for i, kind in enumerate(("kl", "vq")):
        path.write_bytes(tiny_weights[kind].read_bytes())
        os.utime(path, ns=(i + 1, i + 1))
        fingerprints.append(latentzip.read_header(latentzip.encode(PHOTO, model=path)).latent_fingerprint)
    assert fingerprints[0] != fingerprints[1]


def test_a_loaded_model_can_be_handed_over(tiny_weights: dict[str, Path]) -> None:
    model = latentzip.load_model(tiny_weights["kl"], device="cpu")
    assert latentzip.encode(PHOTO, model=model) == latentzip.encode(PHOTO, model=str(tiny_weights["kl"]))
    assert latentzip.load_model(tiny_weights["kl"], "cpu").encoder is model.encoder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality": 0}, "quality 0: give 1"),
        ({"quality": 101}, "quality 101"),
        ({"effort": 10}, "effort 10: give 0"),
        ({"quality": 5, "bpp": 0.1}, "give one of them"),
        ({"bpp": 0.1, "most_bytes": 10}, "give one of them"),
        ({"coding": "fp16", "quality": 5}, "fp16"),
        ({"coding": "fp16", "effort": 1}, "fp16"),
    ],
)
def test_wishes_that_contradict_themselves(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EncodeSettings(**settings)  # type: ignore[arg-type]


def test_errors_are_ours() -> None:
    for wrong, error in ((b"", FormatError), (b"nonsense", FormatError), (b"\x89LTZ\r\n\x1a\n", TruncatedError)):
        with pytest.raises(error):
            latentzip.read_header(wrong)
        with pytest.raises(error):
            latentzip.decode(wrong)
    for call in (latentzip.load_model, lambda name: latentzip.encode(PHOTO, model=name)):
        with pytest.raises(ModelError, match="no-model: neither a built-in model"):
            call("no-model")
    with pytest.raises(ModelError, match="device abacus: not available"):
        latentzip.load_model(device="abacus")
    with pytest.raises(UsageError, match="--alpha"):
        latentzip.encode(PHOTO, alpha="nothing")
    with pytest.raises(AttributeError, match="no attribute 'encod'"):
        latentzip.encod  # noqa: B018


def test_importing_is_cheap() -> None:
    code = (
        "import sys, latentzip; assert 'PIL' not in sys.modules and 'torch' not in sys.modules;"
        "latentzip.read_header; latentzip.LatentzipError; latentzip.register();"
        "assert 'torch' not in sys.modules; assert set(latentzip.__all__) <= set(dir(latentzip));"
        "latentzip.encode; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("said", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
@pytest.mark.parametrize("module", ["latentzip.api", "latentzip.LzImagePlugin", "latentzip.interop"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(said: str | None, expected: str, module: str) -> None:
    """Whatever is imported first: OpenMP looks once, when torch is."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if said is not None:
        environment["OMP_WAIT_POLICY"] = said
    code = (
        "import importlib.abc, os, sys\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': print(os.environ.get('OMP_WAIT_POLICY')); sys.stdout.flush(); os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}\n"
        "import latentzip; latentzip.decode"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == expected
