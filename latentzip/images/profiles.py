"""ICC profiles: which are kept, the well-known ones as a number, and the way to sRGB.

ICC.1:2022 describes the format. A profile of the matrix/TRC model says what three samples mean by the primaries'
colours and a curve for each channel; one of a grey picture by a curve alone. Such samples are close enough to sRGB's
for the networks, so they stay as they are and the profile travels with them. Others (tables, CMYK) are converted.
"""

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

HEADER_BYTES = 128
D50 = (0.9642, 1.0, 0.8249)
D65_XY, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)
RGB_SPACE, GREY_SPACE = b"RGB ", b"GRAY"
COLUMN_TAGS = (b"rXYZ", b"gXYZ", b"bXYZ")
CURVE_TAGS = (b"rTRC", b"gTRC", b"bTRC")
GREY_CURVE_TAG = b"kTRC"
TABLE_TAGS = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2")  # they go before matrix and curves
KNOWN_TAGS = (*COLUMN_TAGS, *CURVE_TAGS, GREY_CURVE_TAG, *TABLE_TAGS, b"cicp")
# Curves are compared in linear light, at 33 samples: sRGB's and a gamma of 2.2 differ by 0.008
CURVE_TOLERANCE, COLUMN_TOLERANCE = 0.001, 0.0015
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
Light = NDArray[np.floating[Any]]


class ProfileError(ValueError):
    """A profile that cannot be used. The message goes on after "its colour profile"."""


class TablesError(ProfileError):
    """A profile that is whole, as it seems, but not of the matrix/TRC model."""


@dataclass(frozen=True)
class ColourSpace:
    """What samples mean: the primaries' XYZ under D50 (none for grey), and each channel's curve as ICC stores it."""

    columns: tuple[tuple[float, float, float], ...]
    curves: tuple[bytes, ...]

    @property
    def greyscale(self) -> bool:
        return not self.columns

    @property
    def linear(self) -> bool:
        """Whether samples are in proportion to light."""
        straight = np.linspace(0, 1, 33)
        return all(np.abs(_evaluate(curve) - straight).max() < CURVE_TOLERANCE for curve in self.curves)

    def with_curve(self, curve: bytes) -> "ColourSpace":
        """The space of the same primaries with another curve in each channel."""
        return ColourSpace(self.columns, (curve,) * len(self.curves))

    def as_grey(self) -> "ColourSpace":
        """The space of pictures with one channel that look as this one's greys do."""
        return ColourSpace((), self.curves[len(self.curves) // 2 :][:1])

    def as_rgb(self) -> "ColourSpace":
        """The space of pictures with three equal channels that look as this grey one's do."""
        return ColourSpace(columns_of(SRGB_PRIMARIES, D65_XY), self.curves * 3)

    def is_like(self, other: "ColourSpace") -> bool:
        """Whether the same samples have, to the accuracy of 8 bits, the same colours in both."""
        if len(self.columns) != len(other.columns):
            return False
        ours, theirs = np.array([self.columns, other.columns])
        if self.columns and np.abs(ours - theirs).max() > COLUMN_TOLERANCE:
            return False
        pairs = zip(self.curves, other.curves, strict=True)
        return all(np.abs(_evaluate(a) - _evaluate(b)).max() < CURVE_TOLERANCE for a, b in pairs)


def _fixed(*numbers: float) -> bytes:
    """s15Fixed16Number."""
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def parametric_curve(kind: int, *parameters: float) -> bytes:
    return b"para" + struct.pack(">IHH", 0, kind, 0) + _fixed(*parameters)


def gamma_curve(exponent: float) -> bytes:
    return parametric_curve(0, exponent)


def columns_of(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float]
) -> tuple[tuple[float, float, float], ...]:
    """Chromaticities (x, y) of red, green and blue -> their XYZ, adapted from `white` to D50 by Bradford's method."""
    (x, y), xyz = white, np.array([[x, y, 1 - x - y] for x, y in primaries])
    lamp = np.array([x / y, 1, (1 - x - y) / y])
    weights = np.linalg.solve(xyz.T, lamp)
    cones = BRADFORD @ np.array([D50, lamp]).T
    adapt = np.linalg.solve(BRADFORD, (cones[:, 0] / cones[:, 1])[:, None] * BRADFORD)
    red, green, blue = ((float(x), float(y), float(z)) for x, y, z in (adapt @ (xyz * weights[:, None]).T).T)
    return red, green, blue


SRGB_CURVE = parametric_curve(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
VIDEO_CURVE = parametric_curve(3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)  # ITU-R BT.2020
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))  # SMPTE EG 432-1, under D65 as Apple has it
ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # Adobe RGB (1998) Color Image Encoding, 2005
ROMM_PRIMARIES = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))  # ISO 22028-2
VIDEO_PRIMARIES = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))  # ITU-R BT.2020

