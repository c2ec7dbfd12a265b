"""Mutated payloads against the readers: `python tests/fuzz.py 100000`. tests/test_fuzz.py runs a few.

Checksums are made right again after each mutation, so that it is the payload's own checks that are tried. Counts what
happened and prints it; anything but our errors ends it with the input that did it.
"""

import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from conftest import TINY_KL, TINY_NORMAL, TINY_VQ, TINY_VQ_PRIOR, noise_picture, tiny_model

from latentzip.codec import encode_image, read_symbols
from latentzip.container import Chunk, ChunkType, Container, PayloadKind, pack, parse
from latentzip.errors import LatentzipError
from latentzip.images import Picture
from latentzip.models.config import AutoencoderConfig
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedEncoder, load_encoder

Sample = tuple[LoadedEncoder, Container]


def loaded(config: AutoencoderConfig) -> LoadedEncoder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        save_weights(path, config, tiny_model(config).state_dict(), {})
        return load_encoder(str(path), torch.device("cpu"))


def samples() -> list[Sample]:
    """A file of every payload kind, of one scan and of several where there can be several."""
    found = []
    for config in (TINY_KL, TINY_VQ, TINY_VQ_PRIOR, TINY_NORMAL):
        model = loaded(config)
        plain = Picture(noise_picture(1, 1).pixels.repeat(60, 0).repeat(90, 1), greyscale=False)
        for picture in (noise_picture(50, 70), noise_picture(3, 5), plain):
            files = [encode_image(picture, model, quality) for quality in (1, 60, 100)]
            if config is TINY_NORMAL:
                files.append(encode_image(picture, model, coding="fp16"))
            found += [(model, parse(file)) for file in files]
        found.append((model, parse(encode_image(noise_picture(900, 700), model, 100))))
    assert {container.header.kind for _, container in found} == set(PayloadKind)
    return found


def mutated(container: Container, rng: random.Random) -> Container:
    """Something else in its payload, its scans or its header."""
    scans = [bytearray(chunk.payload) for chunk in container.chunks]
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
    return Container(header, tuple(Chunk(ChunkType.SCAN, bytes(scan)) for scan in scans[:255]))


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
