"""What a run stands on: its pictures, its optimiser, its codebooks."""

import dataclasses
import math
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_VQ
from PIL import Image

from latentzip.cli import progress
from latentzip.errors import ModelError
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.bands import KINDS, SHARED, from_bands
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_to_json
from latentzip.models.quantizer import END, ResidualQuantizer
from latentzip.training.codebook import CodebookAverages, k_means, order_codebooks, start_codebooks
from latentzip.training.data import DRAWN, batch_at, batches, load_pictures
from latentzip.training.journal import Journal
from latentzip.training.optimizer import WEIGHT_DECAY, MixedOptimizer
from latentzip.training.run import new_config, read_config
from latentzip.zoo.checkpoints import save_weights


def test_batches_are_a_function_of_the_step(photographs: Path) -> None:
    pictures = load_pictures(photographs, 64, 1 << 30)
    assert len(pictures.train) + len(pictures.held_out) == 8
    assert {path.name for path, _ in pictures.skipped} == {"small.png", "broken.jpg"}
    first, again, next_step = (batch_at(pictures.train, step, 3, 64, seed=5) for step in (7, 7, 8))
    assert first.shape == (3, 3, 64, 64)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)


def test_a_few_crops_are_drawn() -> None:
    """Of noise, so that one tells them: rows of theirs hardly differ."""
    noise = [np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)]
    crops = torch.cat([batch_at(noise, step, 50, 64, seed=5) for step in range(20)]).float()
    drawn = crops[(crops[:, :, 1:] - crops[:, :, :-1]).abs().median(3).values.mean((1, 2)) < 4]
    assert 0.5 * DRAWN < len(drawn) / len(crops) < 1.5 * DRAWN
    assert len(drawn.amin((2, 3)).unique(dim=0)) > len(drawn) / 2
    assert (drawn.std((2, 3)).amax(1) == 0).any()


def test_the_thread_that_prepares_batches_ends_with_them(photographs: Path) -> None:
    pictures = load_pictures(photographs, 64, 1 << 30)
    before = threading.active_count()
    ready = batches(pictures.train, 7, 3, 64, seed=5)
    assert torch.equal(next(ready), batch_at(pictures.train, 7, 3, 64, seed=5))
    assert threading.active_count() == before + 1
    ready.close()
    assert threading.active_count() == before


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


def test_kernels_of_hidden_layers_decay() -> None:
    """Without a gradient Muon's steps are none, and what is left is the decay; biases keep their size."""
    model = torch.nn.Conv2d(32, 32, 3).to(memory_format=torch.channels_last)
    kernel, bias = model.weight.detach().clone(), model.bias.detach().clone()  # type: ignore[union-attr]
    optimizer = MixedOptimizer(model, 0.01)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(10):
        optimizer.step(0.01)
    assert torch.allclose(model.weight, kernel * (1 - 0.01 * WEIGHT_DECAY) ** 10, atol=1e-7)
    assert model.weight.abs().sum() < 0.995 * kernel.abs().sum()
    assert torch.equal(model.bias, bias)  # type: ignore[arg-type]


def test_k_means_finds_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 100, 2)).reshape(-1, 2)
    found = min((k_means(vectors, 3) for _ in range(5)), key=lambda c: torch.cdist(vectors, c).amin(1).sum())
    assert torch.cdist(centres, found).amin(1).max() < 0.2


def test_codebooks_follow_the_latents_and_dead_codes_come_back() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(2, 16, TINY_VQ.latent_channels)
    latents = torch.randn(600, 8)
    with torch.no_grad():
        quantizer.codebooks[:, 8:] = 1000.0  # half of the codes are out of reach
    averages = CodebookAverages(quantizer, decay=0.99)

    def error() -> float:
        grid = latents.T.reshape(1, 8, 20, 30)
        return float((quantizer.decode(quantizer.search(grid, beam=1)) - grid).detach().square().mean())

    before = error()
    for _ in range(400):
        y = latents[torch.randint(600, (200,))].T.reshape(1, 8, 10, 20)
        averages.update(y, quantizer.search(y, beam=1))
    assert error() < 0.8 * before
    averages.take_usage()
    y = latents.T.reshape(1, 8, 20, 30)
    averages.update(y, quantizer.search(y, beam=1))
    assert min(averages.take_usage()) > 0.9
    start_codebooks(quantizer, y, torch.ones(1))
    assert error() < before


