"""Samples in PNG and TIFF: of every depth, meaning and transparency the value that the specification gives.

PNG, third edition, 13.12 (sample depth) and 11.3.1.1 (tRNS); TIFF 6.0, sections 3 to 6, 18, 21 and 23. What is neither
right nor refused with a reason is a fault.
"""

import io
import itertools
import re
import zlib

import numpy as np
import pytest
from conftest import IMAGES
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from specimens import chunk, png, tiff, tiff_of
from test_images import RGB, saved

from latentzip.errors import ImageError
from latentzip.images import read_image, take_image

HEIGHT, WIDTH = 8, 14
WHITE_IS_ZERO, BLACK_IS_ZERO, TRUE_COLOUR, PALETTE, INKS, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, TRUE_COLOUR: 3, PALETTE: 1, INKS: 4, YCBCR: 3, LAB: 3}


def levels(samples: np.ndarray, bits: int) -> np.ndarray:
    """Of as many bits -> of 8, the nearest."""
    return np.floor(samples * (255 / (2**bits - 1)) + 0.5).astype(int)


def noise(bits: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(bits * 10 + channels)
    return rng.integers(0, 2**bits, (HEIGHT, WIDTH, channels))


def check(data: bytes, colours: np.ndarray, alpha: np.ndarray | None = None, slack: int = 0) -> None:
    """That a file is read as these colours, where they are seen, and this alpha."""
    picture = read_image(data, "x")
    seen = np.ones((HEIGHT, WIDTH), bool)
    if alpha is None or (alpha == 255).all():
        assert picture.alpha is None
    else:
        assert picture.alpha is not None
        assert np.abs(picture.alpha.astype(int) - alpha).max() <= slack
        seen = (alpha > 0) & (picture.alpha > 0)
    assert np.abs(picture.pixels.astype(int) - colours)[seen].max() <= slack


GREY, COLOURED, INDEXED, GREY_ALPHA, COLOURED_ALPHA = 0, 2, 3, 4, 6
PNG_KINDS = [(GREY, bits) for bits in (1, 2, 4, 8, 16)] + [(INDEXED, bits) for bits in (1, 2, 4, 8)]
PNG_KINDS += [(kind, bits) for kind in (COLOURED, GREY_ALPHA, COLOURED_ALPHA) for bits in (8, 16)]


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("kind", "bits"), PNG_KINDS)
def test_png(kind: int, bits: int, transparent: bool) -> None:
    channels = {GREY: 1, COLOURED: 3, INDEXED: 1, GREY_ALPHA: 2, COLOURED_ALPHA: 4}[kind]
    samples, chunks = noise(bits, channels), []
    alpha = None
    # where there are colours and alpha, Pillow hands over the upper byte of 16 bits, which PNG allows
    slack = int(bits == 16 and kind != GREY)
    if kind == INDEXED:
        rng = np.random.default_rng(0)
        palette = rng.integers(0, 256, (2**bits, 3))
        chunks.append((b"PLTE", palette.astype(np.uint8).tobytes()))
        colours = palette[samples[..., 0]]
        if transparent:  # of the first half of the palette; the others are opaque
            first = rng.integers(1, 255, 2 ** (bits - 1))
            chunks.append((b"tRNS", first.astype(np.uint8).tobytes()))
            alpha = np.append(first, [255] * len(first))[samples[..., 0]]
    else:
        grey = kind in (GREY, GREY_ALPHA)
        shown = samples[..., : 1 if grey else 3]
        if kind in (GREY_ALPHA, COLOURED_ALPHA):
            if not transparent:
                samples[..., -1] = 2**bits - 1
            alpha = levels(samples[..., -1], bits)
        elif transparent:
            clear = shown[3, 5].copy()
            shown[:, :5] = clear
            shown[2] = clear ^ 1  # differs in the last bit alone
            chunks.append((b"tRNS", clear.astype(">u2").tobytes()))
            alpha = np.where((shown == clear).all(axis=2), 0, 255)
        colours = levels(shown, bits).repeat(3 if grey else 1, axis=2)
        assert read_image(png(samples, bits, kind, *chunks)).greyscale == grey
    check(png(samples, bits, kind, *chunks), colours, alpha, slack)


