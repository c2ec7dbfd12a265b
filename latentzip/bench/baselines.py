"""What people use instead, through Pillow: AVIF, JPEG XL, WebP, JPEG and JPEG 2000, with their settings stated."""

import importlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

from latentzip.bench.metrics import EXTRA
from latentzip.errors import BenchError, UsageError
from latentzip.files import read_bytes, write_bytes
from latentzip.images import Picture, Pixels, read_image

JXL_PLUGIN = "pillow-jxl-plugin"


@dataclass(frozen=True)
class Baseline:
    """A codec of Pillow. A setting is a number; `choices` are all there are, from the smallest file to the best."""

    name: str
    title: str
    image_format: str  # Pillow's name
    suffix: str
    settings: str  # for people; everything but the setting itself
    setting_label: str  # "q {}"
    choices: Sequence[int]
    usual: tuple[int, ...]  # those of a comparison: about 0.04 to 0.6 bpp on photographs, as far as the codec goes
    options: Callable[[int], dict[str, object]]
    library: str  # Pillow's name of the feature, or a package's

    @property
    def key(self) -> str:
        """What tells its results from those of other settings and versions."""
        return f"{self.name}: {self.settings}, {self.library_version}"

    @property
    def library_version(self) -> str:
        if self.library == JXL_PLUGIN:
            return f"{JXL_PLUGIN} {version(JXL_PLUGIN)}"
        return f"Pillow {PIL.__version__}, {self.library} {features.version(self.library)}"

    def chosen(self, quick: bool) -> list[int]:
        return thinned(self.usual) if quick else list(self.usual)

    def label(self, setting: int) -> str:
        return self.setting_label.format(setting)

    def why_missing(self) -> str | None:
        """Why it cannot be used here, with the remedy; None where it can."""
        if self.library == JXL_PLUGIN:
            try:
                importlib.import_module("pillow_jxl")  # registers itself with Pillow
                version(JXL_PLUGIN)
            except (ImportError, PackageNotFoundError):
                return f"{self.title} is left out: {JXL_PLUGIN} is not installed: {EXTRA}"
        elif not features.check(self.library):
            return f"{self.title} is left out: this Pillow was built without {self.library}: install Pillow's own wheel"
        return None

    def encode(self, picture: Picture, setting: int) -> bytes:
        """Raises BenchError where it cannot code the picture."""
        image = Image.fromarray(picture.pixels)
        if picture.greyscale:
            image = image.convert("L")
        out = io.BytesIO()
        try:
            image.save(out, self.image_format, **self.options(setting))
        except (OSError, ValueError, RuntimeError) as error:
            raise BenchError(f"{self.title} cannot code it at {self.label(setting)} ({error})") from None
        return out.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """-> (H, W, 3) uint8. Raises BenchError."""
        try:
            with Image.open(io.BytesIO(data), formats=[self.image_format]) as image:
                return np.array(image.convert("RGB"))
        except (OSError, ValueError, RuntimeError) as error:
            raise BenchError(f"{self.title} cannot read what it wrote ({error})") from None


BASELINES: dict[str, Baseline] = {
    codec.name: codec
    for codec in (
        Baseline(
            *("avif", "AVIF", "AVIF", ".avif", "4:4:4, speed 4, one thread", "q {}"),
            choices=range(101),
            usual=(2, 12, 22, 35, 48, 60),
            options=lambda q: {"quality": q, "subsampling": "4:4:4", "speed": 4, "max_threads": 1},
            library="avif",
        ),
        Baseline(
            *("jxl", "JPEG XL", "JXL", ".jxl", "lossy, effort 7, one thread", "q {}"),
            choices=range(1, 100),
            usual=(1, 12, 30, 50, 70),
            options=lambda q: {"quality": q, "effort": 7, "num_threads": 1},
            library=JXL_PLUGIN,
        ),
        Baseline(
            *("webp", "WebP", "WEBP", ".webp", "lossy, method 6", "q {}"),
            choices=range(101),
            usual=(0, 8, 25, 50, 80),
            options=lambda q: {"quality": q, "method": 6},
            library="webp",
        ),
        Baseline(
            *("jpeg", "JPEG", "JPEG", ".jpg", "4:2:0, progressive, optimised tables", "q {}"),
            choices=range(1, 96),
            usual=(5, 10, 18, 30, 50),
            options=lambda q: {"quality": q, "subsampling": "4:2:0", "progressive": True, "optimize": True},
            library="jpg",
        ),
        Baseline(
            *("jp2", "JPEG 2000", "JPEG2000", ".jp2", "9/7 wavelet, one layer", "1:{}"),
            choices=range(1000, 9, -2),
            usual=(600, 240, 120, 70, 40),
            options=lambda ratio: {"irreversible": True, "quality_mode": "rates", "quality_layers": [ratio]},
            library="jpg_2000",
        ),
    )
}


def thinned(settings: Sequence[int]) -> list[int]:
    """The first, the middle and the last."""
    return sorted({settings[0], settings[len(settings) // 2], settings[-1]}, key=list(settings).index)


def choose_baselines(names: Sequence[str]) -> tuple[list[Baseline], list[str]]:
    """Those that can be used here, and a line for each that cannot. Raises UsageError for a name that is none."""
    strange = [name for name in names if name not in BASELINES]
    if strange:
        raise UsageError(f"--against {strange[0]}: not a codec that is known here: choose from {', '.join(BASELINES)}")
    found = [(BASELINES[name], BASELINES[name].why_missing()) for name in dict.fromkeys(names)]
    return [codec for codec, reason in found if reason is None], [reason for _, reason in found if reason is not None]


def timed_round_trip(codec: Baseline, picture: Picture, setting: int) -> tuple[bytes, Pixels, dict[str, float]]:
    """Encode and decode, with the seconds of each. Raises BenchError."""
    start = time.perf_counter()
    data = codec.encode(picture, setting)
    between = time.perf_counter()
    pixels = codec.decode(data)
    return data, pixels, {"encode": between - start, "decode": time.perf_counter() - between}


def convert_file(name: str, setting: str, source: str, target: str) -> None:
    """A picture's file into one of this codec, or back into PNG: the whole command, as a process of its own.

    Raises LatentzipError.
    """
    codec = BASELINES[name]
    reason = codec.why_missing()
    if reason is not None:
        raise BenchError(reason)
    if target.endswith(codec.suffix):
        write_bytes(Path(target), codec.encode(read_image(Path(source)), int(setting)), overwrite=True)
        return
    out = io.BytesIO()
    Image.fromarray(codec.decode(read_bytes(Path(source)))).save(out, "PNG")
    write_bytes(Path(target), out.getvalue(), overwrite=True)