def test_codebooks_with_ends_learn_what_is_worth_coding() -> None:
    """Half of the vectors are next to nothing: they end at once, which then costs a bit. The others do not."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 16, 4, ends=True).requires_grad_(False)
    small = torch.rand(1, 1, 64, 64) < 0.5
    latents = from_bands(torch.where(small, 0.1, 4.0) * torch.randn(1, 4, 64, 64))
    price = torch.tensor([0.1])
    start_codebooks(quantizer, latents, price)
    indices = quantizer.search(latents, price=price)
    assert ((indices[0, 0] == END) == small[0, 0]).float().mean() > 0.95
    assert quantizer.code_bits[:, 0, END].tolist() == pytest.approx([1] * KINDS, abs=0.3)
    assert torch.allclose(torch.exp2(-quantizer.code_bits).sum(2), torch.ones(KINDS, 3), atol=1e-4)
    assert (quantizer.codebooks[:, END] == 0).all()
    before = quantizer.decode(indices)
    assert (before - latents).square().mean() < 2
    order_codebooks(quantizer, 4)
    assert torch.allclose(quantizer.decode(quantizer.search(latents, price=price)), before, atol=1e-4)


def test_bits_follow_what_stands_at_a_position() -> None:
    """Of even grounds the averages alone take codes; differences end at once, for hardly a bit."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(2, 16, 4, ends=True).requires_grad_(False)
    latents = (4 * torch.randn(16, 4, 1, 1)).expand(16, 4, 16, 16).clone()
    latents[:, SHARED:] = 0
    start_codebooks(quantizer, latents, torch.tensor([0.1]))
    average, coarse, fine = quantizer.code_bits[:, 0, END].tolist()
    assert average > 4
    assert max(coarse, fine) < 0.2


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


RECORD = {
    "step": 7,
    "minutes": 1.5,
    "progress": 0.25,
    "steps_per_second": 2.0,
    "learning_rate": 4e-4,
    "psnr": 30.0,
    "total": 1.5,
    "bpp": 0.2,
    "perceptual": 0.9,
    "adversarial": -0.3,
    "adversarial_weight": 0.02,
    "codebook_use": [0.9, 0.8],
}
SHOWN = ("2.00 steps/s", "0.200 bpp", "30.00 dB", "perceptual 0.900", "-0.300 x 0.02", "90%/80%", "lr 0.0004")


def test_a_run_without_a_terminal_says_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    display = progress.training_display()
    assert isinstance(display, progress.PlainDisplay)
    for now in (0.0, 10.0, 59.0, 61.0, 100.0):  # noqa: B007 the display reads it
        display.show(RECORD)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(part in lines[0] for part in ("step 7", "1.5 min (25%)", *SHOWN))


def test_a_run_on_a_terminal_shows_a_live_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.training_display() as display:
        assert isinstance(display, progress.LiveDisplay)
        display.say("[a] line")
        display.show(RECORD)
    shown = capsys.readouterr().err
    assert "[a] line" in shown
    assert "25%" in shown
    assert all(part in shown for part in SHOWN)


def test_tensorboard_gets_the_figures_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None:
            pass

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Journal(tmp_path, progress.PlainDisplay()).training(RECORD)
    assert ("train/psnr", 30.0, 7) in written
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Journal(tmp_path, progress.PlainDisplay()).training(RECORD)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_architectures_are_read_from_json(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"regularizer": "vq", "factor": 8, "stages": 2}')
    assert read_config(path) == AutoencoderConfig(regularizer="vq", factor=8, stages=2)
    path.write_text(config_to_json(AutoencoderConfig.for_factor("kl", 4, "normal")))
    assert read_config(path) == AutoencoderConfig.for_factor("kl", 4, "normal")
    for text, message in (
        ("nonsense", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"regularizer": "kl", "widht": 3}', "does not fit this version"),
        ('{"regularizer": "fsq"}', "it is to be 'kl' or 'vq'"),
        ('{"regularizer": "vq", "prior": "normal"}', "has no prior 'normal'"),
        ('{"regularizer": "vq", "family": "ldm"}', "family 'ldm'"),
        ('{"regularizer": "vq", "factor": 3}', "take 1, 2, 4, 8, 16 or 32"),
    ):
        path.write_text(text)
        with pytest.raises(ModelError, match=rf"config\.json: .*{message}"):
            read_config(path)


def test_a_new_latent_space_lies_between_the_networks_of_its_start(tmp_path: Path) -> None:
    old = dataclasses.replace(TINY_KL, encoder_blocks=(2, 0), decoder_blocks=(1, 3), detail_width=6)
    path = tmp_path / "old.safetensors"
    save_weights(path, old, Autoencoder(old).state_dict(), {})
    new = new_config(str(path), "vq", None, None)
    assert (new.regularizer, new.factor, new.latent_channels) == ("vq", old.factor, 128)
    assert (new.widths, new.encoder_blocks, new.decoder_blocks) == (old.widths, (2, 0), (1, 3))
    assert (new.detail_width, new.detail_blocks) == (6, old.detail_blocks)
    assert new_config(str(path), None, None, "normal").encoder_blocks == (2, 0)
    assert new_config(str(path), None, 8, None) == AutoencoderConfig.for_factor("kl", 8)  # other levels
    for init in (None, "pca"):
        assert new_config(init, "vq", None, None) == AutoencoderConfig.for_factor("vq", 16)
    with pytest.raises(ModelError, match="neither a built-in model"):
        new_config(str(tmp_path / "none.safetensors"), "vq", None, None)


def test_gains_start_as_the_lambdas_lie() -> None:
    config = dataclasses.replace(TINY_KL, lambdas=(0.001, 0.016))
    assert config.start_log_gains == pytest.approx([-math.log(2), 0, math.log(2)])  # a step of half for four times
    assert dataclasses.replace(config, gain_knots=1).start_log_gains == pytest.approx([-math.log(2)])
    assert config.step == pytest.approx(math.sqrt(26 / 0.004))
