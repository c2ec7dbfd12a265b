"""What travels beside the latent: transparency, colour profile, Exif, XMP, as chunks of a file and back. No torch."""

import zlib

from latentzip.container import Chunk, ChunkType, Container, Flag
from latentzip.errors import FormatError
from latentzip.images.picture import Metadata, Picture
from latentzip.images.profiles import KNOWN, known_profile, recognise
from latentzip.images.transparency import Plane, pack_alpha, parse_alpha
from latentzip.tiling import Window

MAX_METADATA = 2**24  # bytes of a profile, of Exif or of XMP, unpacked
OWN_PROFILE = 0


def pack_extras(picture: Picture) -> tuple[Chunk, ...]:
    """The chunks for all that a picture is beside its pixels. Raises FormatError for metadata that is too large."""
    chunks = []
    metadata = picture.metadata
    if metadata.profile is not None:
        chunks.append(Chunk(ChunkType.ICC, _pack_profile(metadata.profile)))
    if metadata.exif is not None:
        chunks.append(Chunk(ChunkType.EXIF, _deflate(metadata.exif)))
    if metadata.xmp is not None:
        chunks.append(Chunk(ChunkType.XMP, _deflate(metadata.xmp)))
    if picture.alpha is not None:
        chunks.append(Chunk(ChunkType.ALPHA, pack_alpha(picture.alpha)))
    return tuple(chunks)


def parse_metadata(container: Container) -> Metadata:
    """Raises FormatError for what is damaged, or unpacks to more than MAX_METADATA."""
    profile, exif, xmp = (_find(container, kind) for kind in (ChunkType.ICC, ChunkType.EXIF, ChunkType.XMP))
    return Metadata(
        profile=None if profile is None else _parse_profile(profile),
        exif=None if exif is None else _inflate(exif),
        xmp=None if xmp is None else _inflate(xmp),
    )


def parse_transparency(container: Container, region: Window | None = None) -> Plane | None:
    """(H, W) uint8, of the picture or of a region of it, or None for an opaque picture. Raises FormatError."""
    alpha = _find(container, ChunkType.ALPHA)
    if (alpha is not None) != bool(container.header.flags & Flag.ALPHA):
        raise FormatError("does not say clearly whether it is transparent: the file is damaged")
    return None if alpha is None else parse_alpha(alpha, (container.header.height, container.header.width), region)


def name_of_profile(container: Container) -> str | None:
    """What `info` calls a file's colour profile. Raises FormatError."""
    profile = _find(container, ChunkType.ICC)
    if profile is None:
        return None
    known = KNOWN.get(profile[0]) if len(profile) == 1 else None
    return known[0] if known else f"a profile of its own ({len(profile)} bytes)"


def _find(container: Container, kind: ChunkType) -> bytes | None:
    found = [chunk.payload for chunk in container.chunks if chunk.type == kind]
    if len(found) > 1:
        raise FormatError(f"has {len(found)} {kind.name} chunks: the file is damaged")
    return found[0] if found else None


def _pack_profile(profile: bytes) -> bytes:
    number = recognise(profile)
    if number is not None and profile == known_profile(number):
        return bytes([number])
    return bytes([OWN_PROFILE]) + _deflate(profile)


def _parse_profile(data: bytes) -> bytes:
    if data[:1] == bytes([OWN_PROFILE]):
        return _inflate(data[1:])
    if len(data) != 1 or data[0] not in KNOWN:
        raise FormatError("has a colour profile that this latentzip does not know: install a newer one")
    return known_profile(data[0])


def _deflate(data: bytes) -> bytes:
    if len(data) > MAX_METADATA:
        raise FormatError(f"{len(data)} bytes of metadata are more than a .lz file holds: give --metadata icc or none")
    return zlib.compress(data, 9)


def _inflate(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        unpacked = inflate.decompress(data, MAX_METADATA)
    except zlib.error:
        raise FormatError("its metadata cannot be unpacked: the file is damaged") from None
    if not inflate.eof or inflate.unused_data:
        raise FormatError("its metadata is damaged, or unpacks to more than it may")
    return unpacked
