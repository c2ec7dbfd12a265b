"""Files that are no picture, half of one, or only a preview: said so, with what to do, and read as far as can be."""

import io
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from PIL import Image, ImageFile, TiffImagePlugin
from test_images import GREY, RGB, saved

from latentzip.container import SIGNATURE
from latentzip.errors import ImageError
from latentzip.images import read_image, take_image
from latentzip.images.content import HEAD, explain
from latentzip.images.salvage import CUT_SHORT, NO_END

Cli = Callable[..., Result]

# -- what is no picture


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (bytes(5000), "zeros alone"),
        (SIGNATURE + bytes(40), "is a .lz file already: latentzip decode"),
        (b"LZIP\1", "is an archive"),
        (b"PK\3\4" + bytes(40), "is an archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--a.jpg\n", "git annex get"),
        (b"\r\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\xef\xbb\xbf<HTML>", "is a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG drawing"),
        (b"<Error><Code>AccessDenied</Code></Error>", "is text, not a picture"),
        (b'{"error": "not found"}', "is text, not a picture"),
        (b"%PDF-1.7\n", "is a PDF document"),
        (b"%!PS\nshowpage", "is PostScript, a program"),
        (b"\0\0\0\x18ftypisom" + bytes(20), "is a video"),
        (b"RIFF\1\1\1\1AVI LIST", "is a video"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201", "camera's raw file"),
        (b"II*\0\x08\0\0\0\0\0", "is a TIFF that Pillow cannot read"),
        (b"\x89PNG\r\n\x1a\n\0\0", "begins as PNG does, but is cut short"),
        (b"\xff\xd8\xff\xe0\0\x10JF", "begins as JPEG does, but is cut short"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "pillow-heif"),
        (b"\1\2\3\4", "not a picture that Pillow can read: convert it to PNG"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, message: str) -> None:
    assert message in explain(data[:HEAD])
    with pytest.raises(ImageError, match=r"^x: "):
        read_image(data, "x")


def test_a_lz_file_is_not_encoded_where_pillow_opens_it_either(example_lz: Path) -> None:
    import latentzip

    latentzip.register()
    with pytest.raises(ImageError, match=r"is a \.lz file already"):
        read_image(example_lz)


def test_a_user_is_told(cli: Cli, tmp_path: Path, example_lz: Path, tiny_weights: dict[str, Path]) -> None:
    """And the file beside it is encoded all the same."""
    (tmp_path / "page.jpg").write_bytes(b"<html>Not here</html>")
    (tmp_path / "good.png").write_bytes(saved(RGB))
    out = tmp_path / "out"
    out.mkdir()
    result = cli(
        "encode", tmp_path / "page.jpg", tmp_path / "good.png", example_lz, "-o", out, "-m", tiny_weights["kl"]
    )
    assert result.code == 1
    assert f"{tmp_path / 'page.jpg'}: is a web page, not a picture" in result.err
    assert f"{example_lz}: is a .lz file already: latentzip decode" in result.err
    assert [path.name for path in out.iterdir()] == ["good.lz"]


# -- what is only a preview


def tiff(*directories: dict[int, int | tuple[int, ...]], below: tuple[int, ...] = (), order: str = "<") -> bytes:
    """An uncompressed grey TIFF of these directories' tags; those numbered in `below` hang on the first as SubIFDs."""
    chained = [i for i in range(len(directories)) if i not in below]
    sizes = [2 + 12 * (len(d) + 10) + 4 for d in directories]
    starts = [8 + sum(sizes[:i]) for i in range(len(directories))]
    end = 8 + sum(sizes)
    arrays, blob = end, b""
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for number, tags in enumerate(directories):
        width, height = tags.get(256, 16), tags.get(257, 16)
        assert isinstance(width, int)
        assert isinstance(height, int)
        entries: dict[int, int | tuple[int, ...]] = {
            256: width,
            257: height,
            258: 8,
            259: 1,
            262: 1,
            277: 1,
            278: height,
        }
        entries |= {273: end, 279: width * height, **tags}
        if number == 0 and below:
            entries[330] = tuple(starts[i] for i in below)
        packed = b""
        for tag, value in sorted(entries.items()):
            if isinstance(value, tuple) and len(value) > 1:
                packed += struct.pack(order + "HHII", tag, 4, len(value), arrays + len(blob))
                blob += struct.pack(f"{order}{len(value)}I", *value)
            else:
                packed += struct.pack(order + "HHII", tag, 4, 1, value[0] if isinstance(value, tuple) else value)
        position = chained.index(number) if number in chained else len(chained)
        link = starts[chained[position + 1]] if position + 1 < len(chained) else 0
        directory = struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", link)
        out += directory.ljust(sizes[number], b"\0")
    return out + blob + bytes(range(256)) * 64


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "data",
    [
        lambda order: tiff({254: 1}, order=order),  # reduced, and alone
        lambda order: tiff({254: 1}, {256: 64, 257: 64}, below=(1,), order=order),  # NEF, ARW, KDC
        lambda order: tiff({254: 4}, {}, order=order),  # a mask of the next
        lambda order: tiff({255: 2}, order=order),  # reduced, as it was said before 1992
        lambda order: tiff({50706: 0x01040000}, order=order),  # DNG
        lambda order: tiff({}, {254: 1, 256: 8}, {256: 64, 257: 64}, below=(1, 2), order=order),  # not said, but larger
        lambda order: tiff({}, {262: 32803, 256: 4, 257: 4}, below=(1,), order=order),  # a colour filter array
    ],
)
def test_previews_are_refused(data: Callable[[str], bytes], order: str) -> None:
    file = data(order)
    message = "only a preview of it can be read here, of 16x16 pixels: export the picture itself as TIFF or PNG"
    for first_frame in (False, True):
        with pytest.raises(ImageError, match=f"^x: {message}"):
            read_image(file, "x", first_frame=first_frame)
    with Image.open(io.BytesIO(file)) as opened, pytest.raises(ImageError, match=message):
        take_image(opened)


