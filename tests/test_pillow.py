"""Pillow opens and saves .lz files as it does others'."""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from test_metadata import XMP, exif_of, source
from test_profiles import ADOBE, P3

import latentzip
import latentzip.LzImagePlugin
from latentzip.container import Chunk, Container, parse
from latentzip.container import pack as pack_container
from latentzip.images.profiles import recognise

PHOTO = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 197, 113))


def bytes_of(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "LATENTZIP", **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def data() -> bytes:
    """By the default model, so that it opens without being told of one."""
    image = PHOTO.copy()
    image.info["icc_profile"] = P3
    return bytes_of(image, quality=30, xmp=XMP, exif=exif_of(1))


def test_a_file_is_saved_and_opened_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.lz"
    PHOTO.save(path, quality=80)
    assert path.read_bytes() == latentzip.encode(PHOTO, quality=80)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("LATENTZIP", "RGB", PHOTO.size)
        assert image.get_format_mimetype() == "image/x-latentzip"
        image.load()
    assert np.array_equal(np.asarray(image), np.asarray(latentzip.decode(path.read_bytes())))
    difference = np.asarray(image).astype(int) - np.asarray(PHOTO)
    assert np.abs(difference).mean() < 12


def test_opening_is_lazy(data: bytes, tmp_path: Path) -> None:
    """Size, mode and metadata want no network."""
    path = tmp_path / "photo.lz"
    path.write_bytes(data)
    code = (
        "import sys, latentzip.LzImagePlugin; from PIL import Image; im = Image.open(sys.argv[1]);"
        "assert (im.size, im.mode) == ((97, 63), 'RGB'); assert im.info['icc_profile'] and im.getexif();"
        "assert 'torch' not in sys.modules; im.load(); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_modes_come_back(mode: str) -> None:
    image = PHOTO.convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    back = Image.open(io.BytesIO(bytes_of(image)))
    assert back.mode == mode
    back.load()
    assert back.mode == mode
    if "A" in mode:
        assert back.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_what_one_does_with_images(data: bytes) -> None:
    whole = np.asarray(latentzip.decode(data))
    assert Image.open(io.BytesIO(data)).convert("L").mode == "L"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).copy()), whole)
    assert np.array_equal(np.asarray(copy.copy(Image.open(io.BytesIO(data)))), whole)
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(Image.open(io.BytesIO(data))))), whole)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).crop((5, 5, 9, 9))), whole[5:9, 5:9])
    image = Image.open(io.BytesIO(data))
    image.thumbnail((20, 20))
    assert image.size == (20, 13)
    image.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getpixel((3, 2)) == tuple(whole[2, 3])
        image.load()
        image.load()
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG")
    assert np.array_equal(np.asarray(Image.open(out)), whole)
    Image.open(io.BytesIO(data)).verify()


def test_metadata_is_pillow_s(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    assert image.info["icc_profile"] == P3
    assert b"Secret place" in image.info["xmp"]
    assert image.getexif()[ExifTags.Base.Artist] == "Jane"
    assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[29] == "2024:05:06"


def test_saving_keeps_the_profile_and_by_default_nothing_else() -> None:
    image = Image.open(io.BytesIO(source("JPEG")))
    upright = ImageOps.exif_transpose(image)
    back = Image.open(io.BytesIO(bytes_of(image)))
    assert back.size == upright.size, "turned as Exif says"
    assert set(back.info) == {"icc_profile"}
    for options, kept in (
        ({"metadata": "none"}, set()),
        ({"metadata": "all"}, {"icc_profile", "exif", "xmp"}),
        ({"exif": image.getexif()}, {"icc_profile", "exif"}),
        ({"exif": image.info["exif"]}, {"icc_profile", "exif"}),
        ({"xmp": XMP}, {"icc_profile", "xmp"}),
        ({"xmp": XMP, "metadata": "all"}, {"icc_profile", "exif", "xmp"}),
        ({"icc_profile": ADOBE}, {"icc_profile"}),
    ):
        back = Image.open(io.BytesIO(bytes_of(image, **options)))
        assert set(back.info) == kept, options
        assert back.size == upright.size, options
        assert back.getexif().get(ExifTags.Base.Orientation, 1) == 1, options
        if "icc_profile" in options:
            assert recognise(back.info["icc_profile"]) == 3
    assert image.size == (30, 20), "the image itself is left alone"


def test_bad_files_raise_what_pillow_s_users_expect(data: bytes, tmp_path: Path) -> None:
    damaged = bytearray(data)
    damaged[20] ^= 1
    for content, message in (
        (b"nonsense", "cannot identify image file"),
        (bytes(damaged), "header's checksum"),
        (data[:8] + b"\x09" + data[9:], "format version 9"),
        (data[:20], "within the header"),
        (data + b"more", r"bad\.lz: .*after its end"),
    ):
        path = tmp_path / "bad.lz"
        path.write_bytes(content)
        with pytest.raises(UnidentifiedImageError, match=message):
            Image.open(path)


def test_lzip_archives_are_called_by_their_name() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(b"LZIP\x01\x0c" + bytes(50)))
    assert any("lzip archive" in str(warning.message) for warning in caught)


def test_files_cut_short_raise_oserror_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes_of(Image.open(IMAGES / "coffee.png").convert("RGB"), quality=100)
    cut = data[:-5]
    image = Image.open(io.BytesIO(cut))
    assert image.size == (600, 400)
    with pytest.raises(OSError, match="get the file again"):
        image.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    image = Image.open(io.BytesIO(cut))
    image.load()
    assert np.array_equal(np.asarray(image), np.asarray(latentzip.decode(cut, partial=True)))


def test_verify_finds_what_is_cut_short_or_damaged(data: bytes, tmp_path: Path) -> None:
    damaged = bytearray(data)
    damaged[-3] ^= 1
    path = tmp_path / "cut.lz"
    for content, message in ((data[:-1], "get the file again"), (data[:60], "get the file again")):
        path.write_bytes(content)
        with Image.open(path) as image, pytest.raises(OSError, match=rf"cut\.lz: .*{message}"):
            image.verify()
    path.write_bytes(damaged)
    with pytest.raises(UnidentifiedImageError, match="checksum"):
        Image.open(path)
    image = Image.open(io.BytesIO(data))
    image.verify()
    image = Image.open(io.BytesIO(data))
    image.load()
    image.verify()


def test_metadata_of_another_kind_is_refused() -> None:
    for wrong in ({"exif": "text"}, {"xmp": 5}, {"icc_profile": "sRGB"}, {"exif": {1: 2}}):
        with pytest.raises(OSError, match=next(iter(wrong))):
            bytes_of(PHOTO, **wrong)


def test_a_model_that_is_not_here_is_an_oserror(data: bytes, tiny_weights: dict[str, Path]) -> None:
    image = Image.open(io.BytesIO(bytes_of(PHOTO, model=tiny_weights["kl"])))
    with pytest.raises(OSError, match="needs a model that is not here"):
        image.load()


def test_wrong_options_leave_no_file(tmp_path: Path) -> None:
    for options, message in (({"quality": 0}, "quality 0"), ({"model": "no-model"}, "neither a built-in")):
        with pytest.raises(OSError, match=message):
            PHOTO.save(tmp_path / "x.lz", **options)
    assert list(tmp_path.iterdir()) == []


def test_absurd_sizes_are_refused_by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's own; the command line switches it off
    container = parse(data)
    from dataclasses import replace

    absurd = Container(replace(container.header, width=65535, height=65535), (Chunk(1, b"\1\1"),))
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(pack_container(absurd)))
