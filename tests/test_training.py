"""Runs of `latentzip train`: what they leave, how they go on, how they stop."""

import dataclasses
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_NORMAL, TINY_VQ, TINY_VQ_PRIOR, Result, tiny_model
from PIL import Image

from latentzip.codec import decode_image, encode_image
from latentzip.errors import LatentzipError, OutputError, TrainingError, UsageError
from latentzip.images import read_image
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_to_json
from latentzip.models.index_prior import IndexPrior
from latentzip.models.lite import LiteDecoder
from latentzip.models.quantizer import ResidualQuantizer
from latentzip.training import loop, start
from latentzip.training.compiling import leave_uncompiled
from latentzip.training.data import batch_at, load_pictures
from latentzip.training.losses import Objective
from latentzip.training.run import name_run, train
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start_from_principal_components
from latentzip.zoo.checkpoints import MODEL_NAME, read_metadata, read_tensors
from latentzip.zoo.loading import load_autoencoder, load_decoder, load_encoder

CPU = torch.device("cpu")
PARTS = ("encoder", "analysis", "latent", "decoder")
DEFAULTS = TrainSettings(max_steps=10**9)
SETTINGS = TrainSettings(
    max_steps=6,
    batch=4,
    crop=64,
    perceptual="none",
    ssim_weight=0.0,
    perceptual_crop=32,
    perceptual_crops=2,
    disc_width=8,
    disc_layers=2,
)
ALONE = dataclasses.replace(SETTINGS, disc_weight=0.0, perceptual_crops=4)  # without a discriminator


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the principal components of tiny models."""
    monkeypatch.setattr(start, "PATCHES", 1500)


class Notes:
    """A display that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def show(self, record: dict[str, Any]) -> None:
        self.records.append(record)


def run(
    folder: Path,
    out: Path,
    config: AutoencoderConfig | None,
    settings: TrainSettings | None,
    init: str | None = None,
    resume: bool = False,
) -> list[str]:
    notes = Notes()
    wishes = {} if settings is None else wishes_of(settings)
    train(folder, out, config, wishes, init=init, resume=resume, device=CPU, display=notes)
    return notes.lines


def wishes_of(settings: TrainSettings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings).items() if value != vars(DEFAULTS)[name]}


def log(out: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ, TINY_NORMAL], ids=["kl", "vq", "normal"])
def test_a_run_leaves_a_model_that_encodes(
    photographs: Path, vgg_file: Path, tmp_path: Path, config: AutoencoderConfig
) -> None:
    settings = dataclasses.replace(SETTINGS, perceptual=str(vgg_file), perceptual_start=0.3, ssim_weight=1.0)
    said = run(photographs, tmp_path, config, settings)
    assert any("broken.jpg" in line for line in said)
    assert any("small.png" in line for line in said)
    assert any(f"VGG16 ({vgg_file.name})" in line for line in said)
    picture = read_image(IMAGES / "coffee.png")
    data = encode_image(picture, load_encoder(str(tmp_path), CPU), quality=100)
    decoded = decode_image(data, lambda container: load_decoder(tmp_path / MODEL_NAME, CPU))
    assert abs(decoded.pixels.astype(int) - picture.pixels).mean() < 20

    if config.prior == "normal":
        assert torch.equal(read_tensors(tmp_path / MODEL_NAME, ["latent"])["latent.std"].float(), torch.ones(4))

    last, validation = log(tmp_path, "train")[-1], log(tmp_path, "validation")[-1]
    assert last["step"] == validation["step"] == 6
    assert last["perceptual"] > 0
    assert last["adversarial_weight"] > 0
    assert last.get("codebook_use") is not None or config.regularizer != "vq"
    with Image.open(tmp_path / "validation" / "00000006.png") as grid:
        assert grid.width == 256 * (1 + len(validation["rates"]))
    card = (tmp_path / "model.md").read_text()
    assert "6 steps" in card
    assert f"{validation['rates'][0]['psnr']:.2f}" in card
    for text in (card, read_metadata(tmp_path / MODEL_NAME)["settings"]):
        assert vgg_file.name in text
        assert str(vgg_file.parent) not in text  # where it lay is nobody's business


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_does_the_same(photographs: Path, vgg_file: Path, tmp_path: Path) -> None:
    """But for its noise, which compiled code draws otherwise. One step, as the optimiser makes small things
    large, of many crops, whose bits the noise changes by a thousandth (those of four by four). With a discriminator,
    whose adaptive weight needs gradients in the middle of the networks."""
    wishes = {"perceptual": str(vgg_file), "perceptual_start": 0.0, "precision": "fp32", "max_steps": 1, "batch": 16}
    settings = dataclasses.replace(SETTINGS, disc_start=0.0, **wishes)
    config = dataclasses.replace(TINY_KL, detail_width=6)
    for compiled in (False, True):
        run(photographs, tmp_path / str(compiled), config, dataclasses.replace(settings, compile=compiled))
    plain, compiled_log = (log(tmp_path / str(compiled), "train")[-1] for compiled in (False, True))
    for name in ("total", "perceptual", "bpp", "adversarial", "adversarial_weight"):
        assert compiled_log[name] == pytest.approx(plain[name], rel=1e-2)