def test_raw_files_are_known_by_canon_s_mark_and_by_their_names() -> None:
    plain = tiff({})
    marked = plain[:4] + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + plain[8:]
    with pytest.raises(ImageError, match="only a preview"):
        read_image(marked)
    assert read_image(plain[:4] + struct.pack("<I", 16) + bytes(8) + plain[8:]).greyscale
    for name in ("a.nef", "b.KDC", "c.dng"):
        with pytest.raises(ImageError, match="only a preview"):
            read_image(plain, name)
    assert read_image(plain, "a.tif").greyscale
    assert read_image(saved(RGB, "JPEG"), "a.nef").pixels.shape == (20, 30, 3)  # no raw file, whatever its name


def test_pyramids_and_pages_are_read_as_before() -> None:
    """Where the first page is the picture: reduced versions behind or below it, and damage there, do no harm."""
    for file in (
        tiff({}, {254: 1, 256: 8, 257: 8}, below=(1,)),
        tiff({}, {254: 1, 256: 8, 257: 8}, {254: 1, 256: 4, 257: 4}, below=(1, 2)),
        tiff({330: 10**9}),
        tiff({330: (8,)}),  # itself
        tiff({330: tuple(range(5000))}),
        tiff({254: 2}),  # a page of several
    ):
        assert read_image(file).pixels.shape == (16, 16, 3)
        assert take_image(Image.open(io.BytesIO(file))).greyscale
    assert read_image(tiff({}, {254: 1, 256: 8, 257: 8}), first_frame=True).remarks == ("the first of 2 frames",)
    big = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    RGB.save(big, "TIFF", big_tiff=True, tiffinfo=tags)
    with pytest.raises(ImageError, match="only a preview"):
        read_image(big.getvalue())
    loaded = Image.open(io.BytesIO(tiff({})))
    loaded.load()
    assert take_image(loaded).greyscale


