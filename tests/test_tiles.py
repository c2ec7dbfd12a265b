"""Large latents in tiles that are coded apart: every kind of payload, windows, what has arrived, damaged indices."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_KL, TINY_NORMAL, TINY_VQ, TINY_VQ_PRIOR, Result, noise_picture, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentzip.codec import Analysed, analyse, levels, paint, read_symbols, write_latent
from latentzip.container import (
    HEADER,
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
from latentzip.errors import FormatError, TruncatedError
from latentzip.models.autoencoder import KlLatent, NormalLatent, VqLatent
from latentzip.models.bands import blocks_around
from latentzip.payload.tiles import code_tile
from latentzip.tiling import Window, cut
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, load_decoder, load_encoder

CPU = torch.device("cpu")
CONFIGS = {"kl": TINY_KL, "vq": TINY_VQ, "vq-prior": TINY_VQ_PRIOR, "normal": TINY_NORMAL}
KINDS = {
    "kl": PayloadKind.KL_PRIOR,
    "vq": PayloadKind.VQ_FIXED,
    "vq-prior": PayloadKind.VQ_PRIOR,
    "normal": PayloadKind.KL_ADAPTIVE,
    "normal fp16": PayloadKind.KL_HALF,
}
SIZE = (150, 230)  # 10 x 15 positions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LoadedEncoder, LoadedDecoder]]:
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, config in CONFIGS.items():
        path = folder / f"{name}.safetensors"
        save_weights(path, config, tiny_model(config).state_dict(), {})
        found[name] = load_encoder(str(path), CPU), load_decoder(path, CPU)
    return found


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents that are large enough to be cut would be slow here."""
    cut_small(monkeypatch)


def cut_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("latentzip.payload.tiles.MOST_WITH_PRIOR", 8)
    patch.setattr("latentzip.payload.tiles.MOST_WITHOUT", 8)
    patch.setattr("latentzip.payload.tiles.LEAST_TILE", 1)


def written(models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str) -> tuple[bytes, LoadedDecoder, Analysed]:
    encoder, decoder = models[kind.split()[0]]
    analysed = analyse(noise_picture(SIZE[1], SIZE[0]), encoder)
    coding = "fp16" if kind.endswith("fp16") else "auto"
    return write_latent(analysed, encoder, levels(encoder)[-1], coding=coding), decoder, analysed  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_tiled(models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str) -> None:
    data, decoder, analysed = written(models, kind)
    container = parse(data)
    assert container.header.kind == KINDS[kind]
    index = container.index
    assert index is not None
    assert index.tile == (8, 8)
    assert len(container.scans) % (2 * 2) == 0
    assert data[11] == len(container.chunks) - len(container.scans)  # the header counts those before the scans
    parsed = read_symbols(container, decoder)
    assert parsed.symbols.shape[2:] == (10, 15)
    assert parsed.parts[0] == parsed.parts[1] == len(container.scans)
    if isinstance(decoder.latent, KlLatent):
        steps = (parsed.latent - analysed.latent) * decoder.latent.gain(parsed.rate)
        assert steps.abs().max() <= 0.5 + 1e-3
    elif isinstance(decoder.latent, VqLatent):
        price = decoder.latent.bit_price(parsed.rate) if decoder.latent.prior is not None else None
        assert torch.equal(parsed.symbols, decoder.latent.quantizer.search(analysed.latent, price=price))
    elif kind.endswith("fp16"):
        assert torch.equal(parsed.latent, analysed.latent.half().float())
    else:
        assert isinstance(decoder.latent, NormalLatent)
        assert ((parsed.latent - analysed.latent).abs() <= decoder.latent.std[:, None, None] * 2.0**-6).all()
    assert paint(container, parsed, decoder).pixels.shape == (*SIZE, 3)


