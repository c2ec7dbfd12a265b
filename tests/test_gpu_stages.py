"""weights/gpu.py, on a CPU: what its steps do, though not that they are one graph there."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import TINY_KL, tiny_model

from latentzip.training import growth, start
from latentzip.training.optimizer import MixedOptimizer
from latentzip.zoo.checkpoints import MODEL_NAME, read_metadata, read_tensors
from latentzip.zoo.loading import load_autoencoder

SCRIPT = Path(__file__).parents[1] / "weights" / "gpu.py"
CPU = torch.device("cpu")


@pytest.fixture
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_samples_are_parts_of_pictures(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too small to be shrunk, so each crop is somewhere in one of them, or its mirror image is."""
    monkeypatch.setattr(gpu, "DRAWN", 0.0)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((66, 70, 3), (68, 65, 3))]
    torch.manual_seed(0)
    x, rate = gpu.Sampler(pictures, 12, 64, CPU)()
    assert ((rate * 12).floor() == torch.arange(12)).all()
    found = set()
    for crop in ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy():
        places = {
            (number, top, left, step)
            for number, picture in enumerate(pictures)
            for top in range(picture.shape[0] - 63)
            for left in range(picture.shape[1] - 63)
            for step in (1, -1)
            if np.array_equal(picture[top : top + 64, left : left + 64][:, ::step], crop)
        }
        assert len(places) == 1
        found |= places
    assert {number for number, *_ in found} == {0, 1}
    assert {step for *_, step in found} == {1, -1}
    assert len(found) > 6


def test_some_samples_are_drawn(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DRAWN", 1.0)
    torch.manual_seed(0)
    x, _ = gpu.Sampler([np.zeros((100, 100, 3), np.uint8)], 64, 32, CPU)()
    colors = [len(crop.flatten(1).unique(dim=1)[0]) for crop in x]
    assert x.abs().max() <= 1
    assert sum(count == 1 for count in colors) > 10
    assert sum(count > 2 for count in colors) > 10


def test_its_optimiser_steps_as_the_trainers(gpu: ModuleType) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(32, 40, 3), torch.nn.Conv2d(40, 32, 1), torch.nn.Conv2d(32, 40, 3)]
        return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)

    mine, theirs = network(), network()
    stacked, mixed = gpu.StackedOptimizer(mine, torch.tensor(0.01)), MixedOptimizer(theirs, 0.01)
    assert sorted(map(len, stacked.kernels)) == [1, 2]
    with torch.no_grad():  # large enough that their decay counts
        for p in (*mine.parameters(), *theirs.parameters()):
            p *= 20
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    for _ in range(3):
        x = torch.randn(2, 32, 9, 9)
        for model, step in ((mine, stacked.step), (theirs, lambda: mixed.step(0.01))):
            model.zero_grad()
            model(x).square().mean().backward()
            step()
    for name, p in theirs.state_dict().items():
        moved = p - before[name]
        assert torch.allclose(mine.state_dict()[name] - before[name], moved, atol=0.05 * moved.abs().max().item())


def test_a_model_is_grown_and_trained(
    gpu: ModuleType,
    photographs: Path,
    tiny_weights: dict[str, Path],
    vgg_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "PATCHES", 1500)
    monkeypatch.setattr(growth, "BATCHES", 2)
    fields = {"latent_channels": 10, "prior_groups": [3, 7], "decoder_blocks": [2, 1]}
    arguments = [photographs, tiny_weights["kl"], tmp_path / "out", "--vgg", vgg_file, "--grow", json.dumps(fields)]
    options = ["--device", "cpu", "--batch", "2", "--crop", "64", "--minutes", "0.01", "0.01"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments), *options])
    gpu.main()
    path = tmp_path / "out" / MODEL_NAME
    notes = json.loads(read_metadata(path)["settings"])
    assert int(read_metadata(path)["steps"]) >= 10
    assert (notes["perceptual"], notes["init"]) == (vgg_file.name, tiny_weights["kl"].stem)
    trained = load_autoencoder(str(tmp_path / "out"), CPU)
    assert trained.config.latent_channels == 10
    before = tiny_model(TINY_KL).state_dict()
    tensors = read_tensors(path, ["encoder", "analysis", "latent", "decoder"])
    moved = {
        n.split(".")[0] for n, t in before.items() if t.shape == tensors[n].shape and (t.half() != tensors[n]).any()
    }
    assert moved == {"encoder", "analysis", "latent", "decoder"}
