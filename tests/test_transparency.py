"""Alpha: kept to the bit, put on a background, or dropped; and what nobody sees costs nothing."""

import io

import numpy as np
import pytest
from conftest import IMAGES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import GREY, RGB, saved

from latentzip.errors import FormatError, UsageError
from latentzip.images import check_alpha_wish, read_image, take_image, transparency
from latentzip.images.transparency import fill_hidden, pack_alpha, parse_alpha

RAMP = np.tile(np.linspace(1, 255, 30).round().astype(np.uint8), (20, 1))


def with_alpha(image: Image.Image, alpha: np.ndarray = RAMP) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize(("image", "image_format"), [(RGB, "PNG"), (RGB, "TIFF"), (RGB, "WEBP"), (GREY, "PNG")])
def test_alpha_is_kept(image: Image.Image, image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    picture = read_image(saved(with_alpha(image), image_format, **options))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, RAMP)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.greyscale == (image.mode == "L")


def test_premultiplied_colours_are_divided_again() -> None:
    half = with_alpha(RGB, np.full_like(RAMP, 128))
    for mode in ("RGBa", "La"):
        source = half if mode == "RGBa" else half.convert("LA")
        picture = take_image(source.convert(mode))
        assert np.array_equal(picture.alpha, np.full_like(RAMP, 128))
        assert np.abs(picture.pixels.astype(int) - np.asarray(source.convert("RGB"))).max() <= 1


def test_opaque_alpha_is_not_kept() -> None:
    for image in (RGB.convert("RGBA"), GREY.convert("LA"), RGB.convert("RGBA").convert("PA")):
        picture = take_image(image)
        assert picture.alpha is None
        assert picture.greyscale == (image.mode == "LA")


def test_transparent_colours_of_palettes_and_of_png_become_alpha() -> None:
    palette = RGB.quantize(8)
    clear = np.asarray(palette) == 3
    for image_format in ("PNG", "GIF"):
        picture = read_image(saved(palette, image_format, transparency=3))
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha == 0, clear)
    grey = Image.fromarray(np.array([[9, 10, 11]], np.uint8))
    assert read_image(saved(grey, transparency=10)).alpha.tolist() == [[255, 0, 255]]  # type: ignore[union-attr]
    assert read_image(saved(grey.convert("RGB"), transparency=(10, 10, 10))).alpha.tolist() == [[255, 0, 255]]  # type: ignore[union-attr]
    bits = grey.point([0] * 10 + [255] * 246, "1")
    assert read_image(saved(bits, transparency=0)).alpha.tolist() == [[0, 255, 255]]  # type: ignore[union-attr]
    deep = Image.fromarray(np.array([[9, 3000, 11]], np.uint16))
    assert read_image(saved(deep, transparency=3000)).alpha.tolist() == [[255, 0, 255]]  # type: ignore[union-attr]


@pytest.mark.parametrize(("wish", "colour"), [("white", 255), ("black", 0), ("#336699", (0x33, 0x66, 0x99))])
def test_pictures_are_put_on_a_background(wish: str, colour: object) -> None:
    alpha = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    for image in (RGB, GREY):
        picture = take_image(with_alpha(image, alpha), alpha=wish)
        assert picture.alpha is None
        assert picture.greyscale == (image is GREY and wish != "#336699")
        expected = np.where(alpha[..., None] == 255, np.asarray(image.convert("RGB")), colour)
        assert np.array_equal(picture.pixels, expected)


def test_alpha_is_dropped_on_request() -> None:
    picture = take_image(with_alpha(RGB, RAMP * 0), alpha="drop")
    assert picture.alpha is None
    assert np.array_equal(picture.pixels, np.asarray(RGB))


def test_wishes_that_mean_nothing_are_refused() -> None:
    for wish in ("keep", "drop", "white", "#123456", "#fff"):
        check_alpha_wish(wish)
    with pytest.raises(UsageError, match="--alpha transparent-ish: give keep, drop, or a colour"):
        check_alpha_wish("transparent-ish")


def test_hidden_colours_continue_the_visible_ones() -> None:
    """A disc of one colour on garbage becomes all that colour, and visible pixels stay as they are to the bit."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    y, x = np.mgrid[:61, :83]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 200
    pixels[disc] = (200, 100, 50)
    alpha = Image.fromarray(np.where(disc, 9, 0).astype(np.uint8))
    filled = np.asarray(fill_hidden(Image.fromarray(pixels), alpha))
    assert np.abs(filled.astype(int) - (200, 100, 50)).max() <= 3  # each level rounds to 8 bits
    photo = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((0, 0, 83, 61))
    mask = Image.fromarray(np.where(disc, 255, 0).astype(np.uint8))
    kept = fill_hidden(photo, mask)
    assert np.array_equal(np.asarray(kept)[disc], np.asarray(photo)[disc])
    assert np.asarray(kept)[0, 0].tolist() != np.asarray(photo)[0, 0].tolist()
    assert fill_hidden(photo, Image.new("L", photo.size, 1)) is photo


def test_a_picture_that_nobody_can_see_is_plain() -> None:
    for image in (RGB, GREY):
        picture = take_image(with_alpha(image, RAMP * 0))
        assert len(np.unique(picture.pixels)) == 1
        assert picture.alpha is not None
        assert not picture.alpha.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 256), st.integers(1, 70))
def test_planes_come_back_to_the_bit(width: int, height: int, values: int, tile: int) -> None:
    plane = np.random.default_rng(width).integers(0, values, (height, width)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transparency, "TILE", tile)
        packed = pack_alpha(plane)
        assert np.array_equal(parse_alpha(packed, (height, width)), plane)
        if width > 1 and len(packed) > 1:
            for wrong in ((height, width - 1), (height + 1, width)):
                with pytest.raises(FormatError):
                    parse_alpha(packed, wrong)


def test_constant_planes_take_one_byte() -> None:
    assert pack_alpha(np.full((900, 700), 77, np.uint8)) == b"\x4d"
    assert np.array_equal(parse_alpha(b"\x4d", (9, 7)), np.full((9, 7), 77))


def test_planes_that_are_damaged_or_not_what_they_say_are_refused() -> None:
    plane = RAMP
    packed = pack_alpha(plane)
    out = io.BytesIO()
    Image.fromarray(plane).save(out, "WEBP", quality=50)
    larger = bytearray(packed)
    larger[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")  # 16384 pixels a side, it says
    for data in (
        b"",
        packed[:-1],
        packed + b"\0",
        packed[:20],
        packed[:30] + bytes(len(packed) - 30),
        saved(Image.fromarray(plane)),
        out.getvalue(),
        bytes(larger),
        packed * 2,
    ):
        with pytest.raises(FormatError, match="its alpha"):
            parse_alpha(data, (20, 30))
