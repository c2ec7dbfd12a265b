"""HEIC and JPEG XL, through the packages that read them: colours, orientation, transparency, Exif, what is refused."""

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from PIL import ExifTags, Image
from test_images import GREY, RGB, saved
from test_metadata import XMP, exif_of

from latentzip.errors import ImageError
from latentzip.images import picture_suffixes, plugins, read_image
from latentzip.images.jxl import read_jxl_header
from latentzip.images.profiles import known_profile, recognise

Cli = Callable[..., Result]
PHOTO = np.asarray(RGB)
ROUND = Image.linear_gradient("L").resize(RGB.size)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    """As pictures are to be written here too."""
    for plugin in plugins.PLUGINS:
        plugin.register()


def heic(image: Image.Image = RGB, **options: object) -> bytes:
    return saved(image, "HEIF", **({"quality": 95, "chroma": 444} | options))


def jxl(image: Image.Image = RGB, **options: object) -> bytes:
    return saved(image, "JXL", **({"lossless": True} | options))


def distance(pixels: np.ndarray, image: Image.Image | np.ndarray = RGB) -> float:
    return float(np.abs(pixels.astype(int) - np.asarray(image)).mean())


@pytest.mark.parametrize("write", [heic, jxl])
def test_pictures_are_read_as_they_are(write: Callable[..., bytes]) -> None:
    picture = read_image(write())
    assert distance(picture.pixels) < 2
    assert (picture.greyscale, picture.alpha, picture.metadata.profile, picture.remarks) == (
        False,
        None,
        None if write is heic else known_profile(1),
        (),
    )
    grey = read_image(write(GREY))
    assert grey.greyscale
    assert distance(grey.pixels[..., 0], GREY) < 2
    clear = RGB.copy()
    clear.putalpha(ROUND)
    picture = read_image(write(clear))
    assert picture.alpha is not None
    assert distance(picture.alpha, ROUND) < 2


@pytest.mark.parametrize("number", [2, 3])
def test_profiles_are_kept(number: int) -> None:
    """The encoder of JPEG XL takes none from Pillow: there, the decoder's description is what counts."""
    profile = read_image(heic(icc_profile=known_profile(number))).metadata.profile
    assert profile is not None
    assert recognise(profile) == number


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation: int) -> None:
    """By its own transformations; Exif then says nothing more."""
    picture = read_image(heic(exif=exif_of(orientation).tobytes()), metadata="all")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = read_image(saved(RGB, exif=exif)).pixels
    assert picture.pixels.shape == upright.shape
    assert distance(picture.pixels, upright) < 2
    check_exif(picture.metadata.exif)


def check_exif(data: bytes | None) -> None:
    exif = Image.Exif()
    exif.load(data or b"")
    assert exif[ExifTags.Base.Artist] == "Jane"
    assert ExifTags.Base.Orientation not in exif


def test_metadata_of_heic_is_kept_on_request_alone() -> None:
    data = heic(xmp=XMP, exif=exif_of(1).tobytes())
    kept = read_image(data, metadata="all").metadata
    assert kept.xmp is not None
    assert b"Secret place" in kept.xmp
    assert b"Orientation" not in kept.xmp
    assert read_image(data).metadata.exif is None


def test_ten_bits_are_said_to_become_eight() -> None:
    import pillow_heif

    deep = pillow_heif.from_bytes("RGB;16", RGB.size, (PHOTO.astype(np.uint16) * 257).tobytes())
    out = io.BytesIO()
    deep.save(out, quality=95)
    picture = read_image(out.getvalue())
    assert picture.remarks == ("10-bit samples kept as 8-bit",)
    assert distance(picture.pixels) < 4


def test_several_heic_pictures_need_first_frame() -> None:
    data = heic(save_all=True, append_images=[RGB.rotate(180)])
    with pytest.raises(ImageError, match="has 2 frames"):
        read_image(data)
    assert distance(read_image(data, first_frame=True).pixels) < 2


# -- JPEG XL, of which the plugin tells less


