"""What Python programs may hand over, and what becomes of the rest: a sentence."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import IMAGES, Result
from PIL import Image
from test_tiled import thin_sd  # noqa: F401

import latentzip
from latentzip.errors import FormatError, ImageError, LatentzipError, ModelError, UsageError
from latentzip.zoo import registry

PHOTO = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 140, 80))
PHOTO.info.clear()
latentzip.register()


@pytest.fixture(scope="module")
def model(tiny_weights: dict[str, Path]) -> Path:
    return tiny_weights["vq"]


@pytest.fixture(scope="module")
def data(model: Path) -> bytes:
    return latentzip.encode(PHOTO, model=model)


def test_pictures_go_in_by_every_natural_way(data: bytes, model: Path, tmp_path: Path) -> None:
    path, png = tmp_path / "a.png", io.BytesIO()
    PHOTO.save(path)
    PHOTO.save(png, "PNG")
    png.seek(0)
    pixels = np.asarray(PHOTO)
    sideways = np.ascontiguousarray(pixels.transpose(1, 0, 2)).transpose(1, 0, 2)  # the same, but not contiguous
    with path.open("rb") as file:
        sources = (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), png, file, pixels, sideways)
        for source in sources:
            assert latentzip.encode(source, model=model) == data
    for mode, array in (
        ("L", pixels[..., 0]),
        ("L", pixels[..., :1]),
        ("RGBA", np.dstack([pixels, pixels[..., 0] // 2])),
    ):
        assert latentzip.decode(latentzip.encode(array, model=model), model=model).mode == mode


def test_what_has_arrived_of_a_picture_file_is_taken_where_asked_for(model: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 90).save(file, "PNG")
    cut = file.getvalue()[:-1000]
    with pytest.raises(ImageError, match="cut short"):
        latentzip.encode(cut, model=model)
    assert latentzip.read_header(latentzip.encode(cut, model=model, partial=True)).height == 48
    for image in (PHOTO, np.asarray(PHOTO)):
        with pytest.raises(UsageError, match="partial: is for picture files"):
            latentzip.encode(image, model=model, partial=True)


def test_files_go_in_by_every_natural_way(data: bytes, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.lz"
    path.write_bytes(data)
    expected = latentzip.decode(data, model=model).tobytes()
    latents, header = latentzip.load_latents(path, model), latentzip.read_header(data)
    for make in (lambda: path, lambda: str(path), lambda: memoryview(data), lambda: io.BytesIO(data)):
        assert latentzip.decode(make(), model=model).tobytes() == expected
        assert torch.equal(latentzip.load_latents(make(), str(model)), latents)
        assert latentzip.read_header(make()) == header


def test_devices_models_and_colours(data: bytes, model: Path, tiny_weights: dict[str, Path]) -> None:
    cpu = latentzip.load_model(model, device=torch.device("cpu"))
    assert cpu == latentzip.load_model(model, device="cpu")
    expected = latentzip.decode(data, model=model).tobytes()
    assert latentzip.decode(data, model=cpu).tobytes() == expected
    assert latentzip.decode(data, model=cpu, device="cpu").tobytes() == expected
    with pytest.raises(ModelError, match="encoded with another model"):
        latentzip.decode(data, model=latentzip.load_model(tiny_weights["kl"]))
    clear = PHOTO.convert("RGBA")
    clear.putalpha(90)
    assert latentzip.encode(clear, model=model, alpha=(255, 136, 0)) == latentzip.encode(
        clear, model=model, alpha="#ff8800"
    )
    whole = np.int64(70), np.int32(2)
    assert latentzip.encode(PHOTO, model=tiny_weights["kl"], quality=whole[0]) == latentzip.encode(  # type: ignore[arg-type]
        PHOTO, model=tiny_weights["kl"], quality=70
    )


NAN, INFINITY = float("nan"), float("inf")
WRONG_WISHES: list[dict[str, Any]] = [
    *({"quality": wrong} for wrong in (0, 101, 50.5, "50", True, NAN, [50])),
    *({"bpp": wrong} for wrong in (-1, 0, NAN, INFINITY, 10**400 * -1, "0.5", True)),
    *({"size": wrong} for wrong in (-1, 40.5, "40KB", True)),
    *({"effort": wrong} for wrong in (-1, 10, 1.5, "3", True, None)),
    *({"coding": wrong} for wrong in ("fp8", "", None, 16)),
    *({"metadata": wrong} for wrong in ("foo", "", None, True)),
    *({"alpha": wrong} for wrong in ("foo", "", None, 255, (1, 2), (1, 2, 256), (0.1, 0.2, 0.3), ("r", "g", "b"))),
    *({"verify": wrong} for wrong in ("no", None, 0)),
    *({"model": wrong} for wrong in (5, b"kl-f16", ["kl-f16"], "", "a\0b")),
]


@pytest.mark.parametrize("wishes", WRONG_WISHES, ids=str)
def test_wishes_that_cannot_be_met(wishes: dict[str, Any], model: Path) -> None:
    name = next(iter(wishes))
    with pytest.raises(UsageError) as caught:
        latentzip.encode(PHOTO, **{"model": model, **wishes})
    assert name in str(caught.value) or name == "model"
    if name != "model":
        with pytest.raises(OSError, match=name):
            PHOTO.save(io.BytesIO(), "LATENTZIP", **{"model": model, **wishes})


@pytest.mark.parametrize(
    ("image", "error"),
    [
        *((Image.new(mode, size), ImageError) for mode in ("RGB", "L", "RGBA") for size in ((0, 0), (0, 5), (5, 0))),
        (np.zeros((0, 5, 3), np.uint8), ImageError),
        (np.zeros((3, 5, 7), np.uint8), UsageError),
        (np.zeros((5, 7, 3), np.float32), UsageError),
        (np.zeros((5, 7, 3), np.uint16), UsageError),
        (np.zeros(5, np.uint8), UsageError),
        (torch.zeros(5, 7, 3, dtype=torch.uint8), UsageError),
        (None, UsageError),
        (5, UsageError),
        ([[1, 2], [3, 4]], UsageError),
        (io.StringIO("text"), UsageError),
        (b"nonsense", ImageError),
        (b"", ImageError),
        ("no-such.png", LatentzipError),
        ("a\0b", UsageError),
        (Path(), LatentzipError),
    ],
    ids=str,
)
def test_what_is_no_picture(image: Any, error: type[Exception], model: Path) -> None:
    with pytest.raises(error):
        latentzip.encode(image, model=model)


@pytest.mark.parametrize("read", [latentzip.decode, latentzip.load_latents, latentzip.read_header])
def test_what_is_no_file(read: Callable[..., Any], tmp_path: Path) -> None:
    for wrong in (None, 5, io.StringIO("text"), PHOTO, "", "a\0b"):
        with pytest.raises(UsageError):
            read(wrong)
    with pytest.raises(LatentzipError, match=r"^no-such\.lz: no such file"):
        read("no-such.lz")
    bad = tmp_path / "bad.lz"
    bad.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"bad\.lz: not a latentzip image"):
        read(bad)


@pytest.mark.parametrize(
    "wishes",
    [
        *({"box": box} for box in (5, (1, 2, 3), (0, 0, 5.5, 5), "0,0,5,5", (NAN,) * 4)),
        *({"noise": wrong} for wrong in (-1, NAN, INFINITY, "1", True, None)),
        *({"max_pixels": count} for count in (0, -1, 5.5, "9", None)),
        *({"partial": wrong} for wrong in ("no", 1, None)),
        {"model": 5},
    ],
    ids=str,
)
def test_decode_refuses_too(wishes: dict[str, Any], data: bytes, model: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(wishes))):
        latentzip.decode(data, **{"model": model, **wishes})


def test_devices_that_are_not_there(data: bytes, model: Path) -> None:
    for device in ("abacus", "", "cpu:7", "meta", torch.device("meta"), None, 5):
        with pytest.raises(ModelError, match="not available here"):
            latentzip.load_model(device=device)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="not available here"):
            latentzip.decode(data, model=model, device=device)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model 5"):
        latentzip.load_latents(data, 5)  # type: ignore[arg-type]


def test_numbers_of_bits_that_are_none_on_the_command_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PHOTO.save(path)
    for bpp in ("nan", "inf"):
        assert cli("encode", path, "--bpp", bpp).code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_built_in_weights_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result], example_lz: Path
) -> None:
    manifest = registry.weights_folder() / "manifest.json"
    (tmp_path / "manifest.json").write_text(manifest.read_text())
    monkeypatch.setattr(registry, "weights_folder", lambda: tmp_path)
    registry.built_in.cache_clear()
    try:
        for call in (
            latentzip.load_model,
            lambda: latentzip.load_model("vq-f16"),
            lambda: latentzip.encode(PHOTO),
            lambda: latentzip.decode(example_lz),
            lambda: latentzip.load_latents(example_lz),
        ):
            with pytest.raises(ModelError, match=r"the weights of .*-f16 are missing: install latentzip again"):
                call()
        result = cli("verify", example_lz)
        assert (result.code, "are missing: install latentzip again" in result.err) == (1, True)
    finally:
        registry.built_in.cache_clear()


def test_effort_with_models_that_have_no_gradients(thin_sd: Path, model: Path) -> None:  # noqa: F811
    """Latents that diffusion models know stay as they are; codes are searched for longer; nothing fails."""
    assert latentzip.encode(PHOTO, model=thin_sd, effort=9) == latentzip.encode(PHOTO, model=thin_sd)
    searched = latentzip.encode(PHOTO, model=model, effort=3)
    assert latentzip.decode(searched, model=model).size == PHOTO.size
