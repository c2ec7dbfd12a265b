"""Pictures in and out: every mode is kept, converted or refused, and nothing is dropped in silence."""

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES
from PIL import Image, ImageCms

from latentzip.errors import ImageError
from latentzip.images import SAVE_OPTIONS, Picture, format_of, image_bytes, read_image

RGB = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 130, 70))


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def test_rgb_is_taken_as_it_is() -> None:
    picture = read_image(saved(RGB))
    assert np.array_equal(picture.pixels, np.asarray(RGB))
    assert not picture.greyscale


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_pictures_are_known_as_such(mode: str) -> None:
    picture = read_image(saved(RGB.convert(mode)))
    assert picture.greyscale
    assert np.array_equal(picture.pixels[..., 0], np.asarray(RGB.convert(mode).convert("L")))


def test_16_bit_grey_becomes_8_bit() -> None:
    samples = np.array([[0, 128, 257, 65535]], dtype=np.uint16)
    picture = read_image(saved(Image.fromarray(samples)))
    assert picture.greyscale
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 1, 255]


def test_palettes_and_cmyk_become_rgb() -> None:
    palette = RGB.quantize(32)
    assert np.array_equal(read_image(saved(palette)).pixels, np.asarray(palette.convert("RGB")))
    assert read_image(saved(RGB.convert("CMYK"), "TIFF")).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused_and_opaque_alpha_is_not(mode: str) -> None:
    image = RGB.convert(mode)
    picture = read_image(saved(image))
    assert picture.greyscale == (mode == "LA")
    image.putalpha(Image.new("L", image.size, 254))
    with pytest.raises(ImageError, match=r"x\.png: has transparency"):
        read_image(saved(image), name="x.png")


def test_transparent_palettes_are_refused() -> None:
    palette = RGB.quantize(8)
    with pytest.raises(ImageError, match="transparency"):
        read_image(saved(palette, transparency=0))


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    picture = read_image(saved(RGB, exif=exif))
    assert np.array_equal(picture.pixels, np.rot90(np.asarray(RGB), -1))


def test_a_colour_profile_is_converted() -> None:
    """In a profile with red and green exchanged, green samples mean red."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")
    image = Image.new("RGB", (4, 4), (10, 200, 30))
    for profile, meaning in ((srgb, (10, 200, 30)), (exchanged, (200, 10, 30)), (b"not a profile", (10, 200, 30))):
        difference = read_image(saved(image, icc_profile=profile)).pixels.astype(int) - meaning
        assert np.abs(difference).max() <= 2


def test_the_picture_of_a_phone_s_jpeg_is_taken() -> None:
    data = saved(RGB, "MPO", save_all=True, append_images=[RGB.resize((8, 8))], quality=95)
    assert read_image(data).pixels.shape == (20, 30, 3)


def test_animations_and_broken_files_are_refused(tmp_path: Path) -> None:
    frames = saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)])
    whole = saved(RGB)
    for data, message in (
        (frames, "2 frames"),
        (b"", "not a picture"),
        (b"nonsense", "not a picture"),
        (whole[: len(whole) // 2], "cannot be read"),
        (saved(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF"), "32-bit"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(data, name="x")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png")


@pytest.mark.parametrize("image_format", sorted(SAVE_OPTIONS))
@pytest.mark.parametrize("greyscale", [False, True])
def test_every_output_format_is_readable(image_format: str, greyscale: bool) -> None:
    grey = np.repeat(np.asarray(RGB.convert("L"))[..., None], 3, axis=2)
    pixels = grey if greyscale else np.asarray(RGB)
    back = Image.open(io.BytesIO(image_bytes(Picture(pixels, greyscale), image_format)))
    assert back.size == RGB.size
    assert np.abs(np.asarray(back.convert("RGB"), int) - pixels).mean() < 4
    if image_format in ("PNG", "TIFF", "JPEG", "PPM", "BMP"):
        assert back.mode == ("L" if greyscale else "RGB")


def test_formats_go_by_suffix() -> None:
    assert format_of(Path("a.JPG")) == "JPEG"
    for name in ("a", "a.pdf", "a.lz"):
        with pytest.raises(ImageError, match="not written as"):
            format_of(Path(name))