def test_transparent_samples_are_told_by_as_many_bits_as_there_are() -> None:
    """PNG: of the 16 bits of tRNS the lower ones count, and the others are nothing's."""
    grey = np.array([[[9], [10]]])
    for bits, clear in ((4, b"\0\x0a"), (4, b"\x77\x1a"), (8, b"\0\x0a"), (8, b"\x77\x0a")):
        assert read_image(png(grey, bits, GREY, (b"tRNS", clear))).alpha.tolist() == [[255, 0]]  # type: ignore[union-attr]
    coloured = grey.repeat(3, axis=2)
    assert read_image(png(coloured, 8, COLOURED, (b"tRNS", b"\x77\x0a" * 3))).alpha.tolist() == [[255, 0]]  # type: ignore[union-attr]


def test_a_second_look_sees_the_same() -> None:
    """Once a picture is loaded, Pillow no longer says how many bits it had."""
    grey = Image.open(io.BytesIO(png(noise(4, 1), 4, GREY, (b"tRNS", b"\0\x0f"))))
    first, second = take_image(grey), take_image(grey)
    assert first.alpha is not None
    assert np.array_equal(first.alpha, second.alpha)
    assert np.array_equal(first.pixels, second.pixels)


def test_grey_palettes_stay_grey_with_their_transparency() -> None:
    palette = (b"PLTE", bytes([0, 0, 0, 90, 90, 90]))
    picture = read_image(png(np.array([[[0], [1]]]), 1, INDEXED, palette, (b"tRNS", b"\x40")))
    assert picture.greyscale
    assert picture.remarks == ("palette resolved",)
    assert picture.alpha.tolist() == [[64, 255]]  # type: ignore[union-attr]
    assert picture.pixels[..., 0].tolist() == [[0, 90]]


def rgb_of_ycbcr(samples: np.ndarray, red: float, green: float, blue: float, black: int, white: int) -> np.ndarray:
    """TIFF 6.0, section 21: (..., 3) -> the same shape, with the coefficients of luma and the range of samples."""
    luma = (samples[..., 0] - black) * 255 / (white - black)
    half = 127 if white == 255 else 112
    cb, cr = (samples[..., i] * 1.0 - 128 for i in (1, 2))
    r, b = luma + (2 - 2 * red) * cr * 127 / half, luma + (2 - 2 * blue) * cb * 127 / half
    return np.rint(np.stack([r, (luma - red * r - blue * b) / green, b], axis=-1)).clip(0, 255)


def shown(samples: np.ndarray, bits: int, photometric: int, palette: np.ndarray) -> np.ndarray:
    if photometric == PALETTE:
        return palette[samples[..., 0]]
    if photometric == YCBCR:
        return rgb_of_ycbcr(samples, 0.299, 0.587, 0.114, 0, 255)
    values = samples * 255 / (2**bits - 1)
    if photometric == INKS:  # without a profile, as much light is left as the inks let through
        return np.rint((255 - values[..., :3]) * (255 - values[..., 3:4]) / 255)
    if photometric == WHITE_IS_ZERO:
        values = 255 - values
    return np.floor(values[..., : min(3, CHANNELS[photometric])] + 0.5).repeat(3 // CHANNELS[photometric], axis=2)


# Meaning, bits, ExtraSamples (0: something else, 1: alpha that colours are multiplied with, 2: alpha) of what is read,
# of either order of bytes unless only "<" is
TIFF_KINDS = [(photometric, bits, (), "<>") for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8)]
TIFF_KINDS += [(WHITE_IS_ZERO, 16, (), "<"), (BLACK_IS_ZERO, 12, (), "<"), (BLACK_IS_ZERO, 16, (), "<>")]
TIFF_KINDS += [(BLACK_IS_ZERO, 8, extra, "<>") for extra in ((0,), (1,), (2,))]
TIFF_KINDS += [(TRUE_COLOUR, bits, extra, "<>") for bits in (8, 16) for extra in ((), (0,), (1,), (2,))]
TIFF_KINDS += [(TRUE_COLOUR, 8, extra, "<>") for extra in ((0, 0), (1, 0), (2, 0))]
TIFF_KINDS += [(PALETTE, bits, (), "<>") for bits in (1, 2, 4, 8)]
TIFF_KINDS += [(PALETTE, 8, extra, "<>") for extra in ((0,), (2,))]
TIFF_KINDS += [(INKS, 8, (), "<>"), (INKS, 8, (0,), "<>"), (INKS, 16, (), "<>"), (YCBCR, 8, (), "<>")]
REFUSED = "in planes, which Pillow misreads|unknown raw mode|decoder error|a TIFF that Pillow cannot read"


