"""Colours by code points (ITU-T H.273, "CICP"), as AVIF, HEIF and PNG have them instead of a profile."""

from dataclasses import dataclass

from latentzip.errors import ImageError
from latentzip.images.profiles import (
    D65_XY,
    P3_PRIMARIES,
    SRGB_CURVE,
    SRGB_PRIMARIES,
    VIDEO_CURVE,
    VIDEO_PRIMARIES,
    ColourSpace,
    columns_of,
    gamma_curve,
    parametric_curve,
    parse_tags,
)

C_XY, EQUAL_XY, DCI_XY = (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
NTSC_PRIMARIES = ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08))
PAL_PRIMARIES = ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06))
SMPTE_PRIMARIES = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
FILM_PRIMARIES = ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049))
XYZ_PRIMARIES = ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
EBU_PRIMARIES = ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077))
UNSPECIFIED = 2

# Tables 2 and 3 of H.273 (2024). What a file does not specify is sRGB's, as for a picture that says nothing.
PRIMARIES = {
    1: (SRGB_PRIMARIES, D65_XY),
    UNSPECIFIED: (SRGB_PRIMARIES, D65_XY),
    4: (NTSC_PRIMARIES, C_XY),
    5: (PAL_PRIMARIES, D65_XY),
    6: (SMPTE_PRIMARIES, D65_XY),
    7: (SMPTE_PRIMARIES, D65_XY),
    8: (FILM_PRIMARIES, C_XY),
    9: (VIDEO_PRIMARIES, D65_XY),
    10: (XYZ_PRIMARIES, EQUAL_XY),
    11: (P3_PRIMARIES, DCI_XY),
    12: (P3_PRIMARIES, D65_XY),
    22: (EBU_PRIMARIES, D65_XY),
}
LINEAR = 8
CURVES = {
    1: VIDEO_CURVE,
    UNSPECIFIED: SRGB_CURVE,
    4: gamma_curve(2.2),
    5: gamma_curve(2.8),
    6: VIDEO_CURVE,
    7: parametric_curve(3, 1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    LINEAR: gamma_curve(1.0),
    11: VIDEO_CURVE,  # and 12: they go on below 0 and above 1, where samples of pictures do not
    12: VIDEO_CURVE,
    13: SRGB_CURVE,
    14: VIDEO_CURVE,
    15: VIDEO_CURVE,
    17: gamma_curve(2.6),
}
HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class CodePoints:
    """colour_primaries and transfer_characteristics. Not `full_range`: samples of 8 bits go from 16 to 235."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    full_range: bool = True


def check_dynamic_range(transfer: int) -> None:
    """Raise ImageError for a transfer function of HDR, which has no white that a picture of 8 bits could have."""
    if transfer in HDR:
        raise ImageError(
            f"is HDR ({HDR[transfer]}), brighter than the white of any picture of 8 bits: map its tones to SDR first,"
            " as sRGB or Display P3"
        )


def transfer_of(profile: bytes) -> int:
    """What a profile says of its transfer function by a code point (ICC.1:2022, cicpTag). Raises ProfileError."""
    tag = parse_tags(profile).get(b"cicp", b"")
    return tag[9] if len(tag) >= 12 else UNSPECIFIED


def space_of(points: CodePoints) -> ColourSpace | None:
    """The colour space that code points name; None: they are reserved or logarithmic. Raises ImageError for HDR."""
    check_dynamic_range(points.transfer)
    if points.primaries not in PRIMARIES or points.transfer not in CURVES:
        return None
    return ColourSpace(columns_of(*PRIMARIES[points.primaries]), (CURVES[points.transfer],) * 3)
