"""What a file costs to read: no more than an honest one of its size, in work and in memory."""

import io
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise_picture
from PIL import Image

from latentzip.codec import encode_image, read_symbols
from latentzip.container import (
    Chunk,
    ChunkType,
    Container,
    Flag,
    Header,
    Index,
    PayloadKind,
    pack,
    parse,
    parse_file,
)
from latentzip.errors import FormatError
from latentzip.extras import parse_transparency
from latentzip.images import transparency
from latentzip.images.transparency import pack_alpha, parse_alpha
from latentzip.payload.tiles import check_tile
from latentzip.tiling import Window
from latentzip.zoo.loading import LoadedEncoder, load_encoder


def loaded(path: Path) -> LoadedEncoder:
    return load_encoder(str(path), torch.device("cpu"))


@pytest.mark.parametrize("name", ["kl", "vq", "vq-prior", "normal"])
def test_a_latent_is_not_longer_than_its_bytes(tiny_weights: dict[str, Path], name: str) -> None:
    """A range coder gives symbols for ever. Few bytes that claim a large picture are found out at the first of them."""
    model = loaded(tiny_weights[name])
    container = parse(encode_image(noise_picture(90, 70), model, 90))
    scan = container.scans[0]
    assert read_symbols(container, model).parts[0] >= 1
    for length in (len(scan) // 8 * 4 + len(scan) % 4, len(scan) - 24):
        cut = Container(container.header, (Chunk(ChunkType.SCAN, scan[:length]),))
        with pytest.raises(FormatError, match=r"shorter than its symbols|another length|ends within"):
            read_symbols(cut, model)


def test_tiles_are_neither_small_nor_large(tiny_weights: dict[str, Path]) -> None:
    """But for a latent that is small itself, along either side. What was learned is coded in smaller tiles."""
    learned, counted = loaded(tiny_weights["kl"]).latent, loaded(tiny_weights["vq"]).latent
    for tile, size in (((32, 32), (512, 512)), ((1, 32), (1, 900)), ((5, 7), (5, 7)), ((192, 100), (193, 100))):
        check_tile(tile, size, learned)
    check_tile((512, 512), (4096, 512), counted)
    for tile, size in (((31, 32), (512, 512)), ((1, 1), (1, 2)), ((4, 7), (5, 7))):
        with pytest.raises(FormatError, match="fewer than 32 latent positions"):
            check_tile(tile, size, learned)
    for tile, latent in (((193, 32), learned), ((32, 513), counted)):
        with pytest.raises(FormatError, match=r"more than (192|512) latent positions"):
            check_tile(tile, (4096, 4096), latent)


def test_one_tile_of_a_large_picture_is_refused_before_any_work(
    tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny_weights["kl"])
    head = parse(encode_image(noise_picture(9, 9), model)).header
    monkeypatch.setattr("latentzip.codec.parse_payload", lambda *_, **__: pytest.fail("it was read"))
    monkeypatch.setattr("latentzip.payload.tiles.parse_payload", lambda *_, **__: pytest.fail("it was read"))
    scan = Chunk(ChunkType.SCAN, bytes([1, 1, 0, 0, 0, 0]))
    large = replace(head, width=8192, height=8192)
    for chunks in ((scan,), (Index((512, 512), (6,)).pack(), scan), (Index((1, 1), (6,)).pack(), scan)):
        with pytest.raises(FormatError, match="latent positions a side"):
            read_symbols(parse(pack(Container(large, chunks))), model)


def index_of(entries: int, side: int, tile: int) -> bytes:
    """A file whose INDEX lists so many scans, none of which is there."""
    header = Header(PayloadKind.KL_PRIOR, Flag(0), side, side, b"8 bytes!", b"four")
    payload = struct.pack("<HH", tile, tile) + bytes(entries)
    return pack(Container(header, (Chunk(ChunkType.INDEX, payload),)))


@pytest.mark.parametrize(("side", "tile"), [(16, 16), (16, 1), (65535, 1), (400, 192)])
def test_an_index_lists_no_more_than_there_can_be(side: int, tile: int) -> None:
    """Whatever the factor: tiles of the least size, with the most parts that a head can name. No more is read."""
    data = index_of(1_000_000, side, tile)
    for read in (parse, lambda data: parse_file(io.BytesIO(data))):
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match=r"more than [0-9]+ scans"):
                read(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * len(data)  # the file's bytes, of which there are some copies


def test_scans_that_are_not_there_are_missed_before_they_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentzip.container.reading.read_scan", lambda *_: pytest.fail("it was read"))
    with pytest.raises(FormatError, match="where at least"):
        parse(index_of(1_000_000, 65535, 32))


def test_of_transparency_a_region_decodes_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transparency, "TILE", 16)
    plane = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    packed = pack_alpha(plane)
    real, sizes = transparency._parse_tile, []

    def counted(data: bytes, size: tuple[int, int]) -> transparency.Plane:
        sizes.append(size)
        return real(data, size)

    monkeypatch.setattr(transparency, "_parse_tile", counted)
    for window, tiles in ((Window(17, 33, 20, 40), 1), (Window(15, 15, 17, 17), 4), (Window(48, 64, 50, 70), 1)):
        sizes.clear()
        assert np.array_equal(parse_alpha(packed, (50, 70), window), plane[window.slices])
        assert len(sizes) == tiles
    other = bytearray(packed)
    other[-20:] = bytes(20)  # in a tile that is not touched, which `verify` reads
    assert np.array_equal(parse_alpha(bytes(other), (50, 70), Window(0, 0, 9, 9)), plane[:9, :9])


@pytest.mark.parametrize("of_one_value", [False, True])
def test_a_region_of_an_enormous_transparent_picture_takes_little(of_one_value: bool) -> None:
    def tile(height: int, width: int) -> bytes:
        out = io.BytesIO()
        Image.new("L", (width, height)).save(out, "WEBP", lossless=True, quality=0, method=0)
        return out.getvalue()

    side, last = 40000, 40000 % 4096
    row, end = (tile(4096, 4096), tile(4096, last)), (tile(last, 4096), tile(last, last))
    alpha = b"\x80" if of_one_value else 9 * (9 * row[0] + row[1]) + 9 * end[0] + end[1]
    header = Header(PayloadKind.KL_PRIOR, Flag.ALPHA, side, side, b"8 bytes!", b"four")
    container = Container(header, (Chunk(ChunkType.ALPHA, alpha),))
    tracemalloc.start()
    try:
        plane = parse_transparency(container, Window(39_990, 39_990, 40_000, 40_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plane is not None
    assert plane.shape == (10, 10)
    assert peak < 60_000_000  # of 1600 in the whole plane