def refusal(data: bytes, colours: np.ndarray, alpha: np.ndarray | None, slack: int) -> str | None:
    """Why a file is not read. If it is, it is checked."""
    try:
        check(data, colours, alpha, slack)
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("planes", [False, True], ids=["chunky", "planes"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize(("photometric", "bits", "extra", "orders"), TIFF_KINDS)
def test_tiff(photometric: int, bits: int, extra: tuple[int, ...], orders: str, compressed: bool, planes: bool) -> None:
    """In planes and with the bits reversed some are refused, and none is misread; as they usually are, all are read."""
    channels = CHANNELS[photometric]
    samples, top = noise(bits, channels + len(extra)), 2**bits - 1
    palette = np.random.default_rng(0).integers(0, 256, (top + 1, 3))
    tags = {"t320": ("H", (palette.T * 257).ravel().tolist())} if photometric == PALETTE else {}
    tags |= {"t530": ("H", [1, 1])} if photometric == YCBCR else {}
    colours, alpha = shown(samples, bits, photometric, palette), None
    slack = 2 if bits == 16 and channels > 1 else 0  # Pillow hands over upper bytes, from which inks are mixed
    if extra[:1] in ((1,), (2,)):
        if extra[0] == 1:
            samples[..., channels] |= top // 2 + 1  # else little is left of the colours
            samples[..., :channels] = samples[..., :channels] * samples[..., channels:][..., :1] // top
            divided = samples[..., :channels] * top / samples[..., channels:][..., :1]
            colours = shown(divided, bits, photometric, palette)
            slack = max(slack, 1) + int(bits == 16)
        alpha = levels(samples[..., channels], bits)
    for order, reversed_bits in itertools.product(orders, (False, True)):
        data = tiff(
            samples,
            bits,
            photometric,
            extra,
            order=order,
            planes=planes,
            compressed=compressed,
            reversed_bits=reversed_bits,
            **tags,  # type: ignore[arg-type]
        )
        reason = refusal(data, colours, alpha, slack)
        if reason is not None:
            assert reversed_bits or (planes and extra)
            assert re.search(REFUSED, reason)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_tiff_of_floats(photometric: int, compressed: bool, order: str) -> None:
    """0 and 1 in the other order of bytes are next to 0, both."""
    samples = np.random.default_rng(0).random((HEIGHT, WIDTH, 1)).astype(np.float32)
    samples[0, :2, 0] = 0, 1
    colours = np.rint((1 - samples if photometric == WHITE_IS_ZERO else samples) * 255).repeat(3, axis=2)
    check(tiff(samples, 32, photometric, order=order, sample_format=3, compressed=compressed), colours)


def test_tiff_of_lab() -> None:
    """TIFF 6.0, section 23, under D50: by the way of XYZ to sRGB (IEC 61966-2-1, Bradford)."""
    lab = np.random.default_rng(0).integers((50, -12, -12), (70, 13, 13), (HEIGHT, WIDTH, 3))
    lightness, a, b = np.rint(lab[..., 0] * 2.55) / 2.55, lab[..., 1], lab[..., 2]
    y = (lightness + 16) / 116
    xyz = np.stack([y + a / 500, y, y - b / 200], axis=-1) ** 3 * (0.9642, 1.0, 0.8249)
    red, green = (3.1338561, -1.6168667, -0.4906146), (-0.9787684, 1.9161415, 0.033454)
    blue = (0.0719453, -0.2289914, 1.4052427)
    light = xyz @ np.transpose([red, green, blue])
    colours = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    samples = np.stack([np.rint(lab[..., 0] * 2.55), a & 255, b & 255], axis=-1)
    for compressed in (False, True):
        check(tiff(samples, 8, LAB, compressed=compressed), colours, slack=3)  # LittleCMS goes by a grid of colours
    with pytest.raises(ImageError, match="LAB samples in planes"):
        read_image(tiff(samples, 8, LAB, planes=True), "x")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("coefficients", [(299, 587, 114), (213, 715, 72)])
@pytest.mark.parametrize(("black", "white"), [(0, 255), (16, 235)])
@pytest.mark.parametrize("said", [False, True])
def test_tiff_of_ycbcr_with_fewer_colours(
    said: bool, black: int, white: int, coefficients: tuple[int, ...], compressed: bool
) -> None:
    """Two by two pixels have one Cb and one Cr, which need not be said; luma and range are as the file says."""
    rng = np.random.default_rng(0)
    luma, chroma = rng.integers(60, 200, (4, 7, 4)), rng.integers(90, 160, (4, 7, 2))
    units = np.concatenate([luma, chroma], axis=2).astype(np.uint8).tobytes()
    full = luma.reshape(4, 7, 2, 2).swapaxes(1, 2).reshape(8, 14, 1)
    samples = np.concatenate([full, chroma.repeat(2, 0).repeat(2, 1)], axis=2)
    tags = {256: ("I", [14]), 257: ("I", [8]), 258: ("H", [8, 8, 8]), 259: ("H", [8 if compressed else 1])}
    tags |= {262: ("H", [YCBCR]), 277: ("H", [3]), 278: ("I", [8])}
    tags |= {529: ("R", [n for part in coefficients for n in (part, 1000)])}
    range_of_chroma = 128 + (127 if white == 255 else 112)
    tags |= {532: ("R", [n for edge in (black, white, *(128, range_of_chroma) * 2) for n in (edge, 1)])}
    tags |= {530: ("H", [2, 2])} if said else {}
    data = tiff_of([zlib.compress(units) if compressed else units], "<", tags)
    colours = rgb_of_ycbcr(samples, *(part / 1000 for part in coefficients), black, white)  # type: ignore[misc]
    check(data, colours, slack=3)  # libtiff's integers


def test_palettes_of_8_bits_in_tiff_are_known() -> None:
    """TIFF wants 16 bits; what is below 256 throughout is meant to be seen all the same."""
    samples = noise(2, 1)
    palette = np.array([[0, 0, 0], [250, 10, 20], [3, 200, 9], [255, 255, 255]])
    check(tiff(samples, 2, PALETTE, t320=("H", palette.T.ravel().tolist())), palette[samples[..., 0]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(noise(8, 1) // 2, 8, BLACK_IS_ZERO, sample_format=2), "signed samples, and nothing says"),
        (tiff(noise(16, 1) // 2, 16, BLACK_IS_ZERO, sample_format=2), "signed samples, and nothing says"),
        (tiff(noise(8, 4), 8, INKS, t332=("H", [2])), "other inks than cyan, magenta, yellow and black"),
        (tiff(noise(8, 2), 8, BLACK_IS_ZERO, (2,), planes=True), "LA samples in planes"),
        (tiff(noise(32, 1), 32, BLACK_IS_ZERO), "has 32-bit samples from"),
    ],
)
def test_samples_that_nobody_can_say_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=f"^x: .*{message}"):
        read_image(data, "x")


def test_what_pillow_has_misread_already_is_refused() -> None:
    data = tiff(noise(16, 3), 16, TRUE_COLOUR, planes=True)
    image = Image.open(io.BytesIO(data))
    first = take_image(image)
    assert np.array_equal(take_image(image).pixels, first.pixels)  # loaded, but by us
    image = Image.open(io.BytesIO(data))
    image.load()
    with pytest.raises(ImageError, match="hand it over before it is loaded"):
        take_image(image)


def deep_files() -> list[tuple[str, bytes]]:
    wide = Image.fromarray(np.full((16, 16), 40000, np.uint16))
    ppm = b"P6 2 1 4095\n" + np.arange(0, 4096, 800).astype(">u2").tobytes()
    sgi = saved(RGB.convert("L"), "SGI", bpc=2)
    return [
        ("12", ppm),
        ("12", b"P3 1 1 4000\n1 2 3\n"),
        ("16", b"P6 1 1 65535\n" + bytes(6)),
        ("16", sgi),
        ("16", saved(wide, "JPEG2000")),
        ("16", saved(wide, "JPEG2000", no_jp2=True)),
        ("12", tiff(noise(12, 1), 12, BLACK_IS_ZERO)),
        ("16", tiff(noise(16, 3), 16, TRUE_COLOUR, planes=True)),
        ("16", png(noise(16, 4), 16, COLOURED_ALPHA)),
    ]


@pytest.mark.parametrize(("bits", "data"), deep_files())
def test_that_8_bits_are_kept_of_more_is_said(bits: str, data: bytes) -> None:
    assert read_image(data, "x").remarks[0] == f"{bits}-bit samples kept as 8-bit"


@pytest.mark.parametrize("image_format", ["PPM", "SGI", "AVIF", "JPEG2000", "TIFF", "PNG", "WEBP"])
def test_and_nothing_of_8_bits(image_format: str) -> None:
    assert read_image(saved(RGB, image_format)).remarks == ()
    with Image.open(IMAGES / "chelsea.png") as photo:
        assert take_image(photo).remarks == ()


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_long_texts_do_not_refuse_a_picture(kind: bytes, behind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.PngImagePlugin.MAX_TEXT_MEMORY", 2_000_000)  # it is 64 MB
    text = b"Comment\0" + {b"zTXt": b"\0", b"iTXt": b"\1\0\0\0", b"tEXt": b""}[kind]
    text += bytes(3_000_000) if kind == b"tEXt" else zlib.compress(bytes(3_000_000))
    samples = noise(8, 3)
    around = {"after": chunk(kind, text)} if behind else {}
    data = png(samples, 8, COLOURED, *([] if behind else [(kind, text)]), **around)  # type: ignore[arg-type]
    check(data, samples)


def test_xmp_stays_beside_long_texts() -> None:
    for packed in (False, True):
        info = PngInfo()
        info.add_text("Comment", "x" * 5000)
        info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>" + " " * 3000 + "<!-- end -->", zip=packed)
        picture = read_image(saved(RGB, pnginfo=info), metadata="all")
        assert picture.metadata.xmp is not None
        assert picture.metadata.xmp.endswith(b"<!-- end -->")
    info.add_itxt("XML:com.adobe.xmp", "<!-- " + "x" * 2**21, zip=True)
    assert read_image(saved(RGB, pnginfo=info)).metadata.xmp is None


def test_a_png_s_profile_that_is_too_long_is_refused() -> None:
    data = saved(RGB, icc_profile=bytes(2**21))
    with pytest.raises(ImageError, match=r"^x: has a colour profile of more than 1 MB: convert it"):
        read_image(data, "x")


def test_libtiff_does_not_speak_for_itself(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(tiff(noise(8, 3), 8, TRUE_COLOUR, compressed=True))
    data[8:12] = b"nope"
    with pytest.raises(ImageError, match=r"^x: cannot be read"):
        read_image(bytes(data), "x")
    assert capfd.readouterr() == ("", "")