# The numbers are those of docs/format.md: never changed, never used again.
KNOWN: dict[int, tuple[str, ColourSpace]] = {
    1: ("sRGB", ColourSpace(columns_of(SRGB_PRIMARIES, D65_XY), (SRGB_CURVE,) * 3)),
    2: ("Display P3", ColourSpace(columns_of(P3_PRIMARIES, D65_XY), (SRGB_CURVE,) * 3)),
    3: ("Adobe RGB (1998)", ColourSpace(columns_of(ADOBE_PRIMARIES, D65_XY), (gamma_curve(563 / 256),) * 3)),
    4: ("ProPhoto RGB", ColourSpace(columns_of(ROMM_PRIMARIES, D50_XY), (gamma_curve(1.8),) * 3)),
    5: ("Rec. 2020", ColourSpace(columns_of(VIDEO_PRIMARIES, D65_XY), (VIDEO_CURVE,) * 3)),
    6: ("grey, gamma 2.2", ColourSpace((), (gamma_curve(2.2),))),
    7: ("grey, sRGB curve", ColourSpace((), (SRGB_CURVE,))),
}

SRGB_NUMBERS = (1, 7)


def recognise(profile: bytes) -> int | None:
    """The number of the well-known colour space that a profile describes, whatever it calls it."""
    try:
        space = parse_profile(profile)
        return next((number for number, (_, known) in KNOWN.items() if space.is_like(known)), None)
    except ProfileError:
        return None


@cache
def known_profile(number: int) -> bytes:
    """A profile of a well-known colour space. Raises KeyError."""
    return build_profile(KNOWN[number][1], KNOWN[number][0])


def parse_profile(profile: bytes) -> ColourSpace:
    """What a profile says of colours. Raises ProfileError where it is damaged or of other samples, or TablesError."""
    tags = parse_tags(profile)
    space = profile[16:20]
    if any(tag in tags for tag in TABLE_TAGS):
        raise TablesError("has tables")
    try:
        if space == GREY_SPACE:
            parsed = ColourSpace((), (tags[GREY_CURVE_TAG],))
        elif space == RGB_SPACE:
            columns = tuple(_parse_xyz(tags[tag]) for tag in COLUMN_TAGS)
            parsed = ColourSpace(columns, tuple(tags[tag] for tag in CURVE_TAGS))
        else:
            raise ProfileError(f"is of {space!r} samples")
    except KeyError as error:
        raise ProfileError(f"lacks {error}") from None
    for curve in parsed.curves:
        _evaluate(curve)
    return parsed


def build_profile(space: ColourSpace, name: str) -> bytes:
    """A profile, version 4.2, with what colours need and no more: no dates, no texts but `name`, no device's number."""
    tags = {b"desc": _text(name), b"cprt": _text("none"), b"wtpt": _xyz(D50)}
    tags |= dict(zip(COLUMN_TAGS, map(_xyz, space.columns), strict=False))
    tags |= dict(zip((GREY_CURVE_TAG,) if space.greyscale else CURVE_TAGS, space.curves, strict=True))
    offset = HEADER_BYTES + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}  # data that several tags have is there once
    body = b""
    for data in tags.values():
        if data not in places:
            places[data] = offset + len(body)
            body += data + bytes(-len(data) % 4)
    table = b"".join(tag + struct.pack(">II", places[data], len(data)) for tag, data in tags.items())
    head = struct.pack(
        ">I4sI4s4s4s6H4s28s12s",
        *(offset + len(body), b"", 0x04200000, b"mntr", GREY_SPACE if space.greyscale else RGB_SPACE, b"XYZ "),
        *(2000, 1, 1, 0, 0, 0, b"acsp", b"", _fixed(*D50)),
    )
    return head.ljust(HEADER_BYTES, b"\0") + struct.pack(">I", len(tags)) + table + body


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Samples of a profile -> sRGB's, in mode RGB, or L if that was the mode. Raises ProfileError."""
    target, mode = (known_profile(7), "L") if image.mode == "L" else (known_profile(1), "RGB")
    try:
        source, goal = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (profile, target))
        converted = ImageCms.profileToProfile(image, source, goal, outputMode=mode)
    except (ImageCms.PyCMSError, OSError) as error:
        raise ProfileError(f"cannot be used ({error})") from None
    assert converted is not None
    converted.info.pop("icc_profile", None)
    return converted


