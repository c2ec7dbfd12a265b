"""Pillow opens and saves .lz files: `import latentzip.LzImagePlugin`, or `latentzip.register()`.

The media type has an x- because none is registered. The suffix is lzip's too, so files are known by their signature.
Opening reads the file's bytes and no network; torch and the weights wait for the first use of the pixels.
"""

import io
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from latentzip.container import LZIP_SIGNATURE, SIGNATURE, parse
from latentzip.errors import LatentzipError
from latentzip.extras import parse_metadata
from latentzip.images.claims import look, profile_of
from latentzip.images.loading import load
from latentzip.images.metadata import image_info, upright, without_orientation

FORMAT, SUFFIX, MIME = "LATENTZIP", ".lz", "image/x-latentzip"
# Options of `Image.save`, beside Pillow's own icc_profile, exif and xmp; `latentzip.encode` says what they mean.
SETTINGS = ("quality", "bpp", "size", "effort", "model", "coding", "alpha", "metadata", "verify")
METADATA: dict[str, tuple[type, ...]] = {"icc_profile": (bytes,), "exif": (bytes, Image.Exif), "xmp": (bytes, str)}


class LzImageFile(ImageFile.ImageFile):
    format = FORMAT
    format_description = "latentzip image"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        try:
            container = parse(self._data, partial=True)
            self.info.update(image_info(parse_metadata(container)))
        except LatentzipError as error:
            raise UnidentifiedImageError(self._say(error)) from None
        self._size = container.header.width, container.header.height
        self._mode = container.header.mode
        # Pillow's decoder for raw samples gets what ours gives, in `load`
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]

    def verify(self) -> None:
        """Check the file's structure and checksums, with no network. Raises OSError for one that is damaged or cut."""
        if self.tile:
            try:
                parse(self._data)
            except LatentzipError as error:
                raise OSError(self._say(error)) from None
        super().verify()

    def load(self) -> Any:
        """Raises OSError for a file that is damaged, cut short (but see ImageFile.LOAD_TRUNCATED_IMAGES), or whose
        model is not here."""
        if self.tile:
            from latentzip.api import decode

            try:
                image = decode(self._data, partial=bool(ImageFile.LOAD_TRUNCATED_IMAGES))
            except LatentzipError as error:
                raise OSError(self._say(error)) from None
            if self.fp and self._exclusive_fp:
                self.fp.close()
            self.fp = io.BytesIO(image.tobytes())
            self._data = b""
        return super().load()

    def load_seek(self, pos: int) -> None:
        pass

    def _say(self, error: LatentzipError) -> str:
        name = self.filename.decode(errors="replace") if isinstance(self.filename, bytes) else self.filename
        return f"{name}: {error}" if name else str(error)


def _accept(prefix: bytes) -> bool | str:
    if prefix.startswith(LZIP_SIGNATURE):
        return "this is an lzip archive, not a latentzip image"  # Pillow warns with it when nobody else accepts
    return prefix.startswith(SIGNATURE)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    from latentzip.api import encode

    wishes = image.encoderinfo
    settings = {name: wishes[name] for name in SETTINGS if name in wishes}
    given = {name: wishes[name] for name in METADATA if wishes.get(name)}
    for name, data in given.items():
        if not isinstance(data, METADATA[name]):
            raise OSError(
                f"{name} of type {type(data).__name__}: give {' or '.join(t.__name__ for t in METADATA[name])}"
            )
    try:
        if given:
            settings["metadata"] = "all"
            image = _with_metadata(image, given, keep=wishes.get("metadata") == "all")
        file.write(encode(image, **settings))
    except LatentzipError as error:
        raise OSError(str(error)) from None


def _with_metadata(image: Image.Image, given: dict[str, Any], keep: bool) -> Image.Image:
    """A copy with the metadata that the caller gives; its own Exif and XMP, as in Pillow's formats, only on request.

    The pixels are turned as the Exif data says that is given; where none is, as their own says.
    """
    given = dict(given)
    if isinstance(given.get("exif"), Image.Exif):
        given["exif"] = given["exif"].tobytes()
    profile, _ = profile_of(image, look(image))  # a copy does not know its file's format any more
    if profile is not None:
        given.setdefault("icc_profile", profile)
    image = load(image)
    if "exif" not in given:
        image, _ = upright(image)
        if "xmp" in given:
            given["xmp"] = without_orientation(given["xmp"])
    image = image.copy()
    own: dict[Any, Any] = {name: data for name, data in image.info.items() if keep or name not in ("exif", "xmp")}
    image.info = own | given
    return image


def register() -> None:
    """Let Pillow open and save .lz files. More than once does no harm."""
    Image.register_open(FORMAT, LzImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


register()
