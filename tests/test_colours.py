"""Colours that a file describes otherwise than by an ICC profile: none is passed over."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from specimens import png
from test_images import GREY, RGB, saved
from test_profiles import P3, with_srgb_curve

from latentzip import register
from latentzip.container import parse
from latentzip.errors import ImageError
from latentzip.extras import parse_metadata
from latentzip.images import Picture, read_image, take_image
from latentzip.images.boxes import Said, read_heif, read_jp2
from latentzip.images.codepoints import CURVES, PRIMARIES, CodePoints, space_of
from latentzip.images.profiles import (
    ADOBE_PRIMARIES,
    KNOWN,
    P3_PRIMARIES,
    SRGB_PRIMARIES,
    ColourSpace,
    build_profile,
    gamma_curve,
    known_profile,
    parse_profile,
    recognise,
)

FLAT = Image.new("RGB", (64, 64), (180, 90, 60))


def avif(primaries: int, transfer: int, image: Image.Image = FLAT, **options: object) -> bytes:
    """An AVIF whose nclx, which is sRGB's in Pillow's files, says something else."""
    data = saved(image, "AVIF", quality=100, **options)
    assert b"nclx\0\1\0\x0d" in data
    return data.replace(b"nclx\0\1\0\x0d", b"nclx" + struct.pack(">HH", primaries, transfer))


def with_cicp(
    image: Image.Image, primaries: int, transfer: int, full: int = 1, *chunks: tuple[bytes, bytes], **options: object
) -> bytes:
    info = PngInfo()
    for kind, data in ((b"cICP", bytes((primaries, transfer, 0, full))), *chunks):
        info.add(kind, data)
    return saved(image, pnginfo=info, **options)


def space(picture: Picture) -> int | None:
    return recognise(picture.metadata.profile) if picture.metadata.profile else None


@pytest.mark.parametrize(
    ("primaries", "transfer", "number"),
    [(1, 13, None), (2, 2, None), (1, 2, None), (12, 13, 2), (12, 2, 2), (9, 14, 5), (9, 15, 5), (9, 1, 5)],
)
def test_code_points_are_a_profile(primaries: int, transfer: int, number: int | None) -> None:
    """Display P3, Rec. 2020, and what is sRGB because it says so or says nothing."""
    plain = read_image(saved(FLAT, "AVIF", quality=100))
    for data in (avif(primaries, transfer), with_cicp(FLAT, primaries, transfer)):
        picture = read_image(data, "x")
        assert space(picture) == number
        assert picture.remarks == ()
        assert np.abs(picture.pixels.astype(int) - plain.pixels).max() <= 2  # AVIF at its best loses as much
    with_alpha = FLAT.copy()
    with_alpha.putalpha(99)
    assert space(read_image(avif(primaries, transfer, with_alpha))) == number
    frames = avif(primaries, transfer, save_all=True, append_images=[FLAT.rotate(90)])
    assert space(read_image(frames, first_frame=True)) == number


@pytest.mark.parametrize("data", [avif(12, 13), with_cicp(FLAT, 12, 13)], ids=["AVIF", "PNG"])
def test_code_points_are_found_in_pictures_that_are_loaded(data: bytes, tmp_path: Path) -> None:
    """As Pillow's own `save` loads them, before any format sees them; the file must still be there."""
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        image = Image.open(source)
        assert space(take_image(image)) == 2
    image = Image.open(path)
    image.load()
    assert space(take_image(image)) == 2
    path.unlink()
    assert space(take_image(image)) is None


