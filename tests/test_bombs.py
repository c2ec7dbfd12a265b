"""Pictures that are small files and would take much to read: refused by --max-pixels, and in the memory that takes.

Each holds a picture in another, or says its size where Pillow does not look, or has parts without end.
"""

import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from PIL import Image
from test_files import posix
from test_hostile import png
from test_images import RGB, saved

from latentzip.errors import ImageError
from latentzip.images import read_image
from latentzip.images.metadata import without_orientation
from latentzip.images.profiles import known_profile, recognise

Cli = Callable[..., Result]
SIDE, LIMIT = 16_000, 1_000_000


def j2k(width: int, height: int, tile: int, **options: object) -> bytes:
    """A JPEG 2000 that says such sizes, behind which there is little."""
    data = bytearray(saved(Image.new("L", (64, 64)), "JPEG2000", **options))
    place = data.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">II", data, place, width, height)
    struct.pack_into(">II", data, place + 16, tile, tile)
    if "no_jp2" not in options:
        struct.pack_into(">II", data, data.index(b"ihdr") + 4, height, width)
    return bytes(data)


def icns(picture: bytes) -> bytes:
    return b"icns" + struct.pack(">I4sI", 16 + len(picture), b"ic07", 8 + len(picture)) + picture


def ico(picture: bytes, kind: int = 1) -> bytes:
    return struct.pack("<HHH4BHHII", 0, kind, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def tiff(*entries: tuple[int, int, int], data: bytes) -> bytes:
    """(tag, type, value) of a grey TIFF of 16x16 pixels; a value of -1 is where the data is."""
    fixed = ((256, 4, 16), (257, 4, 16), (258, 3, 8), (262, 3, 1), (277, 3, 1))
    every = sorted((*fixed, *entries))
    start = 8 + 2 + 12 * len(every) + 4
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, start if value < 0 else value) for tag, kind, value in every)
    return b"II*\0" + struct.pack("<IH", 8, len(every)) + packed + bytes(4) + data


def webp(width: int, height: int) -> bytes:
    data = bytearray(saved(RGB, "WEBP", exif=b"abc", lossless=True))
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def gif(side: int) -> bytes:
    """A frame that is larger than the screen."""
    data = bytearray(saved(Image.new("P", (16, 16)), "GIF"))
    place = data.index(b"\x2c\0\0\0\0") + 5
    struct.pack_into("<HH", data, place, side, side)
    return bytes(data)


def jxl(side: int) -> bytes:
    bits = 0x0AFF | 3 << 17 | side - 1 << 19 | 1 << 49  # a height of 30 bits, and 1:1
    return bits.to_bytes(8, "little") + bytes(60)


ZEROS = zlib.compress(bytes(10_000_000), 9)
DIB = struct.pack("<IiiHHIIiiII", 40, SIDE, 2 * SIDE, 1, 32, 0, 0, 0, 0, 0, 0)
SIZE = "more than is safe to read of an unknown file"
BOMBS = {
    "icns, png": (icns(png(SIDE, SIDE)), SIZE),
    "icns, j2k": (icns(j2k(SIDE, SIDE, SIDE, no_jp2=True)), SIZE),
    "icns, jp2": (icns(j2k(SIDE, SIDE, SIDE)), SIZE),
    "icns, tiles": (icns(j2k(990, 990, 4)), "is cut into 61504 tiles of 4x4 pixels"),
    "ico, png": (ico(png(SIDE, SIDE)), SIZE),
    "ico, dib": (ico(DIB), SIZE),
    "cur": (ico(DIB, 2), SIZE),
    "j2k": (j2k(SIDE, SIDE, SIDE, no_jp2=True), SIZE),
    "j2k, tiles": (j2k(255, 257, 1, no_jp2=True), "is cut into 65535 tiles of 1x1 pixels"),
    "jp2, tiles": (j2k(255, 257, 1), "is cut into 65535 tiles of 1x1 pixels"),
    "tiff, tile": (
        tiff((259, 3, 8), (322, 4, 65536), (323, 4, 32768), (324, 4, -1), (325, 4, len(ZEROS)), data=ZEROS),
        "has tiles of 65536x32768 pixels",
    ),
    "tiff, large jpeg": (
        tiff(
            *((259, 3, 7), (273, 4, -1), (278, 4, 16), (279, 4, 10**5)),
            data=saved(Image.new("L", (4000, 4000)), "JPEG"),
        ),
        "cannot be read",
    ),
    "webp": (webp(16383, 16383), SIZE),
    "gif": (gif(SIDE), SIZE),
    "jxl": (jxl(SIDE), f"has {SIDE}x{SIDE} pixels"),
    "mpo": (saved(Image.new("L", (1200, 1200)), "MPO", save_all=True, append_images=[RGB]), SIZE),
    "psd": (b"8BPS" + struct.pack(">H6xHIIHHIIIH", 1, 3, 30000, 30000, 8, 3, 0, 0, 0, 0), SIZE),
}