def test_what_compiling_makes_worse_is_left_out_of_its_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling: list[bool] = []

    def watch(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            compiling.append(torch.compiler.is_compiling())
            return method(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    watch(LiteDecoder, "last_layers")
    watch(ResidualQuantizer, "search")
    watch(IndexPrior, "bits")
    model = tiny_model(TINY_VQ_PRIOR)
    leave_uncompiled(model)
    torch.compile(model, backend="eager")(torch.zeros(1, 3, 32, 32), torch.ones(1))
    assert compiling == [False, False, False]


def test_a_missing_compiler_is_said(photographs: Path, tmp_path: Path) -> None:
    # by torch's own means: of what a monkeypatch puts back, torch.compile finds some no more
    nowhere = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True})
    with nowhere, pytest.raises(TrainingError, match="install a C\\+\\+ compiler, or leave --compile out"):
        run(photographs, tmp_path, TINY_KL, dataclasses.replace(ALONE, compile=True))


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ, TINY_NORMAL], ids=["kl", "vq", "normal"])
def test_training_lowers_the_loss(photographs: Path, tmp_path: Path, config: AutoencoderConfig) -> None:
    """On one fixed batch, at fixed rates, from the linear start; the codebooks begin at random."""
    settings = dataclasses.replace(
        ALONE, max_steps=150, warmup_steps=5, learning_rate=2e-3, vq_encoder_share=1.0, codebook_decay=0.99
    )
    pictures = load_pictures(photographs, settings.crop, settings.cache_bytes)
    model = Autoencoder(config)
    start_from_principal_components(model, pictures.train, settings.seed)
    objective = Objective(settings, config.lambdas, None)
    x = batch_at(pictures.train, 1000, 8, 64, seed=1).float() / 127.5 - 1
    rate = torch.tensor([1 / 3, 2 / 3, 1.0, 1.0]).repeat(2)

    @torch.no_grad()
    def loss() -> float:
        torch.manual_seed(0)
        return objective.score(x, model(x, rate), rate)[0].mean().item()

    before = loss()
    loop.Trainer(model, objective, settings, tmp_path, CPU).run(pictures, None)
    assert loss() < 0.95 * before  # so few latents leave little to gain


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    photographs: Path, vgg_file: Path, tmp_path: Path, config: AutoencoderConfig
) -> None:
    """To the bit, discriminator included: batches, rates, noise and schedules are functions of the step."""
    settings = dataclasses.replace(SETTINGS, perceptual=str(vgg_file), perceptual_start=0.3, ssim_weight=1.0)
    run(photographs, tmp_path / "whole", config, settings)

    class Stopping(loop.Trainer):
        def _train_step(self, pixels: torch.Tensor, progress: float) -> Any:
            if self.step == 3:
                signal.raise_signal(signal.SIGTERM)  # the step that runs is finished, then the state is saved
            return super()._train_step(pixels, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentzip.training.run.Trainer", Stopping)
        said = run(photographs, tmp_path / "parts", config, settings)
    assert said[-1].startswith("stopped at step 4; go on with: latentzip train")
    said = run(photographs, tmp_path / "parts", None, None, resume=True)
    assert any("resumed at step 4" in line for line in said)
    states = [torch.load(tmp_path / part / "checkpoint.pt", weights_only=True) for part in ("whole", "parts")]
    assert [state["step"] for state in states] == [6, 6]
    for part in ("model", "averages", "discriminator"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])