def test_the_preview_of_a_phone_s_jpeg_is_not_the_picture() -> None:
    data = saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])
    place = data.rindex(struct.pack("<I", 0x030000), 0, data.index(b"\xff\xdb"))  # baseline primary image
    with pytest.raises(ImageError, match="only a preview"):
        read_image(data[:place] + struct.pack("<I", 0x010001) + data[place + 4 :])


def test_photoshop_s_blank_in_the_place_of_layers_is_refused() -> None:
    def psd(merged: int) -> bytes:
        resource = b"8BIM" + struct.pack(">HHI", 1057, 0, 6) + struct.pack(">IBB", 1, merged, 0)
        head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3)
        return head + struct.pack(">II", 0, len(resource)) + resource + struct.pack(">IH", 0, 0) + bytes(48)

    assert read_image(psd(1)).pixels.shape == (4, 4, 3)
    with pytest.raises(ImageError, match="no merged picture"):
        read_image(psd(0))


# -- what is cut short


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 30}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {}),
    ],
)
@pytest.mark.parametrize("image", [RGB, GREY], ids=["RGB", "L"])
def test_only_the_end_mark_is_missing(image: Image.Image, image_format: str, options: dict[str, object]) -> None:
    data = saved(image, image_format, **options)
    whole = read_image(data)
    assert whole.remarks == ()
    for missing in (1, 2):
        picture = read_image(data[:-missing])
        assert np.array_equal(picture.pixels, whole.pixels)
        assert picture.remarks == (NO_END,)
    if image_format == "JPEG":
        trailing = read_image(data[:-2] + bytes(500))  # the rest of a block on a memory card
        assert np.array_equal(trailing.pixels, whole.pixels)


@pytest.mark.parametrize("options", [{"quality": 95}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_pixels_that_are_missing_are_not_made_up(options: dict[str, object]) -> None:
    data = saved(RGB, "JPEG", **options)
    start = data.index(b"\xff\xda") + 20
    for end in range(start, len(data) - 4, 7):
        with pytest.raises(ImageError, match=r"x: (is cut short or damaged|cannot be read)"):
            read_image(data[:end], "x")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "PCX"])
def test_what_has_arrived_is_taken_on_request(image_format: str) -> None:
    data = saved(RGB, image_format, **({"quality": 100} if image_format == "JPEG" else {}))
    whole = read_image(data).pixels.astype(int)
    cut = data[: len(data) * 3 // 4]
    with pytest.raises(ImageError, match=r"x: is cut short or damaged .*--partial takes what is there"):
        read_image(cut, "x")
    picture = read_image(cut, "x", partial=True)
    assert picture.remarks[0] == CUT_SHORT
    assert 0.2 < (picture.pixels == whole).all(axis=2).mean() < 0.99
    assert read_image(data, partial=True).remarks == read_image(data).remarks
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_nothing_is_not_taken_for_a_picture() -> None:
    data = saved(RGB, "JPEG2000", no_jp2=True)
    with pytest.raises(ImageError, match="nothing that could be shown is there"):
        read_image(data[: len(data) // 2], partial=True)
    with pytest.raises(ImageError, match="not in part either"):
        read_image(saved(RGB, "WEBP")[:-30], partial=True)


def test_threads_that_take_parts_do_not_disturb_each_other() -> None:
    data = saved(RGB, "PNG")
    results: list[tuple[str, ...]] = []

    def read() -> None:
        for source in (data, data[: len(data) // 2]):
            results.append(read_image(source, partial=True).remarks)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [()] * 4 + [(CUT_SHORT,)] * 4


def test_partial_on_the_command_line(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(saved(RGB)[:-300])
    refused = cli("encode", path, "-m", tiny_weights["kl"])
    assert refused.code == 1
    assert "--partial" in refused.err
    assert not (tmp_path / "cut.lz").exists()
    taken = cli("encode", path, "-m", tiny_weights["kl"], "--partial")
    assert (taken.code, CUT_SHORT in taken.err) == (0, True)
    assert cli("decode", tmp_path / "cut.lz", "-m", tiny_weights["kl"], "-o", tmp_path / "back.png").code == 0
