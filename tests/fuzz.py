"""Mutated payloads against the readers: `python tests/fuzz.py 100000`. tests/test_fuzz.py runs a few.

Checksums are made right again after each mutation, so that it is the payload's own checks that are tried. Counts what
happened and prints it; anything but our errors ends it with the input that did it. tests/fuzz_guided.py tries whole
files, guided by coverage.
"""

import random
import re
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from conftest import TINY_KL, TINY_NORMAL, TINY_VQ, TINY_VQ_PRIOR, noise_picture, tiny_model
from PIL import ImageCms

from latentzip.cli.info import describe
from latentzip.codec import encode_image, paint, read_symbols
from latentzip.container import (
    CRC,
    FIRST_OPTIONAL_CHUNK,
    HEADER,
    MAX_CHUNKS,
    SUPPORTED_CHUNKS,
    SUPPORTED_FLAGS,
    TILES,
    Chunk,
    ChunkType,
    Container,
    Flag,
    Header,
    Index,
    PayloadKind,
    pack,
    parse,
)
from latentzip.errors import LatentzipError
from latentzip.images import Metadata, Picture, image_bytes
from latentzip.models.config import AutoencoderConfig
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, load_decoder, load_encoder

Sample = tuple[LoadedEncoder, Container]
CONFIGS = (TINY_KL, TINY_VQ, TINY_VQ_PRIOR, TINY_NORMAL)


def loaded(config: AutoencoderConfig) -> tuple[LoadedEncoder, LoadedDecoder]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        save_weights(path, config, tiny_model(config).state_dict(), {})
        return load_encoder(str(path), torch.device("cpu")), load_decoder(path, torch.device("cpu"))


def models() -> dict[bytes, LoadedDecoder]:
    """The tiny models' decoders, by the fingerprint that files name."""
    decoders = [loaded(config)[1] for config in CONFIGS]
    return {decoder.latent_fingerprint: decoder for decoder in decoders}


def repaired(data: bytes) -> bytes:
    """A file with its checksums made right, as far as it has a header and chunks; its sides no longer than 1024."""
    head = data[: HEADER.size - CRC.size]
    if len(data) >= HEADER.size:
        fields = list(HEADER.unpack_from(data))
        fields[5:7] = [side and (side - 1) % 1024 + 1 for side in fields[5:7]]
        head = HEADER.pack(*fields)[: -CRC.size]
    out = head + CRC.pack(zlib.crc32(head))
    for body, is_whole in _bodies(data):
        out += body + (CRC.pack(zlib.crc32(body)) if is_whole else b"")
    return out


def forced(data: bytes, fingerprints: Sequence[bytes]) -> bytes:
    """A file that the container's checks let pass, made of any bytes: what lies behind them is to be tried.

    No larger than 512 pixels a side, so that it is not size that takes the time.
    """
    _, _, kind, flags, _, width, height, latent, decoder, _ = HEADER.unpack(data[: HEADER.size].ljust(HEADER.size))
    if latent not in fingerprints:
        latent = fingerprints[latent[0] % len(fingerprints)]
    known = [int(kind) for kind in SUPPORTED_CHUNKS] + list(range(FIRST_OPTIONAL_CHUNK, 256))
    chunks = [Chunk(body[0] if body[0] in known else ChunkType.SCAN, _after_length(body)) for body, _ in _bodies(data)]
    header = Header(
        PayloadKind((kind - 1) % len(PayloadKind) + 1), Flag(flags) & SUPPORTED_FLAGS, (width - 1) % 512 + 1,
        (height - 1) % 512 + 1, latent, decoder,
    )  # fmt: skip
    return pack(Container(header, tuple(chunks[:MAX_CHUNKS]) or (Chunk(ChunkType.SCAN, b""),)))