def test_the_last_two_checkpoints_and_the_best_are_kept(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0, 0.5, 0.8, 0.7])

    def validate(*_: object) -> Any:
        return {"rates": [], "score": next(scores), "silent": 0.0}, read_image(IMAGES / "chelsea.png").pixels[:8, :8]

    monkeypatch.setattr(loop, "validate", validate)
    pictures = load_pictures(photographs, 64, 1 << 30)
    trainer = loop.Trainer(Autoencoder(TINY_VQ), Objective(ALONE, TINY_VQ.lambdas, None), ALONE, tmp_path, CPU)
    for step in (1, 2, 3, 4):
        trainer.step = step
        trainer._validate_and_save(pictures, loop.Journal(tmp_path, Notes()))
    steps = {path.name: torch.load(path, weights_only=True)["step"] for path in tmp_path.glob("*.pt")}
    assert steps == {"checkpoint.pt": 4, "checkpoint-previous.pt": 3, "checkpoint-best.pt": 2}


def kl_rate(lagrangian_weight: float) -> torch.Tensor:
    low, high = TINY_KL.lambdas
    return torch.tensor([math.log(lagrangian_weight / low) / math.log(high / low)])


def test_a_model_can_start_from_another(photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """A VQ model takes encoder and decoder of a KL model, and makes codebooks of its own; its own kind, all."""
    settings = dataclasses.replace(ALONE, max_steps=1, learning_rate=0.0, ema_decay=0.0)
    said = run(photographs, tmp_path / "vq", TINY_VQ, settings, init=str(tiny_weights["kl"]))
    assert any(re.match(r"started \d+ of \d+ tensors", line) for line in said)
    kl, vq = (load_autoencoder(str(path), CPU) for path in (tiny_weights["kl"], tmp_path / "vq"))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    low, high = TINY_VQ.lambdas
    middle = kl_rate(math.sqrt(low * high))
    assert torch.allclose(vq.encoder(x), kl.encoder(x) * kl.latent.gain(middle), rtol=0.01, atol=0.01)
    for rate, lagrangian_weight in ((0.0, low), (1.0, high)):
        painted = vq.decoder(vq.encoder(x), torch.tensor([rate]))
        assert torch.allclose(painted, kl.decoder(kl.encoder(x), kl_rate(lagrangian_weight)), atol=0.01)
    run(photographs, tmp_path / "same", None, settings, init=str(tiny_weights["kl"]))
    mine, theirs = (read_tensors(p, PARTS) for p in (tmp_path / "same" / MODEL_NAME, tiny_weights["kl"]))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    run(photographs, tmp_path / "random", TINY_KL, settings, init="random")
    torch.manual_seed(settings.seed)
    fresh = Autoencoder(TINY_KL).encoder.linear.weight
    assert torch.equal(
        read_tensors(tmp_path / "random" / MODEL_NAME, ["encoder"])["encoder.linear.weight"], fresh.half()
    )


@pytest.mark.parametrize("kind", ["kl", "vq", "normal"])
def test_a_decoder_trained_alone_decodes_old_files(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path], kind: str
) -> None:
    """The latent space keeps its fingerprint; `decode --weights` takes the new decoder, and paints another picture."""
    settings = dataclasses.replace(SETTINGS, train="decoder", disc_start=0.2, learning_rate=0.02)
    run(photographs, tmp_path / "run", None, settings, init=str(tiny_weights[kind]))
    before, after = (read_tensors(path, PARTS) for path in (tiny_weights[kind], tmp_path / "run" / MODEL_NAME))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"decoder"}

    lz = tmp_path / "old.lz"
    assert cli("encode", IMAGES / "chelsea.png", "-m", tiny_weights[kind], "-o", lz).code == 0
    for name, weights in (("old.png", tiny_weights[kind]), ("new.png", tmp_path / "run")):
        result = cli("decode", lz, "--weights", weights, "-o", tmp_path / name)
        assert result.code == 0, result.err
    assert (read_image(tmp_path / "old.png").pixels != read_image(tmp_path / "new.png").pixels).any()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("regularizer", "prior"), [("kl", "learned"), ("kl", "normal"), ("vq", "learned")])
