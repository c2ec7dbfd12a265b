"""Pictures in: every mode is kept, converted with a remark, or refused, and nothing is dropped in silence."""

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES
from PIL import Image, ImageOps

from latentzip.errors import ImageError
from latentzip.images import read_image, take_image

RGB = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 130, 70))
RGB.info.clear()
GREY = RGB.convert("L")


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def deep_png(samples: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, which Pillow reads as 8 bits."""
    from latentzip.images.deep_png import write_deep_png
    from latentzip.images.picture import Picture

    out = io.BytesIO()
    write_deep_png(out, Picture(samples, greyscale=False), {})
    return out.getvalue()


def test_rgb_is_taken_as_it_is() -> None:
    picture = read_image(saved(RGB))
    assert np.array_equal(picture.pixels, np.asarray(RGB))
    assert (picture.greyscale, picture.alpha, picture.remarks) == (False, None, ())


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_pictures_are_known_as_such(mode: str) -> None:
    picture = read_image(saved(RGB.convert(mode)))
    assert picture.greyscale
    assert np.array_equal(picture.pixels, np.asarray(RGB.convert(mode).convert("RGB")))
    assert picture.remarks == (("1-bit kept as greyscale",) if mode == "1" else ())


def test_tall_pictures_are_copied_whole() -> None:
    """Pixels are copied in strips."""
    samples = np.random.default_rng(0).integers(0, 256, (777, 3, 3), dtype=np.uint8)
    assert np.array_equal(take_image(Image.fromarray(samples)).pixels, samples)
    assert np.array_equal(take_image(Image.fromarray(samples[..., 0])).pixels, samples[..., :1].repeat(3, 2))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_becomes_8_bit(image_format: str) -> None:
    samples = np.array([[0, 128, 257, 65535]], dtype=np.uint16)
    picture = read_image(saved(Image.fromarray(samples), image_format))
    assert picture.greyscale
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 1, 255]
    assert picture.remarks == ("16-bit samples kept as 8-bit",)


def test_big_endian_16_bit_grey_is_read_as_such() -> None:
    samples = np.array([[0, 300, 40000, 65535]], dtype=np.uint16)
    image = Image.frombytes("I;16B", (4, 1), samples.astype(">u2").tobytes())
    assert take_image(image).pixels[0, :, 0].tolist() == [0, 1, 156, 255]


def test_16_bit_rgb_is_said_to_be_read_as_8_bit() -> None:
    picture = read_image(deep_png(np.asarray(RGB).astype(np.uint16) * 257))
    assert np.array_equal(picture.pixels, np.asarray(RGB))
    assert picture.remarks == ("16-bit samples kept as 8-bit",)


def test_floats_are_black_at_0_and_white_at_1() -> None:
    floats = np.array([[0, 0.5, 1, -0.05, 1.05]], dtype=np.float32)
    picture = read_image(saved(Image.fromarray(floats), "TIFF"))
    assert picture.greyscale
    assert picture.pixels[0, :, 0].tolist() == [0, 128, 255, 0, 255]
    assert "float samples" in picture.remarks[0]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([[0, 255]], np.float32), "from 0 to 255: only 0 .black. to 1"),
        (np.array([[0, np.nan]], np.float32), "float samples from nan"),
        (np.array([[0, np.inf]], np.float32), "to inf"),
        (np.array([[0, -70000]], np.int32), "32-bit samples from -70000 to 0"),
        (np.array([[0, 65536]], np.int32), "32-bit samples"),
    ],
)
def test_samples_of_no_known_range_are_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=r"^x\.tiff: has .*" + message):
        read_image(saved(Image.fromarray(samples), "TIFF"), name="x.tiff")


def test_palettes_are_resolved() -> None:
    palette = RGB.quantize(32)
    picture = read_image(saved(palette))
    assert np.array_equal(picture.pixels, np.asarray(palette.convert("RGB")))
    assert picture.remarks == ("palette resolved",)
    grey = read_image(saved(GREY.quantize(16), "GIF"))
    assert grey.greyscale
    assert np.array_equal(grey.pixels, np.asarray(GREY.quantize(16).convert("RGB")))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV"])
def test_other_colours_become_srgb(mode: str) -> None:
    if mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(RGB, srgb, lab, outputMode="LAB")
        through = take_image(image)  # the profile is in it
        assert through.remarks == ("LAB converted to sRGB through its profile",)
        assert np.abs(through.pixels.astype(int) - np.asarray(RGB)).max() <= 6
        del image.info["icc_profile"]
    else:
        image = RGB.convert(mode)
    picture = take_image(image)
    assert picture.remarks == (f"{mode} converted to sRGB",)
    assert not picture.greyscale
    assert np.abs(picture.pixels.astype(int) - np.asarray(RGB)).max() <= 6  # LAB and HSV in 8 bits are coarse


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        file = saved(RGB, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
        assert np.array_equal(read_image(file).pixels, np.asarray(upright)), orientation
    exif[0x0112] = 6  # the camera lay on its side
    assert np.array_equal(read_image(saved(RGB, exif=exif)).pixels, np.rot90(np.asarray(RGB), -1))


def test_damaged_exif_is_passed_over() -> None:
    for exif in (
        b"MM\0*\0\0\0\x08\0",
        b"II*\0\xff\xff\xff\xff",
        b"nonsense",
        b"MM\0*\0\0\0\x08\0\x05" + b"\x01\x12" * 9,
    ):
        picture = read_image(saved(RGB, exif=b"Exif\0\0" + exif), metadata="all")
        assert np.array_equal(picture.pixels, np.asarray(RGB))


def test_the_picture_of_a_phone_s_jpeg_is_taken() -> None:
    data = saved(RGB, "MPO", save_all=True, append_images=[RGB.resize((8, 8))], quality=95)
    assert read_image(data).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_and_pages_need_first_frame(image_format: str) -> None:
    quality = {"lossless": True} if image_format == "WEBP" else {}
    data = saved(RGB, image_format, save_all=True, append_images=[RGB.rotate(180), RGB.rotate(90)], **quality)
    with pytest.raises(ImageError, match="x: has 3 frames: give --first-frame"):
        read_image(data, name="x")
    picture = read_image(data, first_frame=True)
    assert picture.remarks[0] == "the first of 3 frames"
    assert np.abs(picture.pixels.astype(int) - np.asarray(RGB)).mean() < 8


def test_programs_are_not_run() -> None:
    with pytest.raises(ImageError, match=r"x\.eps: EPS is a program that draws"):
        read_image(saved(RGB, "EPS"), name="x.eps")


def test_whatever_a_decoder_raises_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("Unknown pixel format")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(ImageError, match=r"x: cannot be read .Unknown pixel format"):
        read_image(saved(RGB), name="x")


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = saved(RGB)
    for data, message in (
        (b"", "is empty"),
        (b"nonsense", "is text, not a picture"),
        (b"\x01nonsense", "not a picture that Pillow can read"),
        (whole[: len(whole) // 2], "is cut short or damaged"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(data, name="x")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png")
