"""Pictures that are cut short: those that lack only their end mark, and what has arrived of others."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image, ImageChops, ImageFile

from latentzip.images.picture import Pixels

END = b"\xff\xd9"  # EOI of JPEG, and EOC of a JPEG 2000 codestream
WITH_END = {b"\xff\xd8\xff": "JPEG", b"\xff\x4f\xff\x51": "JPEG2000", b"\0\0\0\x0cjP  ": "JPEG2000"}
# Stand where data is missing, and mean something else there than the zeros that a decoder takes: noise, and the same
# noise behind each of the eight restart marks, as it is passed over where a decoder waits for one of these
NOISE = [
    bytes((start + i * step) % 251 for i in range(64)) for start, step in ((165, 37), (90, 53), (60, 71), (195, 29))
]
FILLERS = [noise + b"".join(bytes([0xFF, mark]) + noise for mark in range(0xD0, 0xD8)) for noise in NOISE]
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)  # kinds of frames
FRAMES = (*PROGRESSIVE, 0xC0, 0xC1, 0xC3, 0xC5, 0xC7, 0xC9, 0xCB, 0xCD, 0xCF)
SCAN = 0xDA
NEXT_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
COEFFICIENTS = 64
NO_END = "its end mark was missing"
CUT_SHORT = "was cut short or damaged: what is missing is blank or coarse"

# Pillow's switch for such files is one for all threads. Who may turn it keeps others out who may, too.
ALONE = Lock()


@contextmanager
def taking_what_is_there() -> Iterator[None]:
    """Pillow loads what has arrived of a picture. To be entered with ALONE held."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def with_its_end(data: bytes) -> bytes | None:
    """A file of JPEG or JPEG 2000 that lacks its end mark and nothing else, with it. None for any other file.

    A decoder takes zeros for what is missing of a JPEG before its end mark. So it is told by other data in that place,
    which is passed over where the picture is complete, and changes it where it is not.
    """
    name = next((name for signature, name in WITH_END.items() if data.startswith(signature)), None)
    if name is None or data.endswith(END):
        return None
    data = data.removesuffix(END[:1])
    try:
        whole = _load(data + END, name)
        if name == "JPEG":
            others = (_load(data + filler + END, name) for filler in FILLERS)
            if not _has_all_scans(data) or any(ImageChops.difference(whole, other).getbbox() for other in others):
                return None
    except Exception:  # whatever decoders raise
        return None
    return data + END


def _has_all_scans(jpeg: bytes) -> bool:
    """Whether the scans of a progressive JPEG send each coefficient of each component to its last bit.

    ITU-T T.81, annex G. Others have what they need in any case.
    """
    missing: dict[int, list[int]] = {}  # bits of each coefficient, by the components' numbers
    place = 2
    while found := NEXT_MARKER.search(jpeg, place):
        marker, start = jpeg[found.end() - 1], found.end()
        place = start + int.from_bytes(jpeg[start : start + 2], "big")
        segment = jpeg[start + 2 : place]
        if marker in FRAMES and marker not in PROGRESSIVE:
            return True
        if marker in FRAMES:
            missing = {segment[6 + 3 * i]: [1] * COEFFICIENTS for i in range(segment[5])}
        if marker == SCAN:
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for i in range(segment[0]):
                missing[segment[1 + 2 * i]][first : last + 1] = [bits & 0xF] * (last + 1 - first)
    return not any(bits for component in missing.values() for bits in component)


def shows_nothing(pixels: Pixels) -> bool:
    """Whether all pixels (H, W, 3) are one colour, as where none has arrived."""
    return bool((pixels == pixels[:1, :1]).all())


def _load(data: bytes, name: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=[name]) as image:
        image.load()
        return image