def test_every_factor_trains_and_round_trips(
    photographs: Path, tmp_path: Path, factor: int, regularizer: Any, prior: Any
) -> None:
    """The paper's factors, both regularisers, N(0, 1) too. The codebooks are made small: k-means takes the time."""
    config = AutoencoderConfig.for_factor(regularizer, factor, prior)
    config = dataclasses.replace(config, codebook_size=64, encoder_blocks=1, decoder_blocks=1)
    run(photographs, tmp_path, config, dataclasses.replace(ALONE, max_steps=2, batch=2))
    picture = read_image(IMAGES / "coffee.png")
    picture = dataclasses.replace(picture, pixels=picture.pixels[100:197, 100:165])
    data = encode_image(picture, load_encoder(str(tmp_path), CPU), quality=100)
    decoded = decode_image(data, lambda container: load_decoder(tmp_path / MODEL_NAME, CPU))
    assert decoded.pixels.shape == picture.pixels.shape
    assert abs(decoded.pixels.astype(int) - picture.pixels).mean() < 25


def test_errors_say_what_to_do(photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    settings = dataclasses.replace(ALONE, max_steps=1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"folder": tmp_path / "missing", "out": tmp_path / "runs" / "one"}, "not a folder"),
        ({"folder": tmp_path / "empty"}, "no picture in it can be trained on"),
        ({"settings": dataclasses.replace(settings, crop=2048)}, "at least 2048x2048 pixels, or a smaller --crop"),
        ({"config": None, "settings": None, "resume": True}, "no checkpoint to resume from"),
        ({"out": tmp_path / "file"}, "cannot be written to"),
        ({"config": None, "init": "no-such-model"}, "neither a built-in model"),
        ({"config": None, "init": str(tmp_path / "file")}, "not a readable weights file"),
        ({"settings": dataclasses.replace(settings, crop=72)}, "must be a multiple of the model's factor 16"),
        ({"settings": dataclasses.replace(settings, train="decoder")}, "give --init MODEL"),
        (
            {"settings": dataclasses.replace(settings, train="decoder"), "init": str(tiny_weights["kl"])},
            "does not fit: leave the options of the architecture out",
        ),
        ({"config": dataclasses.replace(TINY_VQ, latent_channels=999)}, "more than the 768 principal components"),
    ]
    for options, message in cases:
        with pytest.raises(LatentzipError, match=message):
            run(**{"folder": photographs, "out": tmp_path / "out", "config": TINY_VQ, "settings": settings, **options})
    assert not (tmp_path / "runs").exists(), "a folder that was made for nothing is left"
    run(photographs, tmp_path / "out", TINY_VQ, settings)
    checkpoint = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    for options, message in (
        ({}, "another run's checkpoint"),
        ({"resume": True}, "leave --init and its architecture out"),
        ({"config": None, "init": "pca", "resume": True}, "leave --init and its architecture out"),
        (
            {"config": None, "settings": dataclasses.replace(settings, train="decoder"), "resume": True},
            "cannot change within a run",
        ),
    ):
        with pytest.raises(LatentzipError, match=message):
            run(**{"folder": photographs, "out": tmp_path / "out", "config": TINY_VQ, "settings": settings, **options})
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == checkpoint
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    state["model"]["encoder.former"] = state["model"].popitem()[1]
    torch.save(state, tmp_path / "out" / "checkpoint.pt")
    with pytest.raises(TrainingError, match="another version of latentzip made its checkpoint: begin a new run with"):
        run(photographs, tmp_path / "out", None, None, resume=True)
    for content in (b"nonsense", checkpoint[: len(checkpoint) // 2], b""):
        (tmp_path / "out" / "checkpoint.pt").write_bytes(content)
        with pytest.raises(TrainingError, match=r"not a usable checkpoint .* put checkpoint-best.pt in its place"):
            run(photographs, tmp_path / "out", None, None, resume=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(photographs: Path, tmp_path: Path, value: float) -> None:
    run(photographs, tmp_path, TINY_VQ, dataclasses.replace(ALONE, max_steps=2))
    good = (tmp_path / "checkpoint.pt").read_bytes()

    class Broken(loop.Trainer):
        def _train_step(self, pixels: torch.Tensor, progress: float) -> Any:
            losses = super()._train_step(pixels, progress)
            return dataclasses.replace(losses, total=losses.total * value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentzip.training.run.Trainer", Broken)
        with pytest.raises(TrainingError, match=r"no longer a number at step 4.*--resume and a lower --learning-rate"):
            train(photographs, tmp_path, None, {"max_steps": 4}, init=None, resume=True, device=CPU, display=Notes())
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


def test_a_model_that_got_much_worse_is_not_saved(photographs: Path, tmp_path: Path) -> None:
    run(photographs, tmp_path, TINY_KL, dataclasses.replace(ALONE, max_steps=2))
    good = (tmp_path / "checkpoint.pt").read_bytes()
    wishes = {"max_steps": 40, "learning_rate": 3.0, "ema_decay": 0.0, "warmup_steps": 1}
    with pytest.raises(TrainingError, match="last good checkpoint was kept"):
        train(photographs, tmp_path, None, wishes, init=None, resume=True, device=CPU, display=Notes())
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


def test_memory_that_runs_out_names_a_smaller_batch(photographs: Path, tmp_path: Path) -> None:
    class Hungry(loop.Trainer):
        def _train_step(self, pixels: torch.Tensor, progress: float) -> Any:
            torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentzip.training.run.Trainer", Hungry)
        with pytest.raises(TrainingError, match="out of memory with --batch 4 --crop 64: try --batch 2"):
            run(photographs, tmp_path, TINY_VQ, ALONE)


def test_a_full_disk_leaves_the_last_checkpoint(photographs: Path, tmp_path: Path) -> None:
    run(photographs, tmp_path, TINY_KL, dataclasses.replace(ALONE, max_steps=1))
    good = (tmp_path / "checkpoint.pt").read_bytes()
    wishes = {"max_steps": 2}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"checkpoint\.pt: cannot be written"):
            train(photographs, tmp_path, None, wishes, init=None, resume=True, device=CPU, display=Notes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert not list(tmp_path.glob(".*.part"))


def test_the_command_trains(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing given but pictures: the default model is fine-tuned, in a folder that the command names."""
    monkeypatch.chdir(tmp_path)
    options = ["--max-steps", 1, "--batch", 2, "--crop", 64]
    for number in ("", "-2"):
        result = cli("train", "--data", photographs, *options)
        assert result.code == 0, result.err
        assert "perceptual loss: EfficientNet-Lite0" in result.err
        assert (tmp_path / "runs" / f"kl-f16-{photographs.name}{number}" / MODEL_NAME).exists()
    out = Path("runs") / f"kl-f16-{photographs.name}"
    assert f"latentzip encode -m {out} PICTURE" in result.err.replace(f"{out}-2", str(out))
    assert cli("encode", IMAGES / "chelsea.png", "-m", out, "-o", tmp_path / "c.lz").code == 0
    assert cli("train", "--data", photographs, "--resume").code == 2
    assert cli("train", "--data", photographs, "--config", "a.json", "--factor", 8).code == 2
    result = cli("train", "--data", photographs, "--config", "missing.json")
    assert (result.code, "missing.json: cannot be read" in result.err) == (1, True)


def test_runs_are_named_after_start_and_pictures(tmp_path: Path) -> None:
    assert name_run(Path("some/imgs"), None, tmp_path) == tmp_path / "kl-f16-imgs"
    (tmp_path / "pca-imgs").mkdir()
    assert name_run(Path("some/imgs"), "pca", tmp_path) == tmp_path / "pca-imgs-2"


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY_KL, dataclasses.replace(TINY_VQ, codebook_size=64)], ids=["kl", "vq"])
def test_two_processes_train_as_one(photographs: Path, tmp_path: Path, config: AutoencoderConfig) -> None:
    """The same global batches, the same losses within half a percent: the noise that stands for rounding is each
    process's own. (So many codes that none is dead within these steps: on what it would be put is left to chance.)"""
    (tmp_path / "config.json").write_text(config_to_json(config))
    command = ["-m", "latentzip", "train", "--data", str(photographs), "--config", str(tmp_path / "config.json")]
    command += ["--max-steps", "12", "--batch", "4", "--crop", "64", "--precision", "fp32", "--perceptual", "none"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = ["--disc-weight", "0"]
    for name, prefix, options in (("one", [], alone), ("two", launcher, alone), ("full", launcher, [])):
        result = subprocess.run(
            [sys.executable, *prefix, *command, *options, "--device", "cpu", "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("done: ") == 1  # one process speaks and writes
    one, two, full = (log(tmp_path / name, "train")[-1] for name in ("one", "two", "full"))
    assert one["step"] == two["step"] == full["step"] == 12
    for term in ("total", "squared_error", "bpp", "commitment"):
        assert two[term] == pytest.approx(one[term], rel=0.005, abs=1e-9)
    assert full["adversarial_weight"] > 0


def test_settings_need_an_end_and_survive_json() -> None:
    with pytest.raises(UsageError, match="needs an end"):
        TrainSettings()
    assert TrainSettings.from_json(SETTINGS.to_json()) == SETTINGS
    old = {name: value for name, value in json.loads(SETTINGS.to_json()).items() if name != "ssim_weight"}
    assert TrainSettings.from_json(json.dumps(old)).ssim_weight == 0  # a run of before goes on as it began
    assert TrainSettings(max_steps=10, max_minutes=1).progress(5, 0.9) == pytest.approx(0.9)


@pytest.mark.parametrize("kind", ["kl", "vq-prior"])
def test_a_prior_trained_alone_changes_bits_and_no_pictures(
    photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path], kind: str
) -> None:
    settings = dataclasses.replace(ALONE, train="prior", max_steps=60, learning_rate=0.01, ema_decay=0.9)
    run(photographs, tmp_path, None, settings, init=str(tiny_weights[kind]))
    before, after = (read_tensors(path, PARTS) for path in (tiny_weights[kind], tmp_path / MODEL_NAME))
    moved = {".".join(name.split(".")[:2]) for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in moved if not name.startswith("analysis.")} == {"latent.prior"}
    picture = read_image(IMAGES / "coffee.png")
    sizes = [len(encode_image(picture, load_encoder(str(path), CPU))) for path in (tiny_weights[kind], tmp_path)]
    assert sizes[1] < 0.95 * sizes[0]


def test_a_prior_takes_another_ones_place(photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    config = dataclasses.replace(TINY_VQ, codebook_size=32, index_width=16)
    settings = dataclasses.replace(ALONE, train="prior", max_steps=1)
    run(photographs, tmp_path / "b", config, settings, init=str(tiny_weights["vq-prior"]))
    before, after = (read_tensors(p, PARTS) for p in (tiny_weights["vq-prior"], tmp_path / "b" / MODEL_NAME))
    books = "latent.quantizer.codebooks"
    assert torch.equal(before[books].sort(1).values, after[books].sort(1).values)  # the same codes, ordered anew
    with pytest.raises(TrainingError, match=r"latent\.quantizer\.codebooks does not fit"):
        run(photographs, tmp_path / "d", config, settings, init=str(tiny_weights["vq"]))
    with pytest.raises(UsageError, match="has no learned prior"):
        run(photographs, tmp_path / "c", None, settings, init=str(tiny_weights["vq"]))