@pytest.mark.parametrize("kind", ["kl", "vq-prior"])
def test_tiles_hold_what_small_pictures_do(
    models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile's scans are the payload of a picture whose latent is that tile's."""
    encoder, _ = models[kind]
    analysed = analyse(noise_picture(SIZE[1], SIZE[0]), encoder)
    level = levels(encoder)[-1]
    monkeypatch.setattr("latentzip.payload.tiles.MOST_WITH_PRIOR", 8)
    scans = parse(write_latent(analysed, encoder, level)).scans
    monkeypatch.undo()
    monkeypatch.setattr("latentzip.payload.scans.SPLIT_FROM", 1)
    tiles = cut((10, 15), (8, 8))
    for number, tile in enumerate(tiles):
        part = dataclasses.replace(analysed, latent=analysed.latent[(..., *tile.slices)])
        alone = parse(write_latent(part, encoder, level)).scans
        assert list(alone) == [scans[number + k * len(tiles)] for k in range(len(alone))]


class CountedFile(io.BytesIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(KINDS)), st.integers(0, 9), st.integers(0, 14), st.integers(1, 10), st.integers(1, 15))
def test_a_window_takes_what_it_needs(
    models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str, top: int, left: int, height: int, width: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch)
        check_window(models, kind, top, left, height, width)


def check_window(
    models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str, top: int, left: int, height: int, width: int
) -> None:
    data, decoder, _ = written(models, kind)
    window = Window(top, left, min(10, top + height), min(15, left + width))
    whole = read_symbols(parse(data), decoder)
    file = CountedFile(data)
    container = parse_file(file)
    assert file.taken < 200
    part = read_symbols(container, decoder, window)
    assert torch.equal(part.symbols, whole.symbols[(..., *window.slices)])
    if window == blocks_around(window).within(Window(0, 0, 10, 15)):
        assert torch.equal(part.latent, whole.latent[(..., *window.slices)])
    touched = [number for number, tile in enumerate(cut((10, 15), (8, 8))) if tile.within(window).area]
    lengths = [len(scan) + 8 for i, scan in enumerate(parse(data).scans) if i % 4 in touched]
    assert file.taken <= 200 + sum(lengths)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_what_has_arrived_of_tiles_decodes(models: dict[str, tuple[LoadedEncoder, LoadedDecoder]], kind: str) -> None:
    """First coarsely, tile by tile, then finer; the more has arrived, the nearer it is."""
    data, decoder, analysed = written(models, kind)
    whole = parse(data)
    start = len(data) - sum(len(scan) + 8 for scan in whole.scans)
    errors, seen = [], []
    for length in range(HEADER.size, len(data), 3):
        with pytest.raises(TruncatedError):
            parse(data[:length])
        cut_short = parse(data[:length], partial=True)
        if not cut_short.scans:
            assert length < start + 200
            with pytest.raises(FormatError, match="nothing of the picture has arrived"):
                read_symbols(cut_short, decoder, partial=True)
            continue
        parsed = read_symbols(cut_short, decoder, partial=True)
        assert parsed.parts == (len(cut_short.scans), len(whole.scans))
        if parsed.parts not in seen:
            seen.append(parsed.parts)
            errors.append((parsed.latent - analysed.latent).square().mean().item())
            assert paint(whole, parsed, decoder).pixels.shape == (*SIZE, 3)
    assert len(seen) == len(whole.scans) - 1
    assert errors == sorted(errors, reverse=True)
    first = read_symbols(whole, decoder, most_parts=1)
    there = parse(data, partial=True)
    alone = Container(there.header, there.chunks[: -(len(whole.scans) - 4)])
    assert first.parts == (4, len(whole.scans))
    assert torch.equal(first.latent, read_symbols(alone, decoder, partial=True).latent)


@pytest.mark.usefixtures("small_tiles")
def test_indices_that_lie_are_refused(models: dict[str, tuple[LoadedEncoder, LoadedDecoder]]) -> None:
    data, decoder, _ = written(models, "kl")
    container = parse(data)
    index, scans = container.index, list(container.scans)
    assert index is not None

    def file(*chunks: Chunk) -> bytes:
        return pack(Container(container.header, chunks))

    def scan(payload: bytes) -> Chunk:
        return Chunk(ChunkType.SCAN, payload)

    other = dataclasses.replace
    lengths = index.lengths
    cases = {
        "other scans than its index": [file(index.pack(), *map(scan, [scans[1], scans[0], *scans[2:]]))],
        "lists nothing": [file(other(index, lengths=()).pack()), file(Chunk(ChunkType.INDEX, b"\1\0"))],
        "tiles without a size": [file(other(index, tile=(0, 8)).pack(), scan(b"12"))],
        "ends within a chunk's length": [
            file(Chunk(ChunkType.INDEX, b"\1\0\1\0\x81")),
            file(Chunk(ChunkType.INDEX, index.pack().payload + b"\x80")),
        ],
        "scans before its index": [file(scan(b"12"), index.pack(), *map(scan, scans))],
        "positions a side in one tile": [file(other(index, tile=(8, 513)).pack(), *map(scan, scans))],
        "bytes after its end": [file(index.pack(), *map(scan, scans), scan(b"12"))],
        "scans for": [
            file(other(index, tile=(1, 1)).pack(), *map(scan, scans)),
            file(other(index, lengths=lengths[:-1]).pack(), *map(scan, scans[:-1])),
        ],
    }
    for message, files in cases.items():
        for bad in files:
            with pytest.raises(FormatError, match=message):
                read_symbols(parse(bad), decoder)
            with pytest.raises(FormatError, match=message):
                read_symbols(parse_file(io.BytesIO(bad)), decoder)
    damaged = bytearray(data)
    damaged[-30] ^= 1
    late = parse_file(io.BytesIO(bytes(damaged)))  # seen when the scan is wanted, and only then
    assert read_symbols(late, decoder, Window(0, 0, 1, 1)).symbols.shape[2:] == (1, 1)
    with pytest.raises(FormatError, match="checksum"):
        read_symbols(late, decoder)
    with pytest.raises(TruncatedError):
        parse_file(io.BytesIO(data[:-1]))
    # one tile of another level
    coarse = write_latent(analyse(noise_picture(SIZE[1], SIZE[0]), models["kl"][0]), models["kl"][0], 100)
    mixed = [parse(coarse).scans[i] if i % 4 == 0 else scan for i, scan in enumerate(scans)]
    with pytest.raises(FormatError, match="different quality"):
        read_symbols(parse(file(other(index, lengths=tuple(map(len, mixed))).pack(), *map(scan, mixed))), decoder)


@given(st.integers(1, 70000), st.integers(1, 70000))
def test_tiles_are_alike_and_cover_the_latent(height: int, width: int) -> None:
    latent = tiny_model(TINY_KL).latent
    tile = code_tile((height, width), latent)
    for side, whole in zip(tile, (height, width), strict=True):
        assert side <= 192
        number = -(-whole // side)
        assert number == -(-whole // 192)
        if number > 1:
            assert side % 4 == 0
            assert side > 96 - 4


def test_the_largest_picture_fits_the_format() -> None:
    """65535 a side, in the smallest tiles: more scans than the header could count."""
    header = Header(PayloadKind.VQ_FIXED, Flag(0), 65535, 65535, b"8 bytes!", b"four")
    scans = [Chunk(ChunkType.SCAN, b"12")] * 70_000
    data = pack(Container(header, (Index((32, 32), (2,) * 70_000).pack(), *scans)))
    assert len(parse(data).scans) == len(parse_file(io.BytesIO(data)).scans) == 70_000
    assert parse(data).header.width == 65535


@pytest.mark.usefixtures("small_tiles")
def test_regions_on_the_command_line(cli: Callable[..., Result], tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    picture, lz = tmp_path / "a.png", tmp_path / "a.lz"
    Image.fromarray(noise_picture(SIZE[1], SIZE[0]).pixels).save(picture)
    assert cli("encode", picture, "-m", tiny_weights["kl"], "--tile", 16).code == 0
    assert parse(lz.read_bytes()).index is not None
    assert cli("decode", lz, "-m", tiny_weights["kl"], "-o", tmp_path / "whole.png", "--tile", 32).code == 0
    assert "INDEX 12 B, 8 SCAN " in cli("info", lz).out
    part = tmp_path / "part.png"
    assert cli("decode", lz, "-m", tiny_weights["kl"], "-o", part, "--region", "101,20,77,99").code == 0
    whole = np.asarray(Image.open(tmp_path / "whole.png"))
    assert np.array_equal(np.asarray(Image.open(part)), whole[20:119, 101:178])
    for region, code, message in (
        ("1,2,3", 2, "give left, top, width and height"),
        ("0,0,0,5", 2, "give left, top"),
        ("0,0,231,5", 1, "230x150 pixels: the region does not lie within it"),
    ):
        result = cli("decode", lz, "-m", tiny_weights["kl"], "-o", tmp_path / "no.png", "--region", region)
        assert (result.code, message in " ".join(result.err.split())) == (code, True), result.err
    assert not (tmp_path / "no.png").exists()


def test_sizes_are_guarded(cli: Callable[..., Result], tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    picture, lz = tmp_path / "a.png", tmp_path / "a.lz"
    Image.fromarray(noise_picture(60, 50).pixels).save(picture)
    weights = tiny_weights["kl"]
    refused = cli("encode", picture, "-m", weights, "--max-pixels", 2999)
    assert (refused.code, "3000 pixels" in refused.err, "--max-pixels" in refused.err) == (1, True, True)
    assert not lz.exists()
    assert cli("encode", picture, "-m", weights, "--max-pixels", 3000).code == 0
    refused = cli("decode", lz, "-m", weights, "--max-pixels", 2999, "-f")
    assert (refused.code, "60x50 pixels" in refused.err, "--max-pixels" in refused.err) == (1, True, True)
    assert cli("decode", lz, "-m", weights, "--max-pixels", 3000, "-f").code == 0
    for command, path in (("encode", picture), ("decode", lz)):
        little = cli(command, path, "-m", weights, "-f", "--memory", "100MB")
        assert (little.code, "takes about" in little.err) == (1, True)
        assert cli(command, path, "-m", weights, "-f", "--memory", "1GB").code == 0
        assert cli(command, path, "-m", weights, "-f", "--memory", "1GB", "--tile", 16).code == 2
        assert cli(command, path, "-m", weights, "-f", "--memory", "much").code == 2