def from_srgb(colour: tuple[int, ...], profile: bytes) -> tuple[int, ...]:
    """Three samples of sRGB, 0 to 255 -> one or three of a profile of grey or RGB that `parse_profile` reads."""
    mode = "L" if parse_profile(profile).greyscale else "RGB"
    source, goal = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (known_profile(1), profile))
    converted = ImageCms.profileToProfile(
        Image.fromarray(np.array([[colour]], np.uint8)), source, goal, outputMode=mode
    )
    assert converted is not None
    return tuple(np.asarray(converted).ravel().tolist())


def parse_tags(profile: bytes) -> dict[bytes, bytes]:
    """What is under each tag of a profile that is known here. Raises ProfileError where its table is damaged.

    The others are not copied: thousands of them may share the profile's bytes.
    """
    if len(profile) < HEADER_BYTES + 4 or profile[36:40] != b"acsp":
        raise ProfileError("is not an ICC profile")
    count = int.from_bytes(profile[HEADER_BYTES : HEADER_BYTES + 4], "big")
    if not 0 < count <= (len(profile) - HEADER_BYTES - 4) // 12:
        raise ProfileError("has a tag table that is damaged")
    tags = {}
    for i in range(count):
        tag, offset, length = struct.unpack_from(">4sII", profile, HEADER_BYTES + 4 + 12 * i)
        if offset + length > len(profile):
            raise ProfileError("has a tag beyond its end")
        if tag in KNOWN_TAGS and tag not in tags:
            tags[tag] = profile[offset : offset + length]
    return tags


def _parse_xyz(data: bytes) -> tuple[float, float, float]:
    if data[:4] != b"XYZ " or len(data) < 20:
        raise ProfileError("has a damaged colour")
    x, y, z = struct.unpack_from(">3i", data, 8)
    return x / 65536, y / 65536, z / 65536


def _xyz(colour: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*colour)


def _text(text: str) -> bytes:
    """multiLocalizedUnicodeType, with one text, in English."""
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(encoded), 28) + encoded


def _evaluate(curve: bytes) -> Light:
    """A curveType or parametricCurveType at 33 samples from 0 to 1 -> linear light. Raises ProfileError."""
    x = np.linspace(0, 1, 33)
    kind = curve[:4]
    if kind == b"curv" and len(curve) >= 12:
        count = int.from_bytes(curve[8:12], "big")
        if len(curve) < 12 + 2 * count:
            raise ProfileError("has a curve that ends early")
        if count == 0:
            return x
        table = np.frombuffer(curve, ">u2", count, 12)
        if count == 1:
            return np.asarray(x ** (int(table[0]) / 256))
        return np.asarray(np.interp(x, np.linspace(0, 1, count), table / 65535))
    if kind == b"para" and len(curve) >= 12:
        form = int.from_bytes(curve[8:10], "big")
        count = (1, 3, 4, 5, 7)[form] if form <= 4 else 99
        if len(curve) < 12 + 4 * count:
            raise ProfileError("has a curve that ends early")
        g, a, b, c, d, e, f = (*(n / 65536 for n in struct.unpack_from(f">{count}i", curve, 12)), *(0.0,) * 7)[:7]
        if form == 0:
            a = 1.0
        elif form in (1, 2):
            c, d, e, f = 0.0, -b / (a or 1.0), c, c
        if g > 0:
            return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
    raise ProfileError("has a curve of an unknown kind")