@posix
def test_pictures_in_pictures_are_bounded_by_max_pixels(tmp_path: Path) -> None:
    """In a process that may take no more than 200 MB beside what it has when it has begun."""
    for name, (data, _) in BOMBS.items():
        (tmp_path / name).write_bytes(data)
        assert len(data) < 400_000, name
    code = f"""
import json, resource, sys
from pathlib import Path
import numpy, PIL.ImageCms
from latentzip.errors import ImageError
from latentzip.images import limit_pillow, picture_suffixes, read_image
picture_suffixes()
limit_pillow({LIMIT})
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
said = {{}}
for path in Path(sys.argv[1]).iterdir():
    try:
        read_image(path, path.name, max_pixels={LIMIT})
    except ImageError as error:
        said[path.name] = str(error)
print(json.dumps(said))
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux, to know how much memory a process has")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for name, (_, message) in BOMBS.items():
        assert said.get(name, "was read").startswith(f"{name}: "), name
        assert message in said[name], said[name]


def test_the_command_line_bounds_them(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    path = tmp_path / "a.ico"
    path.write_bytes(ico(saved(Image.new("RGB", (300, 300)))))
    refused = cli("encode", path, "-m", tiny_weights["kl"], "--max-pixels", 10_000)
    assert refused.code == 1
    assert f"{path}: has, or holds a picture of, 90000 pixels, more than is safe" in refused.err
    assert "raise --max-pixels" in refused.err
    assert cli("encode", path, "-m", tiny_weights["kl"], "--max-pixels", 100_000).code == 0


def test_honest_containers_are_read() -> None:
    """Tiles, several sizes and pictures inside are no fault."""
    picture = Image.new("RGB", (256, 256), (10, 200, 30))
    for data in (
        saved(picture, "ICNS"),
        saved(picture, "ICO"),
        saved(picture, "JPEG2000", tile_size=(32, 32), irreversible=False),
        saved(Image.new("RGB", (12, 12), (10, 200, 30)), "JPEG2000", tile_size=(3, 3)),
        icns(saved(Image.new("RGB", (128, 128), (10, 200, 30)), "JPEG2000")),
    ):
        assert tuple(read_image(data).pixels[0, 0]) == (10, 200, 30)


# -- time and memory that grow with a file's length, and no faster


def test_the_search_in_xmp_is_linear() -> None:
    """Megabytes of what a search begins with; were each start to look at all the rest, it would take half an hour."""
    parts = (b" ", b"\n", b" tiff:Orientation=", b"<tiff:Orientation>", b'tiff:Orientation="', b"\0 ")
    packet = b"".join(b"<x>" + part * (10**6 // len(part)) + b"</x>" for part in parts)
    code = (
        "import sys; from latentzip.images.metadata import without_orientation\n"
        "sys.stdout.buffer.write(without_orientation(sys.stdin.buffer.read()))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=packet, capture_output=True, timeout=120, check=True)
    assert done.stdout == packet


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (b'<a tiff:Orientation="6" b="c"/>', b'<a b="c"/>'),
        (b"<a\n  tiff:Orientation='6'/>", b"<a\n /> ".rstrip()),
        (b'<a tiff:Orientation = "6"/>', b"<a/>"),
        (b"<a><tiff:Orientation>6</tiff:Orientation></a>", b"<a></a>"),
        (b"<tiff:Orientation>\n6 </tiff:Orientation>", b""),
        (b'<a tiff:Orientation="600"/>', b'<a tiff:Orientation="600"/>'),
        (b"plain\0\0 ", b"plain"),
    ],
)
def test_orientation_in_xmp_is_found_however_it_is_written(given: bytes, left: bytes) -> None:
    assert without_orientation(given) == left


def test_tags_that_share_a_profile_s_bytes_are_not_copied() -> None:
    """Ten thousand tags of half a megabyte each, all of them the same half."""
    count, size = 10_000, 500_000
    profile = bytearray(size)
    profile[: len(known_profile(2))] = known_profile(2)
    profile[12:40] = known_profile(2)[12:40]
    struct.pack_into(">I", profile, 128, count)
    for i in range(count):
        struct.pack_into(">4sII", profile, 132 + 12 * i, b"%04d" % i if i % 2 else b"rTRC", 1, size - 1)
    tracemalloc.start()
    try:
        assert recognise(bytes(profile)) is None
        assert tracemalloc.get_traced_memory()[1] < 10 * size
    finally:
        tracemalloc.stop()


def test_exif_in_thousands_of_parts_is_refused() -> None:
    data = saved(RGB, "JPEG", quality=95)
    part = b"\xff\xe1" + struct.pack(">H", 8 + 6) + b"Exif\0\0MM\0*\0\0"
    assert read_image(data[:2] + part * 64 + data[2:]).pixels.shape == (20, 30, 3)
    with pytest.raises(ImageError, match="Exif data comes in more than 64 parts"):
        read_image(data[:2] + part * 65 + data[2:])


def test_boxes_without_end_are_not_walked() -> None:
    """A JPEG 2000 and a JPEG XL of a million empty boxes."""
    from latentzip.images.boxes import MOST_BOXES, walk

    many = io.BytesIO((struct.pack(">I", 8) + b"free") * 10**6)
    assert sum(1 for _ in walk(many)) == MOST_BOXES
    nothing = io.BytesIO(struct.pack(">I", 0) + b"free" + bytes(100))
    assert list(walk(nothing)) == [(b"free", 8, 100)]
    assert list(walk(io.BytesIO(struct.pack(">I4sQ", 1, b"free", 5)))) == []
