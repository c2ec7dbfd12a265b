"""The pictures that a comparison is made on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from latentzip.errors import BenchError
from latentzip.images import Picture, read_image


@dataclass(frozen=True)
class Source:
    """A picture's file that could be read. digest: of its pixels."""

    path: Path
    digest: str
    width: int
    height: int

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pixels(self) -> int:
        return self.width * self.height


def find_pictures(places: Sequence[Path], limit: int | None) -> list[Path]:
    """The pictures that are named, and those in folders that are, by name; without any those of latentzip's tests.

    Raises BenchError where there are none.
    """
    Image.init()
    found: list[Path] = []
    for place in places or [_shipped()]:
        if place.is_dir():
            try:
                inside = sorted(place.iterdir())
            except OSError as error:
                raise BenchError(f"{place}: cannot be read ({error.strerror})") from None
            pictures = [path for path in inside if path.suffix.lower() in Image.EXTENSION and path.is_file()]
            if not pictures:
                raise BenchError(f"{place}: holds no pictures (folders inside it are not searched)")
            found += pictures
        elif place.exists():
            found.append(place)
        else:
            raise BenchError(f"{place}: no such file or folder")
    return list(dict.fromkeys(found))[:limit]


def _shipped() -> Path:
    """The two pictures of the tests, which a source tree has and an installed package has not."""
    tree = Path(str(files("latentzip"))).parent
    folder = tree / "tests" / "images"
    if not folder.is_dir() or not (tree / "pyproject.toml").exists():
        raise BenchError("no pictures are installed with latentzip: name some, or a folder of them")
    return folder


@lru_cache(maxsize=2)
def load(path: Path) -> Picture:
    """A picture in sRGB, transparent ones on white. Raises ImageError."""
    return read_image(path, alpha="white", metadata="none")


def inspect(path: Path) -> Source:
    """Raises ImageError."""
    picture = load(path)
    height, width = picture.pixels.shape[:2]
    digest = hashlib.sha256(np.array(picture.pixels.shape, "<i8").tobytes() + picture.pixels.tobytes())
    digest.update(bytes([picture.greyscale]))
    return Source(path, digest.hexdigest()[:16], width, height)
