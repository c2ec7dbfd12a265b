"""ICC profiles: known by what they say, kept without what colours do not need, and otherwise turned into sRGB."""

import io
import itertools
import struct
from collections.abc import Callable

import numpy as np
import pytest
from conftest import IMAGES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from test_images import GREY, RGB, saved

from latentzip.images import take_image
from latentzip.images.profiles import (
    KNOWN,
    ColourSpace,
    ProfileError,
    _text,
    build_profile,
    gamma_curve,
    known_profile,
    parse_profile,
    recognise,
    to_srgb,
)

LITTLECMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3, ADOBE, GREY_22 = known_profile(2), known_profile(3), known_profile(6)


def with_profile(image: Image.Image, profile: bytes) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, "TIFF", icc_profile=profile)))


def with_srgb_curve(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    light = linear / 255
    return np.rint(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255)


def tags_of(profile: bytes) -> set[bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    return {profile[132 + 12 * i : 136 + 12 * i] for i in range(count)}


@pytest.mark.parametrize("number", KNOWN)
def test_our_profiles_are_valid_and_known(number: int) -> None:
    profile = known_profile(number)
    assert recognise(profile) == number
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert KNOWN[number][0] in ImageCms.getProfileDescription(opened)
    assert opened.profile.xcolor_space.strip() == ("GRAY" if number in (6, 7) else "RGB")
    assert len(profile) == int.from_bytes(profile[:4], "big")
    mode = "L" if number in (6, 7) else "RGB"
    to_srgb(Image.new(mode, (2, 2)), profile)


# Rows of primaries in XYZ under D50, as the profiles of others have them: sRGB IEC61966-2.1 of Hewlett-Packard (1998),
# Display P3 of Apple (2017), AdobeRGB1998.icc (2000), ProPhoto RGB of Kodak, Rec. ITU-R BT.2020-1 of Apple
FOREIGN = {
    1: ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    2: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    3: ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    4: ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)),
    5: ((0.67348, 0.27904, -0.00194), (0.16566, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686)),
}


@pytest.mark.parametrize("number", FOREIGN)
def test_others_profiles_are_known_by_what_they_say(number: int) -> None:
    curves = KNOWN[number][1].curves
    assert recognise(build_profile(ColourSpace(FOREIGN[number], curves), "something else")) == number


def test_a_photograph_s_own_profile_is_known() -> None:
    """That of Hewlett-Packard, 1998, with curves of 1024 samples, as half of all photographs have it."""
    with Image.open(IMAGES / "chelsea.png") as photo:
        assert b"sRGB IEC61966-2.1" in photo.info["icc_profile"]
        assert len(photo.info["icc_profile"]) == 3144
        assert take_image(photo).metadata.profile == known_profile(1)


def test_curves_are_compared_as_curves() -> None:
    """A table of 1024 samples, as Hewlett-Packard's profile has, is sRGB's curve; a gamma of 2.2 is not."""
    assert recognise(LITTLECMS_SRGB) == 1
    x = np.linspace(0, 1, 1024)
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1024) + (table * 65535).round().astype(">u2").tobytes()
    srgb = KNOWN[1][1]
    assert recognise(build_profile(ColourSpace(srgb.columns, (curve,) * 3), "")) == 1
    assert recognise(build_profile(ColourSpace(srgb.columns, (gamma_curve(2.2),) * 3), "")) is None
    assert recognise(build_profile(ColourSpace((), (b"curv\0\0\0\0\0\0\0\x01\x02\x33",)), "")) == 6  # 2.2 as u8Fixed8


def test_pixels_stay_as_they_are_and_the_profile_comes_along() -> None:
    for image, profile in ((RGB, P3), (RGB, ADOBE), (RGB, LITTLECMS_SRGB), (GREY, GREY_22)):
        picture = take_image(with_profile(image, profile))
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
        assert picture.metadata.profile is not None
        assert recognise(picture.metadata.profile) == recognise(profile)
        assert picture.remarks == ()


