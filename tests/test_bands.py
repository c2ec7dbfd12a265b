"""The Haar transform of what neighbouring latent vectors share."""

import pytest
import torch
from conftest import TINY_VQ_PRIOR, tiny_model

from latentzip.models.bands import BLOCK, SHARED, blocks_around, from_bands, kinds, places_in_block, to_bands
from latentzip.tiling import Window
from latentzip.training.conversion import turn_to_shared

CPU = torch.device("cpu")
SIZES = [(8, 12), (1, 1), (2, 1), (3, 6), (5, 7), (13, 10)]


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, int]) -> None:
    latent = torch.randn(2, SHARED + 2, *size)
    bands = to_bands(latent)
    assert torch.allclose(from_bands(bands), latent, atol=1e-5)
    assert torch.equal(bands[:, SHARED:], latent[:, SHARED:])
    assert size == (1, 1) or not torch.allclose(bands[:, :SHARED], latent[:, :SHARED])


def test_of_whole_blocks_squared_errors_stay() -> None:
    latent = torch.randn(1, SHARED, 8, 12)
    assert to_bands(latent).square().sum().item() == pytest.approx(latent.square().sum().item(), rel=1e-5)
    blocks = latent.view(1, SHARED, 2, BLOCK, 3, BLOCK)
    averages = blocks.mean((3, 5)) * BLOCK  # of 16 values, orthonormal
    assert torch.allclose(to_bands(latent)[:, :, ::BLOCK, ::BLOCK], averages, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_of_one_colour_there_are_averages_alone(size: tuple[int, int]) -> None:
    bands = to_bands(torch.ones(1, SHARED, *size))
    average = kinds(*size, CPU) == 0
    assert torch.allclose(bands[0, :, average], torch.tensor(float(BLOCK)))
    assert bands[0, :, ~average].abs().max().item() < 1e-6 if (~average).any() else True


def test_differences_are_coarse_or_fine() -> None:
    """What is alike in squares of 2x2 has no fine differences."""
    coarse = torch.randn(1, SHARED, 4, 6).repeat_interleave(2, 2).repeat_interleave(2, 3)
    bands = to_bands(coarse)[0]
    assert bands[:, kinds(8, 12, CPU) == 2].abs().max() < 1e-5
    assert bands[:, kinds(8, 12, CPU) == 1].abs().min() > 0
    assert kinds(8, 12, CPU).flatten().bincount().tolist() == [6, 18, 72]
    assert places_in_block(5, 6, CPU).tolist()[4] == [0, 1, 2, 3, 0, 1]
    assert places_in_block(5, 6, CPU).tolist()[3] == [12, 13, 14, 15, 12, 13]


def test_whole_blocks_can_be_had_apart() -> None:
    whole = Window(0, 0, 13, 10)
    bands = torch.randn(1, SHARED, *whole.size)
    for window in (Window(5, 2, 7, 3), Window(0, 0, 1, 1), Window(9, 5, 13, 10), whole):
        blocks = blocks_around(window).within(whole)
        assert window.within(blocks) == window
        part = from_bands(bands[(..., *blocks.slices)])[(..., *window.relative_to(blocks).slices)]
        assert torch.equal(part, from_bands(bands)[(..., *window.slices)])


def test_a_latent_is_turned_and_pictures_stay() -> None:
    """Afterwards the averages of maps differ in the first channels alone, as much as they did in all."""
    model = tiny_model(TINY_VQ_PRIOR)
    x = torch.rand(24, 3, 64, 64) + torch.rand(24, 3, 1, 1) * 2 - 1.5
    with torch.no_grad():
        before = model.encoder(x)
        painted = model.decoder(before, torch.full((24,), 0.3))
        turn_to_shared(model, before)
        after = model.encoder(x)
        assert torch.allclose(model.decoder(after, torch.full((24,), 0.3)), painted, atol=1e-3)
    assert torch.allclose(
        torch.cdist(before.flatten(1), before.flatten(1)), torch.cdist(after.flatten(1), after.flatten(1)), rtol=1e-3
    )
    total = before.mean((2, 3)).var(0).sum()
    first, others = after.mean((2, 3)).var(0).split([SHARED, after.shape[1] - SHARED])
    assert first.sum() > 0.9 * total
    assert others.max() < first.min()
