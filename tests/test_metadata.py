"""Exif, XMP and profiles: nothing by default that could tell on somebody, everything on request, whole on the way."""

import io
import struct

import numpy as np
import pytest
from conftest import TINY_KL, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from test_images import GREY, RGB, saved

from latentzip.codec import decode_image, encode_image
from latentzip.container import Chunk, ChunkType, Container, Flag, Header, PayloadKind, parse
from latentzip.errors import FormatError
from latentzip.extras import MAX_METADATA, name_of_profile, pack_extras, parse_metadata, parse_transparency
from latentzip.images import Metadata, Picture, image_bytes, read_image
from latentzip.images.exif import HEAD, clean_exif
from latentzip.images.profiles import KNOWN, known_profile, recognise

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="Secret place"/></x:xmpmeta>'
SECRETS = (b"2024:05:06", b"Secret", b"Jane", b"2024-05-06", b"My comment", struct.pack(">I", 0x51DECADE))


def exif_of(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Jane"
    exif[ExifTags.Base.DateTime] = "2024:05:06 07:08:09"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExifImageWidth: 30,
        ExifTags.Base.ExifImageHeight: 20,
        ExifTags.Base.FNumber: IFDRational(28, 10),
        ExifTags.Base.UserComment: b"ASCII\0\0\0My comment",
    }
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (IFDRational(51), IFDRational(30), IFDRational(0x51DECADE, 0x1000000)),
        ExifTags.GPS.GPSDateStamp: "2024:05:06",
    }
    return exif


def source(image_format: str, image: Image.Image = RGB, orientation: int = 6) -> bytes:
    """A picture file that lies on its side and tells on Jane, with comments where a format has them."""
    options: dict[str, object] = {"exif": exif_of(orientation), "icc_profile": known_profile(2)}
    if image_format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())  # type: ignore[attr-defined]
        options["pnginfo"].add_text("Comment", "My comment")  # type: ignore[attr-defined]
    elif image_format == "TIFF":
        exif = Image.Exif()
        exif.load(exif_of(orientation).tobytes())
        exif[700] = XMP
        options["exif"] = exif
    else:
        options["xmp"] = XMP
    if image_format == "JPEG":
        options |= {"comment": "My comment", "quality": 95}
    return saved(image, image_format, **options)


def details(metadata: Metadata) -> tuple[Image.Exif, dict[int, object], dict[int, object]]:
    exif = Image.Exif()
    exif.load(metadata.exif or b"")
    return exif, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    import torch

    from latentzip.zoo.checkpoints import save_weights
    from latentzip.zoo.loading import load_decoder, load_encoder

    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_weights(path, TINY_KL, tiny_model(TINY_KL).state_dict(), {})
    cpu = torch.device("cpu")
    return load_encoder(str(path), cpu), load_decoder(path, cpu)


FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"]


@pytest.mark.parametrize("image_format", FORMATS)
def test_nothing_tells_on_anybody_by_default(image_format: str, model) -> None:  # type: ignore[no-untyped-def]
    encoder, decoder = model
    file = source(image_format)
    assert sum(secret in file for secret in SECRETS) >= 2  # they are there to be found
    for wish in ("icc", "none"):
        picture = read_image(file, metadata=wish)  # type: ignore[arg-type]
        assert picture.pixels.shape[:2] == (30, 20), "stands upright"
        data = encode_image(picture, encoder)
        kinds = {chunk.type for chunk in parse(data).chunks}
        assert kinds == {ChunkType.SCAN, ChunkType.ICC} if wish == "icc" else {ChunkType.SCAN}
        back = decode_image(data, lambda container: decoder)
        assert (back.metadata.exif, back.metadata.xmp) == (None, None)
        for secret in SECRETS:
            assert secret not in data
            for target in FORMATS:
                assert secret not in image_bytes(back, target)[0]