def test_a_profile_of_its_own_is_kept_without_what_colours_do_not_need() -> None:
    """Nor its date, nor its texts, nor the number of somebody's display."""
    space = ColourSpace(KNOWN[1][1].columns, (gamma_curve(1.9),) * 3)
    profile = bytearray(build_profile(space, "display of Jane Doe, 2024-03-11"))
    profile[24:36] = struct.pack(">6H", 2024, 3, 11, 10, 20, 30)
    profile[48:52] = b"JANE"  # manufacturer
    kept = take_image(with_profile(RGB, bytes(profile))).metadata.profile
    assert kept is not None
    assert parse_profile(kept).is_like(space)
    for secret in ("Jane", "2024"):
        assert secret.encode() not in kept
        assert secret.encode("utf-16-be") not in kept
    assert struct.pack(">3H", 2024, 3, 11) not in kept
    assert b"JANE" not in kept
    assert tags_of(kept) == {b"desc", b"cprt", b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"}
    as_it_was = take_image(with_profile(RGB, bytes(profile)), metadata="all").metadata.profile
    assert as_it_was == bytes(profile)


def test_without_metadata_colours_become_srgb() -> None:
    for image, profile in ((RGB, P3), (RGB, ADOBE), (GREY, GREY_22)):
        picture = take_image(with_profile(image, profile), metadata="none")
        assert picture.metadata.profile is None
        assert picture.remarks == ("colours converted to sRGB",)
        assert np.array_equal(picture.pixels, np.asarray(to_srgb(image, profile).convert("RGB")))
        assert not np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    for image, profile in ((RGB, LITTLECMS_SRGB), (GREY, known_profile(7))):
        picture = take_image(with_profile(image, profile), metadata="none")
        assert (picture.metadata.profile, picture.remarks) == (None, ())
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


def test_conversion_goes_the_right_way() -> None:
    """In a profile with red and green exchanged, green samples mean red."""
    srgb = KNOWN[1][1]
    exchanged = ColourSpace((srgb.columns[1], srgb.columns[0], srgb.columns[2]), srgb.curves)
    image = Image.new("RGB", (4, 4), (10, 200, 30))
    picture = take_image(with_profile(image, build_profile(exchanged, "")), metadata="none")
    assert np.abs(picture.pixels.astype(int) - (200, 10, 30)).max() <= 1


def test_profiles_with_tables_are_gone_through() -> None:
    """LittleCMS makes them with tables (A2B0) for Lab."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert b"A2B0" in tags_of(lab)
    with pytest.raises(ProfileError, match="tables"):
        parse_profile(lab)


def profile_with_tables(space: bytes, lab_of: Callable[[tuple[int, ...]], tuple[float, float, float]]) -> bytes:
    """An output profile whose colours are Lab values at the corners of its samples' cube (lut8Type of ICC.1)."""
    inputs = 4 if space == b"CMYK" else 3
    corners = itertools.product((0, 1), repeat=inputs)
    grid = b"".join(bytes((round(L * 2.55), round(a) + 128, round(b) + 128)) for L, a, b in map(lab_of, corners))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i in (0, 4, 8)) for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes((inputs, 3, 2, 0)) + identity + ramp * inputs + grid + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": _text("tables"), b"cprt": _text("none"), b"wtpt": white, b"A2B0": table}
    head = bytearray(known_profile(1)[:128])
    head[12:24] = b"prtr" + space + b"Lab "
    offset, body, directory = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        directory += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head[:4] = struct.pack(">I", offset + len(body))
    return bytes(head) + struct.pack(">I", len(tags)) + directory + body


def test_cmyk_goes_through_its_profile() -> None:
    """On paper where cyan ink is a grey of L* 60 and the others are water, whatever Pillow thinks of cyan."""
    profile = profile_with_tables(b"CMYK", lambda inks: (60.0 if inks[0] else 100.0, 0.0, 0.0))
    picture = take_image(with_profile(Image.new("CMYK", (4, 4), (255, 0, 200, 0)), profile))
    assert picture.remarks == ("CMYK converted to sRGB through its profile",)
    assert picture.metadata.profile is None
    assert np.abs(picture.pixels.astype(int) - 145).max() <= 3  # sRGB's grey of L* 60
    plain = take_image(Image.new("CMYK", (4, 4), (255, 0, 200, 0)))
    assert plain.remarks == ("CMYK converted to sRGB",)
    assert plain.pixels[0, 0].tolist() == [0, 255, 55]


