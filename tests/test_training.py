"""Training: the terms, the start, the loop, and going on after an interruption."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_VQ, Result, tiny_model
from PIL import Image
from safetensors.torch import save_file

from latentzip.errors import TrainingError
from latentzip.images import read_image
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import AutoencoderConfig
from latentzip.models.quantizer import ResidualQuantizer
from latentzip.training import loop, start
from latentzip.training.codebook import CodebookAverages, k_means, start_codebooks
from latentzip.training.data import batch_at, load_pictures
from latentzip.training.losses import Objective
from latentzip.training.optimizer import MixedOptimizer
from latentzip.training.perceptual import BLOCKS, VggDistance
from latentzip.training.run import train
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start_from_principal_components
from latentzip.zoo.checkpoints import MODEL_NAME, read_tensors
from latentzip.zoo.loading import load_encoder

CPU = torch.device("cpu")
PARTS = ("encoder", "analysis", "latent", "decoder")
SETTINGS = TrainSettings(max_steps=6, batch=4, crop=64, perceptual_start=0.5, perceptual_crop=32, perceptual_crops=2)


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the principal components of tiny models."""
    monkeypatch.setattr(start, "PATCHES", 1500)


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk of VGG16's layers, but thin and random."""
    torch.manual_seed(0)
    tensors, channels = {}, 3
    for block, count in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            tensors[f"conv{block}_{i}.weight"] = torch.randn(8, channels, 3, 3).half() * 0.3
            tensors[f"conv{block}_{i}.bias"] = torch.zeros(8).half()
            channels = 8
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of crops of real photographs, some of them in a subfolder, and things that are not usable."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    image = Image.open(IMAGES / "coffee.png").convert("RGB")
    for i in range(8):
        image.crop((i * 50, i * 20, i * 50 + 150, i * 20 + 140)).save(folder / ("more" if i % 2 else "") / f"{i}.png")
    image.crop((0, 0, 20, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"nonsense")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(folder: Path, out: Path, config: AutoencoderConfig, settings: TrainSettings, **options: object) -> list[str]:
    said: list[str] = []
    perceptual = options.pop("perceptual", None)
    defaults: dict[str, object] = {"init": None, "resume": False}
    wishes = {} if options.get("resume") else {**vars(settings), "perceptual": perceptual and str(perceptual)}
    train(folder, out, config, wishes, device=CPU, say=said.append, **{**defaults, **options})  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_a_run_leaves_a_model_that_encodes(
    photographs: Path, vgg_file: Path, tmp_path: Path, config: AutoencoderConfig
) -> None:
    said = run(photographs, tmp_path, config, SETTINGS, perceptual=vgg_file)
    assert any("broken.jpg" in line for line in said)
    assert any("small.png" in line for line in said)
    assert load_encoder(str(tmp_path), CPU).config == config


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_training_lowers_the_loss(photographs: Path, tmp_path: Path, config: AutoencoderConfig) -> None:
    """On one fixed batch, at fixed rates, from the linear start; the codebooks begin at random."""
    settings = dataclasses.replace(SETTINGS, max_steps=150, warmup_steps=5)
    pictures = load_pictures(photographs, settings.crop, settings.cache_bytes)
    model = Autoencoder(config)
    start_from_principal_components(model, pictures.train, settings.lambdas, settings.seed)
    objective = Objective(settings, None)
    x = batch_at(pictures.train, 1000, 8, 64, seed=1).float() / 127.5 - 1
    rate = torch.tensor([1 / 3, 2 / 3, 1.0, 1.0]).repeat(2)

    @torch.no_grad()
    def loss() -> float:
        torch.manual_seed(0)
        return objective(x, model(x, rate), rate, 0.0, 0).total.item()

    before = loss()
    loop.Trainer(model, objective, settings, tmp_path, CPU).run(pictures, lambda line: None)
    assert loss() < 0.95 * before  # so few latents leave little to gain


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    photographs: Path, vgg_file: Path, tmp_path: Path, config: AutoencoderConfig
) -> None:
    """To the bit: batches, noise and schedule are functions of the step."""
    run(photographs, tmp_path / "whole", config, SETTINGS, perceptual=vgg_file)

    class Stopping(loop.Trainer):
        def _train_step(self, pixels: torch.Tensor, progress: float) -> object:  # type: ignore[override]
            if self.step == 2:
                signal.raise_signal(signal.SIGTERM)  # the step that runs is finished, then the state is saved
            return super()._train_step(pixels, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentzip.training.run.Trainer", Stopping)
        run(photographs, tmp_path / "parts", config, SETTINGS, perceptual=vgg_file)
    said = run(photographs, tmp_path / "parts", config, SETTINGS, resume=True)
    assert any("resumed at step 3" in line for line in said)
    states = [torch.load(tmp_path / part / "checkpoint.pt", weights_only=True) for part in ("whole", "parts")]
    assert [state["step"] for state in states] == [6, 6]
    for part in ("model", "averages"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])