def test_code_points_are_found_where_pillow_saves(tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """With other metadata too, for which the picture is copied."""
    register()
    path, target = tmp_path / "p3.avif", tmp_path / "p3.lz"
    path.write_bytes(avif(12, 13))
    for more in ({}, {"xmp": b"<x:xmpmeta/>"}):
        with Image.open(path) as image:
            image.save(target, model=tiny_weights["vq"], **more)
        assert recognise(parse_metadata(parse(target.read_bytes())).profile or b"") == 2
    path.write_bytes(avif(9, 16))
    for more in ({}, {"xmp": b"<x:xmpmeta/>"}):
        with Image.open(path) as image, pytest.raises(OSError, match=r"is HDR .PQ."):
            image.save(target, model=tiny_weights["vq"], **more)


@pytest.mark.parametrize("primaries", PRIMARIES)
@pytest.mark.parametrize("transfer", CURVES)
def test_all_of_sdr_are_spaces(primaries: int, transfer: int) -> None:
    """White is white: the primaries' XYZ add up to D50; and the profile is one that LittleCMS uses."""
    found = space_of(CodePoints(primaries, transfer))
    assert found is not None
    assert np.allclose(np.sum(found.columns, axis=0), (0.9642, 1.0, 0.8249), atol=1e-4)
    assert parse_profile(build_profile(found, "")).is_like(found)


def test_curves_are_h_273_s() -> None:
    """Table 3: from linear light to samples, and back by the curve. 17 says how bright white is; here it is 1."""
    light = np.linspace(0, 1, 33)
    with np.errstate(invalid="ignore"):
        video = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
        smpte = np.where(light < 0.0228, 4 * light, 1.1115 * light**0.45 - 0.1115)
        srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    samples = {1: video, 6: video, 14: video, 15: video, 11: video, 12: video, 7: smpte, 13: srgb, 8: light}
    samples |= {4: light ** (1 / 2.2), 5: light ** (1 / 2.8), 17: light ** (1 / 2.6), 2: srgb}
    assert samples.keys() == CURVES.keys()
    for number, values in samples.items():
        g, *rest = (n / 65536 for n in struct.unpack(f">{(len(CURVES[number]) - 12) // 4}i", CURVES[number][12:]))
        if rest:
            a, b, c, d = rest
            back = np.where(values >= d, np.maximum(a * values + b, 0) ** g, c * values)
        else:
            back = values**g
        assert np.abs(back - light).max() < 1e-3, number


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(transfer: int, name: str) -> None:
    profile = bytearray(build_profile(KNOWN[5][1], "HDR"))
    tag = b"cicp\0\0\0\0" + bytes((9, transfer, 0, 1))
    # one more tag, before those that are there: the table grows by 12 bytes
    count = int.from_bytes(profile[128:132], "big")
    for i in range(count):
        place = 132 + 12 * i + 4
        profile[place : place + 4] = (int.from_bytes(profile[place : place + 4], "big") + 12).to_bytes(4, "big")
    entry = b"cicp" + struct.pack(">II", len(profile) + 12, len(tag))
    whole = bytes(profile[:128]) + (count + 1).to_bytes(4, "big") + entry + bytes(profile[132:]) + tag
    for data in (avif(9, transfer), with_cicp(FLAT, 9, transfer), saved(FLAT, "TIFF", icc_profile=whole)):
        for metadata in ("icc", "all", "none"):
            with pytest.raises(ImageError, match=rf"^x: is HDR \({name}\).*: map its tones to SDR first"):
                read_image(data, "x", metadata=metadata)  # type: ignore[arg-type]


def test_linear_light_gets_srgb_s_curve() -> None:
    for image, number in ((RGB, 2), (GREY, 7)):
        picture = read_image(with_cicp(image, 12, 8))
        assert picture.remarks == ("linear light kept with sRGB's curve",)
        assert space(picture) == number
        assert np.array_equal(picture.pixels, with_srgb_curve(np.asarray(image.convert("RGB"))))
    assert read_image(avif(1, 8)).remarks == ("linear light kept with sRGB's curve",)
    plain = read_image(with_cicp(RGB, 1, 8), metadata="none")
    assert plain.metadata.profile is None
    assert np.array_equal(plain.pixels, with_srgb_curve(np.asarray(RGB)))
    kept = read_image(with_cicp(RGB, 1, 8), metadata="all")
    assert np.array_equal(kept.pixels, np.asarray(RGB))
    assert parse_profile(kept.metadata.profile or b"").linear


@pytest.mark.parametrize(("primaries", "transfer"), [(3, 13), (200, 13), (1, 9), (1, 10), (1, 99)])
def test_code_points_that_mean_nothing_are_said(primaries: int, transfer: int) -> None:
    picture = read_image(with_cicp(RGB, primaries, transfer))
    assert f"code points that are not known here, {primaries} and {transfer}: taken for sRGB" in picture.remarks[0]
    assert picture.metadata.profile is None


def test_narrow_range_is_widened() -> None:
    """Black is 16 and white 235, where a PNG says so; alpha is never of narrow range."""
    grey = np.array([[[16], [235], [126], [0], [255]]])
    info = ((b"cICP", bytes((1, 13, 0, 0))),)
    assert read_image(png(grey, 8, 0, *info)).pixels[0, :, 0].tolist() == [0, 255, 128, 0, 255]
    both = np.concatenate([grey, grey], axis=2)
    picture = read_image(png(both, 8, 4, *info))
    assert picture.alpha.tolist() == [[16, 235, 126, 0, 255]]  # type: ignore[union-attr]
    assert picture.pixels[0, [0, 1, 2, 4], 0].tolist() == [0, 255, 128, 255]


def test_which_goes_first() -> None:
    """PNG, 3rd edition, 4.3: code points, then a profile, then sRGB, then gamma. HEIF: a profile, then code points."""
    gamma = (b"gAMA", struct.pack(">I", 55556))
    assert space(read_image(with_cicp(FLAT, 9, 14, 1, icc_profile=P3))) == 5
    assert space(read_image(with_cicp(FLAT, 9, 14, 1, (b"sRGB", b"\0"), gamma))) == 5
    assert space(read_image(with_cicp(FLAT, 1, 13, 1, gamma))) is None
    both = saved(FLAT, "AVIF", icc_profile=P3)
    assert b"nclx\0\2\0\2" in both
    assert space(read_image(both.replace(b"nclx\0\2\0\2", b"nclx\0\x09\0\x10"))) == 2
    late = saved(FLAT).replace(b"\0\0\0\0IEND", b"\0\0\0\4cICP" + bytes((12, 13, 0, 1)) + bytes(4) + b"\0\0\0\0IEND")
    assert space(read_image(late)) is None  # behind the pixels it is not allowed


def jp2(image: Image.Image, colr: bytes) -> bytes:
    """A JPEG 2000 file with another description of its colours."""
    data = saved(image, "JPEG2000", irreversible=False)
    old = data[data.index(b"colr") - 4 :][:15]
    new = (len(colr) + 8).to_bytes(4, "big") + b"colr" + colr
    head = data.index(b"jp2h") - 4
    length = int.from_bytes(data[head : head + 4], "big") + len(new) - len(old)
    return (data[:head] + length.to_bytes(4, "big") + data[head + 4 :]).replace(old, new)


def test_jpeg_2000_says_its_colours() -> None:
    assert read_image(saved(FLAT, "JPEG2000")).metadata.profile is None
    assert space(read_image(jp2(FLAT, b"\2\0\0" + P3))) == 2
    assert space(read_image(jp2(FLAT, b"\1\0\0" + struct.pack(">I", 21)))) == 4
    assert space(read_image(jp2(FLAT, b"\5\0\0" + struct.pack(">HHHB", 12, 13, 0, 128)))) == 2
    assert space(read_image(jp2(FLAT.convert("L"), b"\2\0\0" + known_profile(6)))) == 6
    with pytest.raises(ImageError, match=r"^x: has colours of JPEG 2000's kind 14, which Pillow misreads"):
        read_image(jp2(FLAT, b"\1\0\0" + struct.pack(">I", 14)), "x")


def test_bmp_may_have_a_profile() -> None:
    """BITMAPV5HEADER, as Windows documents it: the profile's place is counted from the header on."""
    pixels = bytes((60, 90, 180, 0)) * 4
    for kind, number in ((b"DEBM", 2), (b"BGRs", None)):
        header = struct.pack("<IiiHHI", 124, 2, 2, 1, 32, 0).ljust(56, b"\0") + kind + bytes(52)
        header += struct.pack("<III", 124 + len(pixels), len(P3), 0)
        head = struct.pack("<2sIII", b"BM", 14 + 124 + len(pixels) + len(P3), 0, 14 + 124)
        picture = read_image(head + header + pixels + P3)
        assert picture.pixels[0, 0].tolist() == [180, 90, 60]
        assert space(picture) == number
    cut = read_image(head + header.replace(b"BGRs", b"DEBM") + pixels + P3[:100])
    assert "passed over" in cut.remarks[0]


@pytest.mark.parametrize(
    ("colour_space", "rule", "number"),
    [(0xFFFF, "R03", 3), (2, None, 3), (0xFFFF, "R98", None), (0xFFFF, None, None), (1, "R98", None)],
)
def test_cameras_say_adobe_rgb_in_exif(colour_space: int, rule: str | None, number: int | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = colour_space
    if rule is not None:
        exif.get_ifd(0x8769)[0xA005] = {1: rule}
    assert space(read_image(saved(FLAT, "JPEG", exif=exif))) == number
    assert space(read_image(saved(FLAT, "JPEG", exif=exif, icc_profile=P3))) == 2


def test_depths_are_read_of_boxes() -> None:
    """An encoder of 10 bits is not at hand: only what the boxes say is changed."""
    data = saved(RGB, "AVIF")
    assert read_heif(io.BytesIO(data)).depth == 8
    for old, new, depth in (
        (b"pixi\0\0\0\0\3\x08\x08\x08", b"pixi\0\0\0\0\3\x0a\x0a\x0a", 10),
        (b"av1C\x81\0\x0c", b"av1C\x81\0\x4c", 10),
        (b"av1C\x81\0\x0c", b"av1C\x81\0\x6c", 12),
    ):
        assert old in data
        assert read_heif(io.BytesIO(data.replace(old, new))).depth == depth


def test_only_the_main_picture_counts() -> None:
    """Its properties are those that `ipma` names, not those of the alpha or a preview beside it."""
    image = FLAT.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = saved(image, "AVIF")
    other = data.replace(b"pitm\0\0\0\0\0\1", b"pitm\0\0\0\0\0\2")
    assert read_heif(io.BytesIO(data)).points == CodePoints(1, 13)
    assert read_heif(io.BytesIO(other)).points is None


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


@given(st.integers(0, 400), st.binary(max_size=12), st.booleans())
def test_damaged_boxes_raise_nothing(place: int, change: bytes, avif_file: bool) -> None:
    data = bytearray(saved(FLAT, "AVIF") if avif_file else saved(FLAT, "JPEG2000"))
    data[place : place + len(change)] = change
    file = Counted(bytes(data))
    assert isinstance((read_heif if avif_file else read_jp2)(file), Said)
    assert file.total <= 2 * len(data)


def test_boxes_are_looked_at_once() -> None:
    """Many small boxes, a table of many items, and lengths beyond the file."""
    many = struct.pack(">I4s", 8, b"free") * 20_000
    items = b"\0\0\0\0" + struct.pack(">I", 2**32 - 1) + b"\0\2\0" * 30_000
    ipma = struct.pack(">I4s", 8 + len(items), b"ipma") + items
    iprp = struct.pack(">I4s", 8 + len(ipma), b"iprp") + ipma
    pitm = struct.pack(">I4sIH", 14, b"pitm", 0, 1)
    meta = struct.pack(">I4sI", 12 + len(pitm + iprp), b"meta", 0) + pitm + iprp
    for data in (many, meta, struct.pack(">I4sQ", 1, b"meta", 2**63) + bytes(100), struct.pack(">I4s", 0, b"mdat")):
        file = Counted(data)
        assert read_heif(file) == Said()
        assert file.total <= 2 * len(data) + 16


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(3, 3): linear RGB under D65 -> XYZ, by SMPTE RP 177."""
    x, y = 0.3127, 0.3290
    columns = np.array([[x, y, 1 - x - y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def test_a_background_is_a_colour_of_srgb() -> None:
    """In Display P3 and Adobe RGB the same orange has other samples than in sRGB."""
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    orange = np.array([255, 136, 0]) / 255
    xyz = to_xyz(SRGB_PRIMARIES) @ np.where(orange <= 0.04045, orange / 12.92, ((orange + 0.055) / 1.055) ** 2.4)
    in_p3 = with_srgb_curve(np.linalg.solve(to_xyz(P3_PRIMARIES), xyz) * 255)
    in_adobe = np.rint(255 * np.linalg.solve(to_xyz(ADOBE_PRIMARIES), xyz).clip(0, 1) ** (256 / 563))
    assert np.abs(in_p3 - (255, 136, 0)).max() > 40
    for profile, expected in ((None, (255, 136, 0)), (P3, in_p3), (known_profile(3), in_adobe)):
        image = clear.copy()
        if profile is not None:
            image.info["icc_profile"] = profile
        for metadata in ("icc", "all"):
            picture = take_image(image, alpha="#ff8800", metadata=metadata)  # type: ignore[arg-type]
            assert np.abs(picture.pixels.astype(int) - expected).max() <= 1
            assert picture.metadata.profile == profile
        plain = take_image(image, alpha="#ff8800", metadata="none")
        assert np.abs(plain.pixels.astype(int) - (255, 136, 0)).max() <= 2  # by 8 bits of the other space
        assert (take_image(image, alpha="white").pixels == 255).all()
        assert (take_image(image, alpha="black").pixels == 0).all()


def test_a_background_of_another_grey_than_the_picture_s() -> None:
    """Of gamma 1.8; and a colour makes it a coloured one of the same gamma."""
    image = Image.new("LA", (4, 4), (50, 0))
    image.putpixel((0, 0), (50, 255))
    image.info["icc_profile"] = build_profile(ColourSpace((), (gamma_curve(1.8),)), "")
    light = ((128 / 255 + 0.055) / 1.055) ** 2.4
    picture = take_image(image, alpha="#808080")
    assert picture.greyscale
    assert abs(int(picture.pixels[1, 1, 0]) - round(255 * light ** (1 / 1.8))) <= 1
    coloured = take_image(image, alpha="#ff8800")
    assert not coloured.greyscale
    assert coloured.pixels[0, 0].tolist() == [50, 50, 50]
    assert coloured.pixels[1, 1].tolist() != [255, 136, 0]
    found = parse_profile(coloured.metadata.profile or b"")
    assert len(found.curves) == 3
    assert found.curves[0] == gamma_curve(1.8)