class Bits:
    """Bits from the lowest of the first byte on."""

    def __init__(self, data: bytes = b"") -> None:
        self.number, self.at = int.from_bytes(data, "little"), 0

    def take(self, count: int) -> int:
        self.at += count
        return self.number >> self.at - count & (1 << count) - 1

    def put(self, *fields: tuple[int, int]) -> None:
        """(value, how many bits)"""
        for value, count in fields:
            self.number |= value << self.at
            self.at += count

    def bytes(self) -> bytes:
        return self.number.to_bytes(-(-self.at // 8), "little")


def with_header(orientation: int = 1, bits: int = 8, animated: bool = False) -> bytes:
    """A lossy JPEG XL whose header, all of which was as by default, says so many bits, an orientation, an animation."""
    data = jxl(lossless=False, quality=97)
    width, height = RGB.size
    size = [(0, 1), (0, 2), (height - 1, 9), (0, 3), (0, 2), (width - 1, 9)]
    plain = Bits()
    plain.put((0x0AFF, 16), (0, 1), (0, 2), (height - 1, 9), (3 + 1, 3))  # of the width it says 3:2
    end = plain.at + 2  # two bits: all as by default
    assert data.startswith(plain.bytes()[:-1])
    made = Bits()
    made.put((0x0AFF, 16), *size, (0, 1), (1, 1), (orientation - 1, 3), (0, 1), (0, 1), (animated, 1))
    if animated:
        made.put((0, 2), (0, 2), (0, 2), (0, 1))
    made.put((0, 1), (3, 2), (bits - 1, 6), (1, 1), (0, 2), (1, 1), (1, 1), (1, 1), (0, 2), (1, 1))
    return made.bytes() + data[-(-end // 8) :]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jxl_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = read_image(saved(RGB, exif=exif)).pixels
    picture = read_image(with_header(orientation))
    assert picture.pixels.shape == upright.shape
    assert distance(picture.pixels, upright) < 3


def test_exif_does_not_turn_jxl() -> None:
    """The codestream's orientation alone counts, and here that is upright; but a JPEG that was packed keeps Exif's."""
    picture = read_image(jxl(exif=exif_of(6).tobytes(), xmp=XMP), metadata="all")
    assert np.array_equal(picture.pixels, PHOTO)
    check_exif(picture.metadata.exif)
    assert picture.metadata.xmp is not None
    assert b"Secret place" in picture.metadata.xmp


def test_a_jpeg_in_jxl_is_turned_by_its_exif(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    RGB.save(path, quality=97, exif=exif_of(6))
    with Image.open(path) as opened:
        data = saved(opened, "JXL", lossless_jpeg=True)
    picture = read_image(data, metadata="all")
    assert np.array_equal(picture.pixels, read_image(path).pixels)
    assert picture.pixels.shape == (30, 20, 3)
    check_exif(picture.metadata.exif)


def test_what_jxl_loses_is_said() -> None:
    deep = read_image(with_header(bits=16))
    assert deep.remarks == ("16-bit samples kept as 8-bit",)
    assert distance(deep.pixels) < 3
    packed = jxl(exif=exif_of(6).tobytes(), compress_metadata=True)
    assert read_image(packed).remarks == ()
    assert "compressed metadata" in read_image(packed, metadata="all").remarks[0]
    with pytest.raises(ImageError, match="animation in JPEG XL"):
        read_image(with_header(animated=True), first_frame=True)


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (256, 256), (257, 1), (640, 480), (1920, 1080), (3, 700), (513, 512), (1200, 1000)]
)
def test_sizes_of_jxl_are_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    for container in (False, True):
        header = read_jxl_header(io.BytesIO(jxl(Image.new("L", size), use_container=container, effort=1)))
        assert (header.width, header.height) == size


@pytest.mark.parametrize("write", [heic, jxl])
def test_damaged_ones_are_errors_of_one_line(write: Callable[..., bytes]) -> None:
    data = write()
    for end in (2, 12, 20, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(ImageError, match=r"^x: [^\n]*$"):
            read_image(data[:end], "x")


# -- where they are not installed, and where they are


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "find_spec", lambda name: None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "JXL")])
    for data, name in ((heic(), "HEIC, which needs pillow-heif"), (jxl(), "JPEG XL, which needs pillow-jxl-plugin")):
        with pytest.raises(ImageError, match=f"x: is {name}: pip install 'latentzip"):
            read_image(data, "x")
    assert not plugins.plugin_suffixes()


def test_folders_are_searched_for_them(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    assert {".heic", ".heif", ".jxl"} <= picture_suffixes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.HEIC").write_bytes(heic())
    (tmp_path / "in" / "b.jxl").write_bytes(jxl())
    result = cli("encode", "-r", tmp_path / "in", "-o", tmp_path / "out", "-m", tiny_weights["kl"], "--json")
    assert result.code == 0
    assert [record["remarks"] for record in json.loads(result.out)["files"]] == [[], []]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.lz", "b.lz"]


def test_they_are_not_imported_for_other_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(RGB))
    (tmp_path / "a.heic").write_bytes(heic())
    code = (
        "import sys; from pathlib import Path; from latentzip.images import picture_suffixes, read_image\n"
        "picture_suffixes(); read_image(Path(sys.argv[1]) / 'a.png')\n"
        "assert not {'pillow_heif', 'pillow_jxl'} & set(sys.modules)\n"
        "read_image(Path(sys.argv[1]) / 'a.heic')\n"
        "assert 'pillow_heif' in sys.modules"
    )
    assert importlib.util.find_spec("pillow_heif") is not None
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