def test_a_model_can_start_from_another(photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """A VQ model takes encoder and decoder of a KL model, and makes codebooks of its own."""
    settings = dataclasses.replace(SETTINGS, max_steps=1, learning_rate=0.0, ema_decay=0.0)
    said = run(photographs, tmp_path, TINY_VQ, settings, init=tiny_weights["kl"])
    assert any(line.startswith("started") for line in said)
    mine, theirs = load_encoder(str(tmp_path), CPU), load_encoder(str(tiny_weights["kl"]), CPU)
    for a, b in zip(mine.encoder.parameters(), theirs.encoder.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_a_frozen_encoder_stays_and_the_rest_learns(photographs: Path, tmp_path: Path) -> None:
    init = tmp_path / "init"
    run(photographs, init, TINY_VQ, dataclasses.replace(SETTINGS, max_steps=1))
    settings = dataclasses.replace(SETTINGS, freeze_encoder=True)
    run(photographs, tmp_path / "out", TINY_VQ, settings, init=init / MODEL_NAME)
    before, after = (read_tensors(folder / MODEL_NAME, PARTS) for folder in (init, tmp_path / "out"))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder", "latent"}


def test_errors_say_what_to_do(photographs: Path, tmp_path: Path, vgg_file: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for options, message in (
        ({"folder": tmp_path / "missing"}, "not a folder"),
        ({"folder": tmp_path / "empty"}, "no picture in it can be trained on"),
        ({"resume": True}, "no checkpoint to resume from"),
        ({"perceptual": tmp_path / "file"}, "cannot be read as a VGG16 trunk"),
    ):
        with pytest.raises(TrainingError, match=message):
            run(**{"folder": photographs, "out": tmp_path / "out", "config": TINY_VQ, "settings": SETTINGS, **options})
    run(photographs, tmp_path / "out", TINY_VQ, dataclasses.replace(SETTINGS, max_steps=1))
    with pytest.raises(TrainingError, match="another run's checkpoint"):
        run(photographs, tmp_path / "out", TINY_VQ, SETTINGS)
    with pytest.raises(TrainingError, match="another architecture"):
        run(photographs, tmp_path / "out", TINY_KL, SETTINGS, resume=True)
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="not a usable checkpoint"):
        run(photographs, tmp_path / "out", TINY_VQ, SETTINGS, resume=True)


def test_the_command_trains(cli: Callable[..., Result], photographs: Path, tmp_path: Path) -> None:
    """With the built-in architecture, for a step."""
    options = ["--max-steps", 1, "--batch", 2, "--crop", 64]
    result = cli("train", "--data", photographs, "--out", tmp_path / "out", *options)
    assert result.code == 0, result.err
    assert cli("encode", IMAGES / "chelsea.png", "-m", tmp_path / "out", "-o", tmp_path / "c.lz").code == 0
    assert cli("train", "--data", photographs, "--out", tmp_path / "other").code == 1  # no end is given


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


def test_the_terms_of_the_objective(vgg_file: Path) -> None:
    settings = TrainSettings(max_steps=1, perceptual_crop=32, perceptual_crops=4)
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    rate = torch.tensor([0.0, 0.25, 0.5, 1.0])
    out = dataclasses.replace(tiny_model(TINY_KL)(x, rate), x_hat=x + 0.02, bpp=torch.full((4,), 0.5))
    early = Objective(settings, VggDistance(vgg_file))(x, out, rate, progress=0.0, step=0)
    assert early.reconstruction.item() == pytest.approx((0.02 * 127.5) ** 2, rel=1e-3)
    low, high = settings.lambdas
    weights = [low * (high / low) ** r for r in rate.tolist()]
    assert early.total.item() == pytest.approx(0.5 + np.mean(weights) * (0.02 * 127.5) ** 2, rel=1e-3)
    assert early.perceptual.item() == 0
    late = Objective(settings, VggDistance(vgg_file))(x, out, rate, progress=0.9, step=0)
    assert late.perceptual.item() > 0


def test_the_perceptual_distance_is_one(vgg_file: Path) -> None:
    distance = VggDistance(vgg_file)
    x = torch.from_numpy(read_image(IMAGES / "chelsea.png").pixels[:64, :64].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    noise = torch.randn_like(x)
    assert distance(x, x).item() == 0
    near, far = distance(x + 0.05 * noise, x).item(), distance(x + 0.3 * noise, x).item()
    assert 0 < near < far
    moving = (x + 0.1 * noise).requires_grad_()
    distance(moving, x).sum().backward()
    assert moving.grad is not None
    assert moving.grad.abs().sum() > 0


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


def test_settings_need_an_end_and_survive_json() -> None:
    with pytest.raises(TrainingError, match="needs an end"):
        TrainSettings()
    assert TrainSettings.from_json(SETTINGS.to_json()) == SETTINGS
    assert TrainSettings(max_steps=10, max_minutes=1).progress(5, 0.9) == pytest.approx(0.9)
