"""Small files that claim to be large: refused, and before memory is taken for what they claim."""

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result

from latentzip.container import MAX_SIDE, Chunk, ChunkType, Container, Flag, Header, PayloadKind, pack
from latentzip.errors import FormatError
from latentzip.payload.plain import parse_half
from latentzip.zoo.loading import load_encoder
from latentzip.zoo.registry import built_in

Cli = Callable[..., Result]
MUCH = 100_000_000  # bytes; far less than what the files below claim, far more than what it takes to refuse them


def claim(side: int, flags: Flag, *chunks: Chunk) -> bytes:
    """A file of the default model, of few bytes, that says that it is a picture of side x side pixels."""
    entry = built_in()[0]
    header = Header(PayloadKind.KL_PRIOR, flags, side, side, entry.latent_fingerprint, entry.decoder_fingerprint)
    return pack(Container(header, (Chunk(ChunkType.SCAN, bytes([1, 1, 0, 0, 0, 0])), *chunks)))


@pytest.mark.parametrize("command", ["decode", "verify"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_few_bytes_that_claim_an_enormous_picture(cli: Cli, tmp_path: Path, command: str, with_alpha: bool) -> None:
    load_encoder(None, torch.device("cpu"))  # what else is loaded is not what is measured
    alpha = [Chunk(ChunkType.ALPHA, b"\x80")] if with_alpha else []
    path = tmp_path / "bomb.lz"
    path.write_bytes(claim(MAX_SIDE, Flag.ALPHA if with_alpha else Flag(0), *alpha))
    assert len(path.read_bytes()) < 60
    tracemalloc.start()
    try:
        result = cli(command, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.code == 1
    assert f"{path}: has {MAX_SIDE}x{MAX_SIDE} pixels, more than" in result.err
    assert peak < MUCH
    assert os.listdir(tmp_path) == ["bomb.lz"]
    assert cli("info", path).code == 0


def test_a_latent_that_unpacks_to_more_than_it_may() -> None:
    scan = zlib.compress(bytes(50_000_000))
    assert len(scan) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="another length"):
            parse_half([scan], 4, (8, 8))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that says it has so many grey pixels, with chunks before a little data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    made = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("side", png(MAX_SIDE, MAX_SIDE)),
        ("profile", png(4, 4, (b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))))),
    ],
    ids=["side", "profile"],
)
def test_pictures_that_are_bombs(
    cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path], name: str, data: bytes
) -> None:
    path = tmp_path / f"{name}.png"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        result = cli("encode", path, "-m", tiny_weights["vq"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.code == 1
    assert result.err.startswith(f"latentzip: {path}: ")
    assert peak < MUCH
    assert os.listdir(tmp_path) == [path.name]


def test_texts_that_are_bombs_are_not_unpacked(cli: Cli, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """Texts are not kept, and no reason to refuse a picture."""
    path = tmp_path / "text.png"
    path.write_bytes(png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))))
    tracemalloc.start()
    try:
        result = cli("encode", path, "-m", tiny_weights["vq"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.code == 0
    assert peak < MUCH


def test_programs_are_not_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is known by its content, whatever its name; Pillow would start Ghostscript."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("subprocess.check_call", start)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", start)
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    result = cli("encode", path)
    assert (result.code, os.listdir(tmp_path)) == (1, ["photo.png"])
    assert "is a program" in result.err
