"""Pictures out: every format can be read again, holds what it can hold, and says what it could not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from test_images import RGB
from test_transparency import RAMP

from latentzip.errors import ImageError, UsageError
from latentzip.images import SAVE_OPTIONS, Metadata, Picture, check_output_wishes, format_of, image_bytes, to_image
from latentzip.images.profiles import known_profile
from latentzip.images.writing import WITH_16_BITS, WITH_QUALITY, WITHOUT_ALPHA

COLOUR = np.asarray(RGB)
GREY = np.repeat(np.asarray(RGB.convert("L"))[..., None], 3, axis=2)


def reopened(picture: Picture, image_format: str, quality: int | None = None) -> Image.Image:
    return Image.open(io.BytesIO(image_bytes(picture, image_format, quality)[0]))


@pytest.mark.parametrize("image_format", sorted(SAVE_OPTIONS))
@pytest.mark.parametrize("greyscale", [False, True])
@pytest.mark.parametrize("alpha", [None, RAMP], ids=["opaque", "alpha"])
def test_every_output_format_is_readable(image_format: str, greyscale: bool, alpha: np.ndarray | None) -> None:
    pixels = GREY if greyscale else COLOUR
    data, remarks = image_bytes(Picture(pixels, greyscale, alpha), image_format)
    back = Image.open(io.BytesIO(data))
    assert back.size == RGB.size
    if alpha is None or image_format not in WITHOUT_ALPHA:
        expected, tolerance = pixels, 4.0
        assert remarks == ()
        if alpha is not None:
            planes = np.asarray(back.convert("RGBA"))
            # AVIF and JPEG 2000 as we write them round alpha a little
            assert np.abs(planes[..., 3].astype(int) - RAMP).max() <= (4 if image_format == "AVIF" else 0)
    else:
        share = RAMP[..., None] / 255
        expected, tolerance = (pixels * share + 255 * (1 - share)).round(), 4.0
        assert remarks == (f"transparency put on white: {image_format} has none",)
        assert not back.has_transparency_data
    visible = np.ones(RAMP.shape, bool) if alpha is None else RAMP > 30
    assert np.abs(np.asarray(back.convert("RGB"), int) - expected)[visible].mean() < tolerance
    if image_format in ("PNG", "TIFF", "JPEG", "PPM", "BMP"):
        has_alpha = alpha is not None and image_format not in WITHOUT_ALPHA
        assert back.mode == ("L" if greyscale else "RGB") + ("A" if has_alpha else "")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP", "BMP", "PPM"])
def test_formats_that_lose_nothing_by_default(image_format: str) -> None:
    assert np.array_equal(np.asarray(reopened(Picture(COLOUR, False), image_format)), COLOUR)


def test_quality_makes_smaller_files() -> None:
    for image_format in WITH_QUALITY:
        sizes = [len(image_bytes(Picture(COLOUR, False), image_format, quality)[0]) for quality in (5, 60, 100)]
        assert sizes == sorted(set(sizes)), image_format


def test_wishes_that_a_format_cannot_meet() -> None:
    check_output_wishes("JPEG", 80, 8)
    check_output_wishes("TIFF", None, 16)
    with pytest.raises(UsageError, match="--quality is for JPEG, WEBP, AVIF; PNG loses nothing"):
        check_output_wishes("PNG", 80, 8)
    with pytest.raises(UsageError, match="--bit-depth 16 is for PNG and TIFF, not for WEBP"):
        check_output_wishes("WEBP", None, 16)


def tiff_samples(data: bytes) -> np.ndarray:
    """Samples of a TIFF with 16 bits, by the book (TIFF 6.0) rather than by the code that wrote it."""
    import zlib

    tags = ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    assert (tags[259], tags[317], tags[284]) == (8, 2, 1)
    assert set(tags[258]) == {16}
    rows = b"".join(zlib.decompress(data[at : at + n]) for at, n in zip(tags[273], tags[279], strict=True))
    differences = np.frombuffer(rows, "<u2").reshape(tags[257], tags[256], tags[277])
    return np.cumsum(differences, axis=1, dtype=np.uint16)


def png_samples(data: bytes) -> np.ndarray:
    """Samples of a PNG with 16 bits whose rows have the filter Up, by the book (W3C PNG, third edition)."""
    import struct
    import zlib

    offset, stream, head = 8, b"", b""
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name, body = data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        assert zlib.crc32(name + body) == struct.unpack_from(">I", data, offset + 8 + length)[0]
        head, stream = body if name == b"IHDR" else head, stream + (body if name == b"IDAT" else b"")
        offset += 12 + length
    width, height, depth, _, *rest = struct.unpack(">IIBBBBB", head)
    assert (depth, rest) == (16, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(height, -1)
    assert set(rows[:, 0]) == {2}
    raw = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)
    return raw.reshape(height, width, -1, 2).astype(np.uint16) @ np.array([256, 1], np.uint16)


@pytest.mark.parametrize("image_format", WITH_16_BITS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 200)])
@pytest.mark.parametrize("greyscale", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_16_bits_are_written_whole(
    image_format: str, size: tuple[int, int], greyscale: bool, transparent: bool
) -> None:
    width, height = size
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 65536, (height, width, 1 if greyscale else 3), dtype=np.uint16)
    alpha = rng.integers(0, 256, (height, width), dtype=np.uint8) if transparent else None
    picture = Picture(pixels.repeat(3, 2) if greyscale else pixels, greyscale, alpha)
    data, _ = image_bytes(picture, image_format)
    samples = (png_samples if image_format == "PNG" else tiff_samples)(data)
    assert np.array_equal(samples[..., : pixels.shape[2]], pixels)
    if alpha is not None:
        assert np.array_equal(samples[..., -1], alpha.astype(np.uint16) * 257)
    if image_format == "TIFF" and greyscale and transparent:
        return  # Pillow cannot read such a file
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == size
        if greyscale and not transparent:
            assert np.array_equal(np.asarray(image), pixels[..., 0])


def test_pillow_gets_all_modes() -> None:
    for picture, mode in (
        (Picture(COLOUR, False), "RGB"),
        (Picture(GREY, True), "L"),
        (Picture(COLOUR, False, RAMP), "RGBA"),
        (Picture(GREY, True, RAMP), "LA"),
    ):
        image = to_image(picture)
        assert image.mode == mode
        assert np.array_equal(np.asarray(image.convert("RGB")), picture.pixels)


def test_formats_go_by_suffix() -> None:
    assert format_of(Path("a.JPG")) == "JPEG"
    for name in ("a", "a.pdf", "a.lz"):
        with pytest.raises(ImageError, match="not written as"):
            format_of(Path(name))


@pytest.mark.parametrize("image_format", sorted(SAVE_OPTIONS))
def test_damaged_metadata_of_a_file_does_not_cost_the_picture(image_format: str) -> None:
    """A .lz file may hold anything there."""
    for greyscale, profile, exif in (
        (False, b"not a profile", b"not Exif"),
        (True, b"not a profile", b"II*\0\xff\xff\xff\xff"),
        (True, known_profile(1), b"II*\0\x08\0\0\0\x01\0\x69\x87\x02\0\xff\0\0\0\xff\xff\0\0\0\0\0\0"),
        (False, known_profile(7), b""),
    ):
        picture = Picture(GREY, greyscale, metadata=Metadata(profile, exif, b"\xff not UTF-8"))
        data, remarks = image_bytes(picture, image_format)
        assert any("colour profile is damaged" in remark for remark in remarks)
        assert np.abs(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int) - GREY).mean() < 4


def test_what_a_format_cannot_hold_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"cannot be written as WEBP .*: use --format png"):
        image_bytes(Picture(np.zeros((1, 16384, 3), np.uint8), False), "WEBP")
