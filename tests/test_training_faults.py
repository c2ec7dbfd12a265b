"""What goes wrong in `latentzip train`: wishes, folders, damaged checkpoints, divergence, signals."""

import contextlib
import copy
import dataclasses
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from conftest import TINY_KL, TINY_NORMAL, TINY_VQ, TINY_VQ_PRIOR, Result
from safetensors.torch import load_file, save_file

from latentzip.errors import OutputError, TrainingError, UsageError
from latentzip.locks import sole_use
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_to_json
from latentzip.training import loop, run, start
from latentzip.training.checkpoint import read_checkpoint
from latentzip.training.discriminator import PatchDiscriminator
from latentzip.training.folder import run_folder
from latentzip.training.losses import Objective
from latentzip.training.settings import TrainSettings
from latentzip.training.vgg import VggDistance
from latentzip.training.wishes import check_wishes
from latentzip.zoo.checkpoints import MODEL_NAME

CPU = torch.device("cpu")
QUICK = ["--max-steps", 1, "--batch", 2, "--crop", 64, "--perceptual", "none", "--disc-weight", 0]


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PATCHES", 1500)


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(config_to_json(TINY_KL))
    return path


@pytest.fixture
def one_photograph(photographs: Path, tmp_path: Path) -> Path:
    """A folder with nothing to hold out."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "0.png").write_bytes((photographs / "0.png").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("config", "wishes", "complaint"),
    [
        (TINY_KL, {"perceptual": "none", "ssim_weight": 5.0, "reconstruction_share": 0.2}, None),
        (TINY_KL, {"perceptual": "none", "ssim_weight": 0.0, "reconstruction_share": 0.2}, "reconstruction-share"),
        (TINY_KL, {"perceptual": "none", "ssim_weight": 0.0, "perceptual_start": 0.2}, "perceptual-start"),
        (TINY_KL, {"perceptual": "none", "perceptual_weight": 1.0}, "perceptual-weight"),
        (TINY_KL, {"perceptual": "none", "perceptual_crops": 2}, None),  # the discriminator sees them
        (TINY_KL, {"perceptual": "none", "disc_weight": 0.0, "perceptual_crops": 2}, "perceptual-crops"),
        (TINY_KL, {"perceptual": "lpips", "perceptual_weight": 0.0}, "perceptual would"),
        (TINY_KL, {"perceptual": "lpips", "perceptual_weight": 0.0, "wasserstein_weight": 1.0}, "no features"),
        (TINY_KL, {"perceptual": "none", "wasserstein_weight": 1.0}, "wasserstein-weight"),
        (TINY_KL, {"perceptual_weight": 0.0, "wasserstein_weight": 1.0, "wasserstein_scale": 2.0}, None),
        (TINY_KL, {"wasserstein_scale": 2.0}, "wasserstein-scale"),
        (TINY_KL, {"perceptual": "none", "perceptual_every": 2}, "perceptual-every"),
        (TINY_KL, {"reconstruction": "l1", "means_weights": (0.5, 0.5)}, "means-weights"),
        (TINY_KL, {"reconstruction": "l1", "chroma_weight": 0.5}, "chroma-weight"),
        (TINY_KL, {"type_weight": 5.0}, "type-weight"),
        (TINY_KL, {"type_weight": 5.0, "type_share": 0.1}, None),
        (TINY_KL, {"rate_power": 2.0}, None),
        (TINY_NORMAL, {"rate_power": 2.0}, "rate-power"),
        (TINY_KL, {"perceptual_start": 1.0}, "perceptual-start"),
        (TINY_KL, {"disc_weight": 0.0, "adversarial": "hinge"}, "adversarial"),
        (TINY_KL, {"disc_weight": 0.0, "disc_start": 0.1}, "disc-start"),
        (TINY_KL, {"disc_start": 1.0}, "disc-start"),
        (TINY_KL, {"kl_weight": 1e-3}, "kl-weight"),
        (TINY_KL, {"kl_weight": 0.0, "commitment_weight": 0.0}, None),  # there is none, as was wished
        (TINY_KL, {"codebook_decay": 0.9}, "codebook-decay"),
        (TINY_KL, {"commitment_weight": 0.1}, "commitment-weight"),
        (TINY_KL, {"vq_encoder_share": 0.1}, "vq-encoder-share"),
        (TINY_NORMAL, {"kl_weight": 1e-3}, None),
        (TINY_NORMAL, {"kl_weight": 1e-3, "train": "decoder"}, "kl-weight"),
        (TINY_VQ, {"kl_weight": 1e-3}, "kl-weight"),
        (TINY_VQ, {"commitment_weight": 0.1, "vq_encoder_share": 0.1, "codebook_decay": 0.9}, None),
        (TINY_VQ, {"commitment_weight": 0.1, "vq_encoder_share": 0.0}, "commitment-weight"),
        (TINY_VQ, {"codebook_decay": 0.9, "train": "decoder"}, "codebook-decay"),
        (TINY_KL, {"train": "prior", "perceptual": "none", "ssim_weight": 0.0, "disc_weight": 0.0}, None),
        (TINY_KL, {"train": "prior", "perceptual": "lpips"}, "perceptual"),
        (TINY_KL, {"train": "prior", "ssim_weight": 1.0}, "ssim-weight"),
        (TINY_KL, {"train": "prior", "reconstruction": "l1"}, "reconstruction"),
        (TINY_KL, {"train": "prior", "disc_weight": 0.5}, "disc-weight"),
        (TINY_VQ_PRIOR, {"train": "prior"}, None),
        (TINY_VQ, {"train": "prior"}, "no learned prior"),
        (TINY_NORMAL, {"train": "prior"}, "no learned prior"),
    ],
)
def test_wishes_happen_or_are_refused(config: AutoencoderConfig, wishes: dict[str, Any], complaint: str | None) -> None:
    settings = TrainSettings(max_steps=1, **wishes)
    if complaint is None:
        return check_wishes(wishes, settings, config)
    with pytest.raises(UsageError, match=complaint):
        check_wishes(wishes, settings, config)
    return None


@pytest.mark.parametrize(
    "options",
    [
        ["--max-minutes", 0],
        ["--max-minutes", "nan"],
        ["--max-minutes", "inf"],
        ["--seed", -1],
        ["--seed", "9" * 400],
        ["--learning-rate", "nan"],
        ["--batch", 0],
        ["--batch", "9" * 400],
        ["--resume", "--init", "pca"],
        ["--resume", "--factor", 8],
        ["--init", "random", "--train", "decoder"],
        ["--init", "pca", "--train", "prior"],
        ["--kl-weight", 0.1],
        ["--disc-weight", 0, "--disc-start", 0.5],
    ],
    ids=lambda options: " ".join(map(str, options))[:40],
)
def test_such_wishes_are_wrong_usage(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, options: list[object]
) -> None:
    assert cli("train", "--data", photographs, "--out", tmp_path / "out", *options).code == 2
    assert not (tmp_path / "out").exists()


def test_a_prior_is_trained_without_networks_of_pictures(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]
) -> None:
    options = ["--train", "prior", "--init", tiny_weights["kl"], "--max-steps", 1, "--batch", 2, "--crop", 64]
    result = cli("train", "--data", photographs, "--out", tmp_path / "out", *options)
    assert (result.code, "perceptual loss: none" in result.err) == (0, True)
    assert "discriminator" not in torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert last["perceptual"] == last["ssim"] == last["adversarial_weight"] == 0


def test_squared_error_and_rate_alone_unless_ssim_is_asked_for() -> None:
    for wishes, weight in (({}, 1.0), ({"perceptual": "none"}, 0.0), ({"perceptual": "none", "ssim_weight": 5.0}, 5.0)):
        _, settings = run._fresh(Path("none"), "pca", TINY_KL, {"max_steps": 1, **wishes}, torch.device("cpu"))
        assert settings.ssim_weight == weight
    stored = json.loads(TrainSettings(max_steps=1, perceptual="none", ssim_weight=5.0).to_json())
    assert TrainSettings.from_json(json.dumps(stored)).ssim_weight == 5
    del stored["settings_version"]  # a run of when it did not count
    assert TrainSettings.from_json(json.dumps(stored)).ssim_weight == 0


def test_a_new_end_takes_the_place_of_the_old_one(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_config: Path
) -> None:
    """The minutes of before would have been over."""
    out = tmp_path / "out"
    options = ["--batch", 2, "--crop", 64, "--perceptual", "none", "--disc-weight", 0]
    data = ["train", "--data", photographs, "--out", out]
    assert cli(*data, "--config", tiny_config, "--max-minutes", 1e-9, "--max-steps", 9, *options).code == 0
    assert cli(*data, "--resume", "--max-steps", 2).code == 0
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 2


@pytest.mark.parametrize("name", [MODEL_NAME, "checkpoint.pt", "log.jsonl", "model.md", "validation"])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_in_the_way_is_noticed_before_training(tmp_path: Path, name: str, kind: str) -> None:
    path, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    if kind == "folder" and name == "validation":
        path.write_bytes(b"")  # there a folder is right
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(elsewhere)
    else:
        os.mkfifo(path)
    with pytest.raises(OutputError, match=rf"{name}: is no .*choose another --out"), run_folder(tmp_path):
        pytest.fail("the run begins")
    assert elsewhere.read_bytes() == b"kept"


def test_two_runs_do_not_share_a_folder(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_config: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with sole_use(out):
        result = cli("train", "--data", photographs, "--config", tiny_config, "--out", out, *QUICK)
    assert (result.code, "another run is at work in it" in result.err) == (1, True)
    assert list(out.iterdir()) == []
    (out / "checkpoint-best.pt.new").write_bytes(b"left by one that was killed")
    assert cli("train", "--data", photographs, "--config", tiny_config, "--out", out, *QUICK).code == 0
    assert not list(out.glob("*.new")) + list(out.glob(".*"))


def test_nothing_stays_of_a_run_that_did_not_begin(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_config: Path
) -> None:
    options = ["--config", tiny_config, "--out", tmp_path / "runs" / "one", "--max-steps", 1]
    for wrong in (
        ["--data", photographs, "--perceptual", tmp_path / "missing"],
        ["--data", tmp_path],
        ["--data", photographs, "--resume"],
    ):
        assert cli("train", *options, *wrong).code in (1, 2)
        assert not (tmp_path / "runs").exists()


def test_pipes_are_passed_over_or_refused(
    cli: Callable[..., Result], one_photograph: Path, tmp_path: Path, tiny_config: Path
) -> None:
    """Nobody writes into them: to open one would be to wait for ever."""
    os.mkfifo(one_photograph / "pipe.png")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = ["train", "--data", one_photograph, "--out", tmp_path / "out"]
    result = cli(*command, "--config", tiny_config, *QUICK)
    assert (result.code, "pipe.png: no ordinary file" in result.err) == (0, True)
    (tmp_path / "out" / "checkpoint.pt").unlink()
    os.mkfifo(tmp_path / "out" / "checkpoint.pt")
    for options in (["--resume"], ["--config", pipe], ["--config", tiny_config, "--perceptual", pipe]):
        result = cli(*command[:3], "--out", tmp_path / ("out" if "--resume" in options else "new"), *options)
        assert (result.code, "no ordinary file" in result.err) == (1, True)


def test_a_full_disk_is_told_with_the_path(
    cli: Callable[..., Result],
    photographs: Path,
    tmp_path: Path,
    tiny_config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_path: Path, mode: str) -> IO[str]:
        return open("/dev/full", mode)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("latentzip.training.journal.open", full, raising=False)
        result = cli("train", "--data", photographs, "--config", tiny_config, "--out", out, *QUICK)
    assert (result.code, f"{out / 'log.jsonl'}: cannot be written (No space left" in result.err) == (1, True)
    out.mkdir(exist_ok=True)
    (out / "log.jsonl").write_text('{"kind": "tra')  # what had room
    assert cli("train", "--data", photographs, "--config", tiny_config, "--out", out, *QUICK).code == 0
    cut_off, *lines = (out / "log.jsonl").read_text().splitlines()
    assert (cut_off, [json.loads(line)["step"] for line in lines]) == ('{"kind": "tra', [1, 1])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["kl", "vq-prior", "normal"])
def test_a_run_that_fell_apart_saves_nothing(
    cli: Callable[..., Result],
    one_photograph: Path,
    tmp_path: Path,
    tiny_weights: dict[str, Path],
    kind: str,
    steps: int,
) -> None:
    """No held-out picture tells of it; of one step the loss is that of before it."""
    options = ["--learning-rate", 1e30, "--batch", 2, "--crop", 64, "--perceptual", "none", "--max-steps", steps]
    result = cli("train", "--data", one_photograph, "--init", tiny_weights[kind], "--out", tmp_path / "out", *options)
    assert result.code == 1
    assert "nothing was saved: start again with a lower --learning-rate" in result.err
    assert not list((tmp_path / "out").glob("*.pt")) + list((tmp_path / "out").glob("*.safetensors"))


class Payload:
    """What a poisoned pickle would call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _poisons(proof: Path) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Ways to spoil a checkpoint's state, in place or by giving another thing back."""

    def put(*place: Any, value: Any) -> Callable[[dict[str, Any]], None]:
        def change(state: dict[str, Any]) -> None:
            for name in place[:-1]:
                state = state[name]
            state[place[-1]] = value(state.get(place[-1])) if callable(value) else value

        return change

    def drop(*place: Any) -> Callable[[dict[str, Any]], None]:
        def change(state: dict[str, Any]) -> None:
            for name in place[:-1]:
                state = state[name]
            del state[place[-1]]

        return change

    weight = "encoder.linear.weight"
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "list": lambda state: [state],
        "tensor": lambda state: torch.zeros(3),
        "none": lambda state: None,
        "code": put("model", weight, value=Payload(proof)),
        "code outside": lambda state: {**state, "more": Payload(proof)},
    }
    for name in ("config", "settings", "step", "seconds", "best_score", "model", "averages", "optimizer", "codebooks"):
        changes[f"without {name}"] = drop(name)
        changes[f"{name} a list"] = put(name, value=[1, 2])
    for name, value in {"step": -1, "seconds": math.nan, "best_score": math.nan}.items():
        changes[f"{name} {value}"] = put(name, value=value)
    changes |= {
        "step 2**70": put("step", value=2**70),
        "config text": put("config", value="x"),
        "config number": put("config", value="3"),
        "config deep": put("config", value="[" * 100_000),
        "settings list": put("settings", value="[]"),
        "settings deep": put("settings", value="[" * 100_000),
        "settings strange": put("settings", value=json.dumps({"max_steps": 4, "former": 1})),
        "settings batch": put("settings", value=json.dumps({"max_steps": 4, "batch": "x"})),
        "settings endless": put("settings", value=json.dumps({"max_steps": None})),
    }
    for group in ("model", "averages"):
        changes |= {
            f"{group} lacks one": drop(group, weight),
            f"{group} number": put(group, weight, value=3),
            f"{group} shape": put(group, weight, value=torch.zeros(2)),
            f"{group} huge": put(group, weight, value=torch.zeros(1).expand(10**6, 10**6)),
            f"{group} integers": put(group, weight, value=lambda t: t.long()),
            f"{group} sparse": put(group, weight, value=lambda t: t.to_sparse()),
            f"{group} meta": put(group, weight, value=lambda t: t.to("meta")),
            f"{group} nan": put(group, weight, value=lambda t: t * math.nan),
            f"{group} key": put(group, 3, value=torch.zeros(2)),
        }
    for part in ("adamw", "muon"):
        changes |= {
            f"{part} gone": drop("optimizer", part),
            f"{part} number": put("optimizer", part, value=3),
            f"{part} without state": put("optimizer", part, value={}),
            f"{part} of more": put("optimizer", part, "state", 10**6, value={}),
            f"{part} empty": put("optimizer", part, "state", 0, value={}),
            f"{part} of none": put("optimizer", part, "state", 0, value=None),
        }
    changes |= {
        "moment shape": put("optimizer", "adamw", "state", 0, "exp_avg", value=torch.zeros(99)),
        "moment text": put("optimizer", "adamw", "state", 0, "exp_avg", value="x"),
        "moment steps": put("optimizer", "adamw", "state", 0, "step", value=torch.tensor(-1.0)),
        "momentum inf": put("optimizer", "muon", "state", 0, "momentum_buffer", value=lambda t: t + math.inf),
        "codebooks shape": put("codebooks", "counts", value=torch.zeros(3)),
        "codebooks lack": drop("codebooks", "sums"),
        "discriminator none": put("discriminator", value=None),
        "discriminator lacks": drop("discriminator", "layers.0.bias"),
        "its optimizer gone": drop("discriminator_optimizer"),
        "its optimizer text": put("discriminator_optimizer", value="x"),
    }
    return changes