def _bodies(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The chunks of a file without their checksums, and whether they are whole, whatever the file is like."""
    place = HEADER.size
    while place < len(data):
        length, end = _length(data, place)
        yield data[place : end + length], end + length <= len(data)
        place = end + length + CRC.size


def _length(data: bytes, place: int) -> tuple[int, int]:
    """The length of the chunk that begins at `place`, and where its payload does."""
    length, end = 0, place + 1
    for shift in range(0, 28, 7):
        if end >= len(data):
            break
        length |= (data[end] & 0x7F) << shift
        end += 1
        if data[end - 1] < 0x80:
            break
    return length, end


def _after_length(body: bytes) -> bytes:
    return body[_length(body, 0)[1] :]


def read_all(data: bytes, decoders: dict[bytes, LoadedDecoder]) -> str:
    """All that the commands do with a file, from `info` to a PNG: "read", or the error's kind and first words."""
    try:
        describe(data)
        container = parse(data)
        decoder = decoders.get(container.header.latent_fingerprint, next(iter(decoders.values())))
        image_bytes(paint(container, read_symbols(container, decoder), decoder), "PNG")
        return "read"
    except LatentzipError as error:
        return f"{type(error).__name__}: {re.sub('[0-9]+', 'N', ' '.join(str(error).split()[:5]))}"


def samples() -> list[Sample]:
    """A file of every payload kind, of one scan and of several where there can be several."""
    found = []
    for config in CONFIGS:
        model = loaded(config)[0]
        plain = Picture(noise_picture(1, 1).pixels.repeat(60, 0).repeat(90, 1), greyscale=False)
        for picture in (noise_picture(50, 70), noise_picture(3, 5), plain):
            files = [encode_image(picture, model, quality) for quality in (1, 60, 100)]
            if config is TINY_NORMAL:
                files.append(encode_image(picture, model, coding="fp16"))
            found += [(model, parse(file)) for file in files]
        found.append((model, parse(encode_image(noise_picture(900, 700), model, 100))))
        found.append((model, parse(encode_image(adorned(), model))))
        found.append((model, parse(in_code_tiles(model))))
        tiled = replace(found[-4][1].header, flags=Flag.TILED)
        found.append((model, Container(tiled, (Chunk(ChunkType.TILES, TILES.pack(4, 1)), *found[-4][1].chunks))))
    assert {container.header.kind for _, container in found} == set(PayloadKind)
    return found


# Small ones are refused, and latents of several large ones take long.
SMALL_TILES = patch("latentzip.payload.tiles.LEAST_TILE", 1)


def in_code_tiles(model: LoadedEncoder) -> bytes:
    """A file of several code tiles, with an index."""
    names = ("MOST_WITH_PRIOR", "MOST_WITHOUT")
    with patch.multiple("latentzip.payload.tiles", **dict.fromkeys(names, 4)):
        return encode_image(noise_picture(90, 70), model, 100)


def adorned() -> Picture:
    """A picture with everything that a file can hold beside it."""
    alpha = noise_picture(9, 8).pixels[..., 0]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x0f\0\x02\0\0\0\x03abc\0\0\0\0\0"
    return Picture(noise_picture(9, 8).pixels, False, alpha, Metadata(profile, exif, b"<x/>"))


def mutated(container: Container, rng: random.Random) -> Container:
    """Something else in its payload, its scans or its header."""
    scans = [bytearray(chunk.payload) for chunk in container.chunks if chunk.type == ChunkType.SCAN]
    header = container.header
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        scan = rng.choice(scans)
        place = rng.randrange(len(scan) + 1)
        match rng.randrange(9):
            case 0 if scan:
                scan[min(place, len(scan) - 1)] ^= 1 << rng.randrange(8)
            case 1 if scan:
                scan[rng.randrange(min(12, len(scan)))] = rng.choice((0, 1, 2, 127, 128, 255))
            case 2:
                del scan[place:]
            case 3:
                scan += rng.randbytes(rng.choice((1, 4, 100)))
            case 4:
                del scan[place : place + rng.choice((1, 4, 16))]
            case 5:
                scan[place:place] = rng.randbytes(rng.choice((1, 4, 16)))
            case 6:
                scan[:] = rng.randbytes(rng.randrange(300))
            case 7:
                header = replace(header, width=rng.randrange(1, 400), height=rng.randrange(1, 400))
            case 8:
                scans = rng.choice((scans[::-1], scans + scans[:1], scans[:-1] or scans))
            case _:
                pass
    if rng.random() < 0.03:
        header = replace(header, kind=rng.choice(list(PayloadKind)))
    chunks = [Chunk(ChunkType.SCAN, bytes(scan)) for scan in scans[:255]]
    if container.index is not None:
        tile = container.index.tile if rng.random() < 0.9 else (rng.randrange(1, 30), rng.randrange(1, 30))
        chunks.insert(0, Index(tile, tuple(map(len, scans[:255]))).pack())
    return Container(header, tuple(chunks))


def fuzz(count: int, seed: int) -> Iterator[str]:
    """What became of each of `count` mutated files: "read", or the error's first words."""
    rng = random.Random(seed)
    files = samples()
    for _ in range(count):
        model, container = rng.choice(files[:-1] if rng.random() < 0.98 else files)
        other = mutated(container, rng)
        data = pack(other)
        try:
            read_symbols(parse(data), model, partial=rng.random() < 0.3, most_parts=rng.choice((None, None, 1)))
            yield "read"
        except LatentzipError as error:
            yield f"{type(error).__name__}: {re.sub('[0-9]+', 'N', ' '.join(str(error).split()[:5]))}"
        except BaseException:
            print(f"{model.config.regularizer} {model.config.prior}: {data.hex()}", file=sys.stderr)
            raise


if __name__ == "__main__":
    torch.set_num_threads(1)
    SMALL_TILES.start()
    start, slowest, last = time.monotonic(), 0.0, time.monotonic()
    outcomes: Counter[str] = Counter()
    for outcome in fuzz(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0):
        outcomes[outcome] += 1
        now = time.monotonic()
        slowest, last = max(slowest, now - last), now
    print(f"{sum(outcomes.values())} files in {time.monotonic() - start:.0f} s, the slowest {slowest:.2f} s,", end=" ")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    for outcome, times in outcomes.most_common():
        print(f"{times:8} {outcome}")
