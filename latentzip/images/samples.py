"""Samples of any mode and depth that Pillow knows -> 8 bits, grey or RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from latentzip.errors import ImageError
from latentzip.images.codepoints import check_dynamic_range, transfer_of
from latentzip.images.picture import MetadataWish
from latentzip.images.profiles import (
    GREY_SPACE,
    RGB_SPACE,
    SRGB_CURVE,
    SRGB_NUMBERS,
    ProfileError,
    TablesError,
    build_profile,
    known_profile,
    parse_profile,
    recognise,
    to_srgb,
)

DEEP_KEPT_AS_8 = "16-bit samples kept as 8-bit"
# A float picture has no range of its own: black and white are 0 and 1, or it is refused. Filters overshoot a little.
FLOAT_SLACK = 0.1
OTHER_COLOURS = ("CMYK", "LAB", "YCbCr", "HSV", "RGBX")
LARGEST_PROFILE = 2**20


def to_eight_bits(image: Image.Image) -> tuple[Image.Image, str | None]:
    """A picture with at most 8 bits a sample, and what was done for it.

    Raises ImageError for samples of no known range.
    """
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        clear = image.info.get("transparency")
        grey = Image.fromarray(_from_sixteen(samples))
        if isinstance(clear, int):
            grey.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
        return _with_info(grey, image), DEEP_KEPT_AS_8
    if image.mode == "I":
        samples = np.asarray(image)
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > 65535:
            raise ImageError(
                f"has 32-bit samples from {low} to {high}, which are not 16-bit ones: save it as 8 or 16 bits a sample"
            )
        return _with_info(Image.fromarray(_from_sixteen(samples)), image), DEEP_KEPT_AS_8
    if image.mode == "F":
        floats = np.asarray(image)
        bottom, top = float(floats.min()), float(floats.max())
        if not -FLOAT_SLACK <= bottom <= top <= 1 + FLOAT_SLACK:  # NaN neither
            raise ImageError(
                f"has float samples from {bottom:g} to {top:g}: only 0 (black) to 1 (white) are taken; scale them, or"
                " save it as 8 or 16 bits a sample"
            )
        levels = np.rint(np.clip(floats, 0, 1) * 255).astype(np.uint8)
        return _with_info(Image.fromarray(levels), image), "float samples, 0 to 1, kept as 8-bit"
    return image, None


def resolve_palette(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """A picture without a palette, with its transparency if it has one, and what was done for it."""
    if image.mode not in ("P", "PA"):
        return image, None
    colours = "L" if profile is None and _is_grey(image) else "RGB"
    return image.convert(colours + "A" if image.has_transparency_data else colours), "palette resolved"


def to_full_range(image: Image.Image) -> Image.Image:
    """L or RGB of narrow range, from 16 (black) to 235 (white) as in video -> from 0 to 255."""
    levels = np.rint((np.arange(256) - 16) * 255 / 219).clip(0, 255)
    return image.point(levels.astype(int).tolist() * len(image.getbands()))


def to_colours(
    image: Image.Image, profile: bytes | None, wish: MetadataWish
) -> tuple[Image.Image, bytes | None, str | None]:
    """An opaque picture of at most 8 bits -> mode L or RGB, the profile that says what these mean, and what was done.

    Without a profile the samples are, or are taken for, sRGB. Raises ImageError for a mode of another kind and for HDR.
    """
    done = None
    if image.mode == "1":
        image, profile, done = image.convert("L"), None, "1-bit kept as greyscale"
    if image.mode in OTHER_COLOURS:
        return _other_colours(image, profile)
    if image.mode not in ("L", "RGB"):
        raise ImageError(f"has samples of mode {image.mode}, which are not known here: save it as RGB")
    if profile is None:
        return image, None, done
    try:
        image, profile, converted = _with_profile(image, profile, wish)
    except ProfileError as error:
        return image, None, f"its colour profile {error}, and was passed over"
    return image, profile, converted or done


def _with_profile(
    image: Image.Image, profile: bytes, wish: MetadataWish
) -> tuple[Image.Image, bytes | None, str | None]:
    """L or RGB and a profile -> as `to_colours`. Raises ProfileError for one that is damaged or does not fit."""
    samples = profile[16:20]
    if samples != RGB_SPACE and (samples, image.mode) != (GREY_SPACE, "L"):
        raise ProfileError(f"is of other samples than {image.mode}")
    try:
        space = parse_profile(profile)
    except TablesError:
        if samples == RGB_SPACE and image.mode == "L":
            raise
        return to_srgb(image, profile), None, "colours converted to sRGB (the profile has tables)"
    check_dynamic_range(transfer_of(profile))
    as_it_is, done = wish == "all", None
    if image.mode == "L" and not space.greyscale:
        space, as_it_is = space.as_grey(), False
        profile = build_profile(space, "grey")
    if space.linear and not as_it_is:  # the networks know no such darks, and 8 bits have too few levels for them
        image, space, done = _to_srgb_curve(image), space.with_curve(SRGB_CURVE), "linear light kept with sRGB's curve"
        profile = build_profile(space, "linear before")
    number = recognise(profile)
    if wish == "none":
        plain = number in SRGB_NUMBERS
        return (image, None, done) if plain else (to_srgb(image, profile), None, "colours converted to sRGB")
    if len(profile) > LARGEST_PROFILE:
        return to_srgb(image, profile), None, "colours converted to sRGB (the profile is too large)"
    if not as_it_is:
        profile = (
            build_profile(space, "grey" if space.greyscale else "RGB") if number is None else known_profile(number)
        )
    return image, profile, done


def _other_colours(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None, str]:
    mode = image.mode
    if profile is not None and mode in ("CMYK", "LAB"):
        try:
            return to_srgb(image, profile), None, f"{mode} converted to sRGB through its profile"
        except ProfileError:
            pass
    if mode == "LAB":
        image = _lab_to_srgb(image)
    return image.convert("RGB"), None, f"{mode} converted to sRGB"


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


def _to_srgb_curve(image: Image.Image) -> Image.Image:
    """Samples that are linear in light -> with sRGB's curve (IEC 61966-2-1)."""
    light = np.arange(256) / 255
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return image.point(np.rint(levels * 255).astype(int).tolist() * len(image.getbands()))


def _from_sixteen(samples: NDArray[Any]) -> NDArray[np.uint8]:
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    return palette[0::3] == palette[1::3] == palette[2::3]


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    image.info = {k: v for k, v in source.info.items() if k != "transparency"}
    return image
