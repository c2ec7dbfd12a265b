"""Overlapping tiles for networks that see the whole picture."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from conftest import noise_picture
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentzip.codec import analyse, latent_window, paint, read_symbols, write_latent
from latentzip.container import Chunk, ChunkType, Container, Flag, pack, parse
from latentzip.errors import FormatError
from latentzip.models.ldm import LdmConfig
from latentzip.models.tiled import run_tiled
from latentzip.tiling import Bounds, TilePlan, Window
from latentzip.zoo.checkpoints import save_as_is
from latentzip.zoo.loading import load_decoder, load_encoder, make_decoder, make_encoder

CPU = torch.device("cpu")
THIN = LdmConfig("kl", 4, 4, (8, 8), blocks=1, norm_groups=4)  # factor 2


@pytest.fixture(scope="module")
def thin_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder as Stable Diffusion's, with attention and GroupNorm, but thin, and random."""
    torch.manual_seed(0)
    tensors = {"latent.mean": torch.zeros(4), "latent.std": torch.ones(4)}
    for part, make in (("encoder", make_encoder), ("decoder", make_decoder)):
        for key, tensor in make(THIN).state_dict().items():
            scale = 0.3 if tensor.ndim > 1 else 1.0 if key.endswith("weight") else 0.0
            tensors[f"{part}.{key}"] = torch.randn(tensor.shape) * scale
    path = tmp_path_factory.mktemp("thin") / "thin.safetensors"
    save_as_is(path, THIN, tensors, {}, overwrite=False)
    return path


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_tiles_cover_every_position(length: int, side: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, side // 2))
    spans = TilePlan(side, overlap).spans(length, 0, length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end - start >= overlap or end == length
        assert start <= end
    assert all(end - start == min(side, length) for start, end in spans)


@pytest.mark.parametrize(("side", "overlap"), [(0, 0), (4, 3), (70000, 0), (5, -1)])
def test_impossible_plans_are_refused(side: int, overlap: int) -> None:
    with pytest.raises(FormatError):
        TilePlan(side, overlap)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 3), st.data())
def test_what_sees_one_position_alone_is_not_changed_by_tiles(
    h: int, w: int, side: int, scale: int, data: st.DataObject
) -> None:
    """The weights of all tiles add up to one everywhere, and every tile is put where it belongs."""
    plan = TilePlan(side, data.draw(st.integers(0, side // 2)))
    x = torch.randn(1, 2, h, w)

    def network(tile: Tensor) -> Tensor:
        return (3 * tile + 1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    whole = run_tiled(network, x, plan, Window(0, 0, h, w), (h, w), scale)
    assert torch.allclose(whole, network(x), atol=1e-5)
    top, left = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    window = Window(top, left, data.draw(st.integers(top + 1, h)), data.draw(st.integers(left + 1, w)))
    around = plan.around(window, (h, w))
    part = run_tiled(network, x[(..., *around.slices)], plan, window, (h, w), scale)
    inside = window.relative_to(around).times(scale).slices
    assert torch.equal(part[(..., *inside)], whole[(..., *window.times(scale).slices)])


def test_a_file_says_how_it_was_tiled_and_is_decoded_so(thin_sd: Path) -> None:
    encoder, decoder = load_encoder(str(thin_sd), CPU), load_decoder(thin_sd, CPU)
    picture = noise_picture(75, 50)
    in_tiles = analyse(picture, encoder, Bounds(32))
    assert in_tiles.tiles == TilePlan(16, 4)
    whole = analyse(picture, encoder, Bounds(0))
    assert whole.tiles is None
    assert not torch.allclose(in_tiles.latent, whole.latent, rtol=0.01)  # it does see the whole picture
    container = parse(write_latent(in_tiles, encoder, 200))
    assert container.tile_plan == TilePlan(16, 4)
    parsed = read_symbols(container, decoder)
    pixels = paint(container, parsed, decoder).pixels
    assert pixels.shape == (50, 75, 3)
    region = Window(20, 3, 31, 40)
    window = latent_window(container, decoder, region)
    assert window.size < (25, 38)  # not all of it is needed
    part = paint(container, read_symbols(container, decoder, window), decoder, region)
    assert (part.pixels == pixels[region.slices]).all()
    untiled = Container(dataclasses.replace(container.header, flags=Flag(0)), container.chunks[1:])
    assert (paint(untiled, parsed, decoder).pixels != pixels).any()


def test_small_pictures_and_models_of_ours_are_not_tiled(thin_sd: Path, tiny_weights: dict[str, Path]) -> None:
    assert analyse(noise_picture(60, 40), load_encoder(str(thin_sd), CPU)).tiles is None
    assert analyse(noise_picture(30, 20), load_encoder(str(thin_sd), CPU), Bounds(32)).tiles is None
    assert analyse(noise_picture(60, 40), load_encoder(str(tiny_weights["kl"]), CPU), Bounds(32)).tiles is None


@pytest.mark.parametrize("change", ["no chunk", "no flag", "two", "short", "nonsense", "small"])
def test_unclear_plans_are_refused(thin_sd: Path, change: str) -> None:
    encoder = load_encoder(str(thin_sd), CPU)
    container = parse(write_latent(analyse(noise_picture(75, 50), encoder, Bounds(32)), encoder, 9))
    tiles, *rest = container.chunks
    assert tiles.type == ChunkType.TILES
    header, chunks = container.header, container.chunks
    if change == "no chunk":
        chunks = tuple(rest)
    elif change == "no flag":
        header = dataclasses.replace(header, flags=Flag(0))
    elif change == "two":
        chunks = (tiles, tiles, *rest)
    else:
        payload = {"short": tiles.payload[:3], "nonsense": b"\x04\0\x03\0", "small": b"\x03\0\0\0"}[change]
        chunks = (Chunk(ChunkType.TILES, payload), *rest)
    damaged = parse(pack(Container(header, chunks)))
    decoder = load_decoder(thin_sd, CPU)
    parsed = read_symbols(damaged, decoder)
    with pytest.raises(FormatError, match="damaged"):
        paint(damaged, parsed, decoder)
