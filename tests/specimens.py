"""PNG and TIFF files of any samples, made as their specifications say and by nothing that reads pictures."""

import struct
import zlib

import numpy as np


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(rows: np.ndarray, bits: int) -> list[bytes]:
    """Rows of integers -> each as bytes, the highest bit first."""
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> places & 1).astype(np.uint8).ravel()).tobytes() for row in rows.astype(int)]


def png(samples: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes], after: bytes = b"") -> bytes:
    """(H, W, C) integers -> a PNG of this colour type. `after`: chunks behind the pixels."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row for row in packed(samples.reshape(height, -1), bits))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + after + chunk(b"IEND", b"")


def tiff_of(strips: list[bytes], order: str, tags: dict[int, tuple[str, list[int]]]) -> bytes:
    """Strips, the byte order ("<" or ">"), and tags as a letter of `struct` (H, I; R: rational) and their values."""
    offsets = np.cumsum([8, *map(len, strips)])
    tags = tags | {273: ("I", offsets[:-1].tolist()), 279: ("I", [len(strip) for strip in strips])}
    start, directory, behind = int(offsets[-1]), struct.pack(order + "H", len(tags)), b""
    for tag, (letter, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{letter.replace('R', 'I')}", *values)
        count = len(values) // 2 if letter == "R" else len(values)
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4, "R": 5}[letter], count)
        if len(data) > 4:
            directory += struct.pack(order + "I", start + 2 + 12 * len(tags) + 4 + len(behind))
            behind += data
        else:
            directory += data.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", start) + b"".join(strips) + directory + bytes(4) + behind


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    extra: tuple[int, ...] = (),
    *,
    order: str = "<",
    sample_format: int = 1,
    planes: bool = False,
    compressed: bool = False,
    reversed_bits: bool = False,
    **tags: tuple[str, list[int]],
) -> bytes:
    """(H, W, C) numbers -> a TIFF. extra: ExtraSamples. tags: more of them, as t338=("H", [1])."""
    height, width, channels = samples.shape
    strips = []
    for part in np.moveaxis(samples, 2, 0) if planes else [samples]:
        rows = part.reshape(height, -1)
        letter = {1: "u", 2: "i", 3: "f"}[sample_format]
        whole = rows.astype(f"{order}{letter}{bits // 8}").tobytes() if bits % 8 == 0 else b"".join(packed(rows, bits))
        strip = zlib.compress(whole) if compressed else whole
        strips.append(bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) if reversed_bits else strip)
    found: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [8 if compressed else 1]),
        262: ("H", [photometric]),
        266: ("H", [2 if reversed_bits else 1]),
        277: ("H", [channels]),
        278: ("I", [height]),
        284: ("H", [2 if planes else 1]),
        339: ("H", [sample_format] * channels),
        **{int(name[1:]): value for name, value in tags.items()},
    }
    return tiff_of(strips, order, found | ({338: ("H", list(extra))} if extra else {}))
