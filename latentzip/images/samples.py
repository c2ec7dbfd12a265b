"""Samples of any mode and depth that Pillow knows -> 8 bits, grey or RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from latentzip.errors import ImageError
from latentzip.images.picture import MetadataWish
from latentzip.images.profiles import (
    ProfileError,
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


def is_deep(image: Image.Image) -> bool:
    """Whether a file that is not loaded yet has 16-bit samples that Pillow will read as 8-bit ones."""
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


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


def to_colours(
    image: Image.Image, profile: bytes | None, wish: MetadataWish
) -> tuple[Image.Image, bytes | None, str | None]:
    """An opaque picture of at most 8 bits -> mode L or RGB, the profile that says what these mean, and what was done.

    Without a profile the samples are, or are taken for, sRGB. Raises ImageError for a mode of another kind.
    """
    source = image.mode
    if source == "1":
        image, profile = image.convert("L"), None
    elif source == "P":
        image = image.convert("L" if profile is None and _is_grey(image) else "RGB")
    if image.mode not in ("L", "RGB", *OTHER_COLOURS):
        raise ImageError(f"has samples of mode {image.mode}, which are not known here: save it as RGB")
    what = {"1": "1-bit kept as greyscale", "P": "palette resolved"}.get(source)
    if image.mode in OTHER_COLOURS:
        return _other_colours(image, profile)
    if profile is None:
        return image, None, what
    try:
        space = parse_profile(profile)
    except ProfileError as error:
        if profile[16:20] != (b"GRAY" if image.mode == "L" else b"RGB "):
            return image, None, "its colour profile does not fit its samples and was passed over"
        try:
            return to_srgb(image, profile), None, "colours converted to sRGB (the profile has tables)"
        except ProfileError:
            return image, None, f"its colour profile {error} and was passed over"
    if space.greyscale and image.mode == "RGB":
        return image, None, "its colour profile does not fit its samples and was passed over"
    adapted = image.mode == "L" and not space.greyscale  # a grey picture with an RGB profile
    if adapted:
        space = space.as_grey()
        profile = build_profile(space, "grey")
    if wish == "none":
        known = recognise(profile)
        return (image, None, what) if known in (1, 7) else (to_srgb(image, profile), None, "colours converted to sRGB")
    if len(profile) > LARGEST_PROFILE:
        return to_srgb(image, profile), None, "colours converted to sRGB (the profile is too large)"
    if wish == "all" and not adapted:
        return image, profile, what
    number = recognise(profile)
    return (
        image,
        build_profile(space, "RGB" if space.columns else "grey") if number is None else known_profile(number),
        what,
    )


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


def _from_sixteen(samples: NDArray[Any]) -> NDArray[np.uint8]:
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    return palette[0::3] == palette[1::3] == palette[2::3]


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    image.info = {k: v for k, v in source.info.items() if k != "transparency"}
    return image