def test_rgb_goes_through_a_profile_with_tables() -> None:
    profile = profile_with_tables(b"RGB ", lambda rgb: (60.0 if rgb[0] else 0.0, 0.0, 0.0))
    for wish in ("icc", "all", "none"):
        picture = take_image(with_profile(Image.new("RGB", (4, 4), (255, 0, 200)), profile), metadata=wish)  # type: ignore[arg-type]
        assert picture.remarks == ("colours converted to sRGB (the profile has tables)",)
        assert picture.metadata.profile is None
        assert np.abs(picture.pixels.astype(int) - 145).max() <= 3


@pytest.mark.parametrize(
    ("gamma", "places", "expected"),
    [
        (0.45455, None, None),
        (0.45455, "sRGB", None),
        (1.0, "sRGB", "linear"),
        (0.45455, "P3", 2),
        (1 / 1.8, None, "1.8"),
        (0.0, None, None),
        (1.0, "nonsense", None),
    ],
)
@pytest.mark.parametrize("image", [RGB, GREY], ids=["RGB", "L"])
def test_a_png_s_gamma_is_its_profile(gamma: float, places: str | None, expected: object, image: Image.Image) -> None:
    chromaticities = {
        "sRGB": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
        "P3": (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
        "nonsense": (0,) * 8,
    }
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(gamma * 100000)))
    if places is not None:
        info.add(b"cHRM", struct.pack(">8I", *chromaticities[places]))
    picture = take_image(Image.open(io.BytesIO(saved(image, pnginfo=info))))
    profile = picture.metadata.profile
    if expected == "linear":
        assert picture.remarks == ("linear light kept with sRGB's curve",)
        assert recognise(profile or b"") == (1 if image is RGB else 7)
        assert np.array_equal(picture.pixels, with_srgb_curve(np.asarray(image.convert("RGB"))))
        return
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    if expected in (None, 2):
        assert (recognise(profile) if profile else None) == (expected if image is RGB else None)
    else:
        assert profile is not None
        space = ColourSpace(KNOWN[1][1].columns if image is RGB else (), (gamma_curve(1.8),) * len(image.getbands()))
        assert parse_profile(profile).is_like(space)
    info.add(b"sRGB", b"\0")
    assert take_image(Image.open(io.BytesIO(saved(image, pnginfo=info)))).metadata.profile is None


def test_profiles_that_do_not_fit_are_passed_over() -> None:
    for image, profile in ((RGB, GREY_22), (RGB, b"not a profile"), (RGB, P3[:200]), (GREY, LITTLECMS_SRGB[:140])):
        image.info.pop("icc_profile", None)
        copy = image.copy()
        copy.info["icc_profile"] = profile
        for wish in ("icc", "all", "none"):
            picture = take_image(copy, metadata=wish)  # type: ignore[arg-type]
            assert picture.metadata.profile is None
            assert "passed over" in picture.remarks[0]
            assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


def test_a_grey_picture_with_an_rgb_profile_has_its_greys() -> None:
    image = GREY.copy()
    image.info["icc_profile"] = ADOBE
    picture = take_image(image)
    assert picture.metadata.profile is not None
    assert recognise(picture.metadata.profile) == 6  # 563/256 is 2.2 to the accuracy of 8 bits
    assert picture.greyscale


@given(st.integers(0, len(LITTLECMS_SRGB) - 1), st.integers(0, 255), st.integers(0, len(LITTLECMS_SRGB)))
def test_damaged_profiles_raise_only_our_error(place: int, value: int, length: int) -> None:
    damaged = bytearray(LITTLECMS_SRGB)
    damaged[place] = value
    for data in (bytes(damaged), bytes(damaged[:length])):
        try:
            parse_profile(data)
        except ProfileError:
            continue
        recognise(data)