def test_a_poisoned_checkpoint_is_refused_and_not_executed(photographs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY_VQ, widths=(32,), decoder_blocks=0)  # with kernels for Muon
    wishes = {"max_steps": 1, "batch": 2, "crop": 64, "perceptual": "none", "disc_width": 8, "disc_layers": 2}
    wishes |= {"disc_start": 0.0}
    out = tmp_path / "out"

    class Silent:
        def say(self, line: str) -> None: ...
        def show(self, record: dict[str, Any]) -> None: ...

    run.train(photographs, out, config, wishes, init="pca", resume=False, device=CPU, display=Silent())
    path, proof = out / "checkpoint.pt", tmp_path / "executed"
    good = path.read_bytes()
    discriminator = PatchDiscriminator(8, 2)

    def resume() -> None:
        state = read_checkpoint(out)
        config, settings = run._resumed(out, state, {})
        objective = Objective(settings, config.lambdas, None, discriminator)
        loop.Trainer(Autoencoder(config), objective, settings, out, CPU).resume(state)

    resume()
    whole = torch.load(path, weights_only=True)
    for name, poison in _poisons(proof).items():
        state = copy.deepcopy(whole)
        spoiled = poison(state)
        torch.save(state if spoiled is None and name != "none" else spoiled, path)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            resume()
        assert caught.type is TrainingError, (name, caught.value)
        assert str(caught.value).startswith(str(out)), name
        assert "weights_only" not in str(caught.value), name
    for data in (b"", b"nonsense", good[: len(good) // 2], pickle.dumps(Payload(proof)), pickle.dumps({1, 2})):
        path.write_bytes(data)
        with pytest.raises(TrainingError, match=r"not a usable checkpoint|another version"):
            resume()
    assert not proof.exists()


def test_a_trunk_of_other_shapes_is_refused(vgg_file: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "vgg.conv_2.weight": lambda t: t[:, :3].clone(),
        "vgg.conv_0.weight": lambda t: t[0, 0, 0, 0].clone(),
        "vgg.conv_0.bias": lambda t: t[:2].clone(),
        "vgg.conv_5.weight": lambda t: t * math.nan,
        "vgg.lin3": lambda t: t[:3].clone(),
    }
    for name, change in changes.items():
        tensors = load_file(vgg_file) | {f"vgg.lin{i}": torch.ones(1, 8, 1, 1)[0] for i in range(5)}
        save_file({**tensors, name: change(tensors[name])}, tmp_path / "trunk.safetensors")
        with pytest.raises(TrainingError, match=r"not a VGG16 trunk, (its convolution|a head)"):
            VggDistance(tmp_path / "trunk.safetensors")


def test_an_interrupted_command_says_so_by_its_exit_code(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(loop.Trainer):
        def _train_step(self, pixels: torch.Tensor, progress: float) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super()._train_step(pixels, progress)

    monkeypatch.setattr("latentzip.training.run.Trainer", Stopping)
    options = ["--data", photographs, "--config", tiny_config, "--out", tmp_path / "out"]
    result = cli("train", *options, *QUICK, "--max-steps", 9)
    assert (result.code, "stopped at step 1; go on with" in result.err) == (130, True)
    assert torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["step"] == 1
    # where the run is over at that step anyway, it is done
    assert cli("train", "--data", photographs, "--out", tmp_path / "out", "--resume", "--max-steps", 2).code == 0


RANK = """
import json, os, signal, sys
import torch.distributed as dist
from latentzip.training import loop, start
from latentzip.cli.app import main

rank = int(os.environ["RANK"])
start.PATCHES = 1500
agree, reduce, step = loop.Trainer._agree, dist.all_reduce, loop.Trainer._train_step
moment = ""

def asked_to_end(now, trainer):
    if moment == now and rank == 1 and trainer.step == 2:
        signal.raise_signal(signal.SIGTERM)

def agreeing(self, elapsed):
    def reducing(tensor):
        asked_to_end("before", self)
        reduce(tensor)
        asked_to_end("after", self)
    dist.all_reduce = reducing
    try:
        return agree(self, elapsed)
    finally:
        dist.all_reduce = reduce

def stepping(self, pixels, progress):
    asked_to_end("step", self)
    return step(self, pixels, progress)

loop.Trainer._agree, loop.Trainer._train_step = agreeing, stepping
for port, moment, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = ["latentzip", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    print(f"== {code}", file=sys.stderr)
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.mark.slow
def test_two_processes_end_together(photographs: Path, tmp_path: Path, tiny_config: Path) -> None:
    """A signal to the second while they agree, when they have, or in a step: none is lost, and all end at that step.
    What the first alone cannot do ends both, and wrong usage too. Each pair is started as torchrun does it."""
    (tmp_path / "file").write_bytes(b"")
    command = ["train", "--data", photographs, "--config", tiny_config, "--device", "cpu"]
    runs: list[tuple[str, list[object]]] = [
        (moment, [*command, "--out", tmp_path / moment, *QUICK, "--max-steps", 50])
        for moment in ("before", "after", "step")
    ]
    runs.append(("", [*command, "--out", tmp_path / "file", *QUICK]))
    runs.append(("", [*command, "--out", tmp_path / "one", *QUICK, "--batch", 1]))
    ports = _free_ports(len(runs))
    plan = json.dumps([(port, when, list(map(str, run))) for port, (when, run) in zip(ports, runs, strict=True)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, plan],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        first, second = ([*process.communicate(timeout=300)[1].split("== ")] for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert not any("Traceback" in text for text in (*first, *second))
    assert [text.split()[0] for text in first[1:]] == ["130", "130", "130", "1", "2"], first
    assert [text.split()[0] for text in second[1:]] == ["130", "130", "130", "1", "1"], second
    for moment, text in zip(("before", "after", "step"), first, strict=False):
        assert "stopped at step 3; go on" in text
        assert torch.load(tmp_path / moment / "checkpoint.pt", weights_only=True)["step"] == 3
    assert ("cannot be written to" in first[3], "cannot be written to" in second[3]) == (True, False)
    assert "--batch 1: must have a crop for each of the 2 processes" in first[4]


def test_errors_of_devices_for_processes_are_explained(
    cli: Callable[..., Result], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    result = cli("train", "--data", photographs, "--out", tmp_path / "out")
    assert (result.code, "start them with torchrun" in result.err) == (1, True)