@pytest.mark.parametrize("image_format", FORMATS)
def test_everything_is_kept_on_request(image_format: str, model) -> None:  # type: ignore[no-untyped-def]
    encoder, decoder = model
    picture = read_image(source(image_format), metadata="all")
    back = decode_image(encode_image(picture, encoder), lambda container: decoder).metadata
    assert back == picture.metadata
    assert back.profile == known_profile(2)
    assert back.xmp is not None
    assert b"Secret place" in back.xmp
    assert b"Orientation" not in back.xmp
    exif, camera, place = details(back)
    assert ExifTags.Base.Orientation not in exif
    assert exif[ExifTags.Base.Artist] == "Jane"
    assert camera[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert (camera[ExifTags.Base.ExifImageWidth], camera[ExifTags.Base.ExifImageHeight]) == (20, 30)
    assert float(camera[ExifTags.Base.FNumber]) == pytest.approx(2.8)  # type: ignore[arg-type]
    assert place[ExifTags.GPS.GPSDateStamp] == "2024:05:06"
    assert set(exif) == {
        ExifTags.Base.Artist,
        ExifTags.Base.DateTime,
        ExifTags.IFD.Exif,
        ExifTags.IFD.GPSInfo,
    }


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("greyscale", [False, True])
def test_every_output_carries_it(image_format: str, deep: bool, greyscale: bool) -> None:
    """Written by us, read again by Pillow: the same metadata as in the picture."""
    if deep and image_format not in ("PNG", "TIFF"):
        return
    given = read_image(source("JPEG"), metadata="all")
    metadata = Metadata(known_profile(7 if greyscale else 2), given.metadata.exif, given.metadata.xmp)
    pixels = given.pixels.astype(np.uint16) * 257 if deep else given.pixels
    data, remarks = image_bytes(Picture(pixels, greyscale, metadata=metadata), image_format)
    assert remarks == ()
    again = read_image(data, metadata="all")
    assert again.metadata.xmp == metadata.xmp
    for ours, theirs in zip(details(again.metadata), details(metadata), strict=True):
        assert {k: v for k, v in ours.items() if k not in (34665, 34853)} == {
            k: v for k, v in theirs.items() if k not in (34665, 34853)
        }
    assert again.metadata.profile is not None
    # WebP and AVIF have three channels always: a grey profile becomes one of RGB with the same curve
    becomes_rgb = greyscale and image_format in ("WEBP", "AVIF")
    assert recognise(again.metadata.profile) == (1 if becomes_rgb else 7 if greyscale else 2)
    if not becomes_rgb:
        assert again.metadata.profile == metadata.profile


def test_thumbnails_are_left_out() -> None:
    thumbnail = saved(RGB.resize((6, 4)), "JPEG")
    entries = struct.pack(">HHHII", 2, 0x0201, 4, 1, 8 + 6 + 30) + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HI", 0, 14) + entries + struct.pack(">I", 0) + thumbnail
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + struct.pack(">HHI4s", 0x013B, 2, 4, b"Jan\0") + exif[10:]
    exif = exif.replace(struct.pack(">I", 14), struct.pack(">I", 26), 1).replace(
        struct.pack(">I", 44), struct.pack(">I", 56), 1
    )
    file = saved(RGB, "JPEG", exif=HEAD + exif)
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.getexif().get_ifd(ExifTags.IFD.IFD1)  # it is there
    kept = read_image(file, metadata="all").metadata.exif
    assert kept is not None
    assert b"Jan" in kept
    assert thumbnail not in kept
    assert len(kept) < 60


@pytest.mark.parametrize("order", ["<", ">"])
def test_camera_makers_notes_stay_at_their_place(order: str) -> None:
    """Which point to places in the Exif data; and the size that is said is the upright picture's."""

    def directory(*entries: tuple[int, int, int, int], link: int) -> bytes:
        packed = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
        return struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", link)

    side = 6 if order == "<" else 6 << 16  # a SHORT stands in the first half of four bytes
    first = directory((0x0112, 3, 1, side), (0x013B, 2, 5, 68), (0x8769, 4, 1, 80), link=200)
    details = directory((0x927C, 7, 20, 140), (0xA002, 4, 1, 30), (0xA003, 4, 1, 20), link=0)
    exif = bytearray(264)
    for place, data in (
        (0, (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)),
        (8, first),
        (68, b"Jane\0"),
        (80, details),
        (140, b"points to 160"),
        (160, b"the maker's own"),
        (200, directory((0x0201, 4, 1, 240), (0x0202, 4, 1, 24), link=0)),
        (240, b"a thumbnail, 24 bytes..."),
    ):
        exif[place : place + len(data)] = data
    cleaned = clean_exif(HEAD + bytes(exif), 20, 30)
    assert cleaned[140:180] == exif[140:180]
    assert b"thumbnail" not in cleaned
    again = Image.Exif()
    again.load(cleaned)
    assert dict(again) == {0x013B: "Jane", 0x8769: 80}
    assert again.get_ifd(0x8769) == {0x927C: bytes(exif[140:160]), 0xA002: 20, 0xA003: 30}
    assert not again.get_ifd(ExifTags.IFD.IFD1)
    assert clean_exif(cleaned, 20, 30) == cleaned


@given(st.binary(max_size=100), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_damaged_exif_raises_only_valueerror(data: bytes, head: bytes) -> None:
    try:
        cleaned = clean_exif(head + data, 1, 1)
    except ValueError:
        return
    assert len(cleaned) <= len(head + data)


def test_a_tiff_s_own_structure_is_not_exif() -> None:
    picture = read_image(saved(RGB, "TIFF", compression="tiff_lzw"), metadata="all")
    assert picture.metadata.exif is None
    picture = read_image(saved(RGB, "TIFF", tiffinfo={270: "A title"}, compression="tiff_lzw"), metadata="all")
    assert set(details(picture.metadata)[0]) == {270}


def test_formats_without_metadata_get_the_right_colours() -> None:
    from latentzip.images.profiles import to_srgb

    picture = Picture(np.asarray(RGB), False, metadata=Metadata(known_profile(3), b"MM\0*\0\0\0\x08\0\0\0\0\0\0", XMP))
    for image_format in ("BMP", "PPM", "JPEG2000"):
        data, remarks = image_bytes(picture, image_format)
        assert any("converted to sRGB" in remark for remark in remarks)
        assert any("Exif and XMP left out" in remark for remark in remarks)
        difference = np.asarray(Image.open(io.BytesIO(data))).astype(int) - np.asarray(to_srgb(RGB, known_profile(3)))
        assert np.abs(difference).mean() < (2 if image_format == "JPEG2000" else 0.01)


# -- as chunks of a file


NO_FLAG = Flag(0)


def container_of(*chunks: Chunk, flags: Flag = NO_FLAG, size: tuple[int, int] = (30, 20)) -> Container:
    return Container(Header(PayloadKind.KL_PRIOR, flags, *size, b"8 bytes!", b"four"), chunks)


@pytest.mark.parametrize("number", KNOWN)
def test_well_known_profiles_take_one_byte(number: int) -> None:
    picture = Picture(np.zeros((2, 2, 3), np.uint8), number >= 6, metadata=Metadata(known_profile(number)))
    assert pack_extras(picture) == (Chunk(ChunkType.ICC, bytes([number])),)
    container = container_of(*pack_extras(picture))
    assert parse_metadata(container).profile == known_profile(number)
    assert name_of_profile(container) == KNOWN[number][0]


def test_other_profiles_are_kept_to_the_byte() -> None:
    profile = known_profile(2).replace(b"\0D\0i\0s", b"\0d\0i\0s")
    chunks = pack_extras(Picture(np.zeros((2, 2, 3), np.uint8), False, metadata=Metadata(profile)))
    assert parse_metadata(container_of(*chunks)).profile == profile
    assert "of its own" in str(name_of_profile(container_of(*chunks)))


def test_metadata_that_unpacks_to_too_much_is_refused_in_little_memory() -> None:
    import tracemalloc
    import zlib

    compress = zlib.compressobj(9)
    bomb = b"".join(compress.compress(bytes(2**20)) for _ in range(256)) + compress.flush()
    assert len(bomb) < 2**19
    for kind, payload in ((ChunkType.ICC, b"\0" + bomb), (ChunkType.EXIF, bomb), (ChunkType.XMP, bomb)):
        tracemalloc.start()
        with pytest.raises(FormatError, match="unpacks to more than it may"):
            parse_metadata(container_of(Chunk(kind, payload)))
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_METADATA
        tracemalloc.stop()
    with pytest.raises(FormatError, match=r"metadata are more than a \.lz file holds"):
        pack_extras(Picture(np.zeros((1, 1, 3), np.uint8), False, metadata=Metadata(xmp=bytes(MAX_METADATA + 1))))


@pytest.mark.parametrize(
    "chunks",
    [
        [Chunk(ChunkType.ICC, b"")],
        [Chunk(ChunkType.ICC, b"\x63")],
        [Chunk(ChunkType.ICC, b"\x01\x01")],
        [Chunk(ChunkType.ICC, b"\0nonsense")],
        [Chunk(ChunkType.ICC, b"\x01"), Chunk(ChunkType.ICC, b"\x01")],
        [Chunk(ChunkType.EXIF, b"nonsense")],
        [Chunk(ChunkType.XMP, b"")],
    ],
)
def test_damaged_metadata_is_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(FormatError):
        parse_metadata(container_of(*chunks))


def test_alpha_is_there_as_the_header_says_or_the_file_is_refused() -> None:
    chunk = Chunk(ChunkType.ALPHA, b"\x80")
    alpha = parse_transparency(container_of(chunk, flags=Flag.ALPHA))
    assert alpha is not None
    assert (alpha.shape, set(alpha.flat)) == ((20, 30), {128})
    assert parse_transparency(container_of()) is None
    for wrong in (container_of(chunk), container_of(flags=Flag.ALPHA), container_of(chunk, chunk, flags=Flag.ALPHA)):
        with pytest.raises(FormatError):
            parse_transparency(wrong)


def test_a_grey_transparent_picture_with_everything(model) -> None:  # type: ignore[no-untyped-def]
    """All of it at once, there and back, and what was cut short keeps what stands before its latent."""
    encoder, decoder = model
    image = GREY.copy()
    image.putalpha(Image.linear_gradient("L").resize(GREY.size))
    picture = read_image(saved(image, exif=exif_of(1), icc_profile=known_profile(6)), metadata="all")
    data = encode_image(picture, encoder)
    container = parse(data)
    assert container.header.flags == Flag.GREYSCALE | Flag.ALPHA
    assert container.header.mode == "LA"
    assert [chunk.type for chunk in container.chunks] == [
        ChunkType.ICC,
        ChunkType.EXIF,
        ChunkType.ALPHA,
        ChunkType.SCAN,
    ]
    back = decode_image(data, lambda container: decoder)
    assert back.alpha is not None
    assert picture.alpha is not None
    assert np.array_equal(back.alpha, picture.alpha)
    assert back.metadata == picture.metadata
    assert parse_metadata(parse(data[:-10], partial=True)) == picture.metadata
