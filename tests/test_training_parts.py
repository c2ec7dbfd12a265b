"""What a run stands on: its pictures, its optimiser, its codebooks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_VQ
from PIL import Image

from latentzip.models.quantizer import ResidualQuantizer
from latentzip.training.codebook import CodebookAverages, k_means, start_codebooks
from latentzip.training.data import batch_at, load_pictures
from latentzip.training.optimizer import MixedOptimizer


def test_batches_are_a_function_of_the_step(photographs: Path) -> None:
    pictures = load_pictures(photographs, 64, 1 << 30)
    assert len(pictures.train) + len(pictures.held_out) == 8
    assert {path.name for path, _ in pictures.skipped} == {"small.png", "broken.jpg"}
    first, again, next_step = (batch_at(pictures.train, step, 3, 64, seed=5) for step in (7, 7, 8))
    assert first.shape == (3, 3, 64, 64)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)


def test_the_cache_stays_within_its_budget(photographs: Path) -> None:
    budget = 9 * 80 * 80 * 3
    pictures = load_pictures(photographs, 64, budget)
    assert sum(p.nbytes for p in pictures.train) <= budget
    assert all(min(p.shape[:2]) >= 64 for p in pictures.train)


def test_muon_moves_the_kernels_themselves() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 40, 3), torch.nn.Conv2d(40, 2, 1)).to(
        memory_format=torch.channels_last
    )
    optimizer = MixedOptimizer(model, 0.1)
    assert [tuple(m.shape) for m in optimizer.matrices] == [(40, 32 * 9)]
    before = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(0)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step(0.1)
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    step = (model[0].weight - before[0]).detach().permute(0, 2, 3, 1).reshape(40, -1)
    singular = torch.linalg.svdvals(step)
    assert singular.max() / singular.min() < 5  # orthogonalised: all directions move alike


def test_k_means_finds_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 100, 2)).reshape(-1, 2)
    found = min((k_means(vectors, 3) for _ in range(5)), key=lambda c: torch.cdist(vectors, c).amin(1).sum())
    assert torch.cdist(centres, found).amin(1).max() < 0.2


def test_codebooks_follow_the_latents_and_dead_codes_come_back() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(dataclasses.replace(TINY_VQ, stages=2, codebook_size=16))
    latents = torch.randn(600, 8)
    with torch.no_grad():
        quantizer.codebooks[:, 8:] = 1000.0  # half of the codes are out of reach
    averages = CodebookAverages(quantizer, decay=0.99)

    def error() -> float:
        grid = latents.T.reshape(1, 8, 20, 30)
        return float((quantizer.decode(quantizer.encode(grid)) - grid).detach().square().mean())

    before = error()
    for _ in range(400):
        y = latents[torch.randint(600, (200,))].T.reshape(1, 8, 10, 20)
        averages.update(y, quantizer.encode(y).detach())
    assert error() < 0.8 * before
    averages.take_usage()
    y = latents.T.reshape(1, 8, 20, 30)
    averages.update(y, quantizer.encode(y).detach())
    assert min(averages.take_usage()) > 0.9
    start_codebooks(quantizer, latents)
    assert error() < before


def test_pictures_of_every_kind_are_taken(tmp_path: Path) -> None:
    """16-bit grey, palette, transparency on white; of two pictures one is held out."""
    grey = (np.arange(80 * 80, dtype=np.uint16).reshape(80, 80) * 10).clip(0, 65535)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    photograph = Image.open(IMAGES / "coffee.png").convert("RGB").crop((0, 0, 100, 90))
    photograph.quantize(16).save(tmp_path / "palette.gif")
    clear = photograph.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    pictures = load_pictures(tmp_path, 64, 1 << 30)
    assert (len(pictures.train), len(pictures.held_out), pictures.skipped) == (2, 1, [])
    assert any((p == 255).all() for p in pictures.train + pictures.held_out)


def test_slow_modules_learn_at_their_share() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3), torch.nn.Conv2d(32, 32, 3)).to(
        memory_format=torch.channels_last
    )
    optimizer = MixedOptimizer(model, 0.1, slow=(model[0],), slow_share=0.25)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step(0.1)
    moved = [float((p - old).detach().norm()) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved[0] / moved[2] == pytest.approx(0.25, rel=0.1)
    assert moved[1] / moved[3] == pytest.approx(0.25, rel=0.1)
