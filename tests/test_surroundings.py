"""Whatever the program around us does with torch, files and pictures stay what they are; and forks do not hang."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from conftest import noise_picture
from PIL import Image
from test_tiled import thin_sd  # noqa: F401

import latentzip
from latentzip import api
from latentzip.errors import ModelError
from latentzip.models.autoencoder import Autoencoder
from latentzip.zoo.loading import choose_device, load_autoencoder, load_latent

PICTURE = Image.fromarray(noise_picture(36, 20).pixels)
GOLDEN = Path(__file__).parent / "golden"


@contextmanager
def default_dtype(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str):  # type: ignore[no-untyped-def]
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def forget_models() -> None:
    for load in (api._load_encoder, api._load_decoder, api._load_whole):
        load.cache_clear()


def all_that_can_be_had(model: Path, effort: int) -> list[bytes]:
    data = latentzip.encode(PICTURE, model=model, quality=60, effort=effort)
    picture, latents = latentzip.decode(data, model=model), latentzip.load_latents(data, model)
    return [data, picture.tobytes(), latents.numpy().tobytes()]


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior", "normal", "public"])
def test_everything_stays_the_same_to_the_byte(kind: str, tiny_weights: dict[str, Path], thin_sd: Path) -> None:  # noqa: F811
    model = thin_sd if kind == "public" else tiny_weights[kind]
    effort = 1 if kind == "kl" else 0
    expected = all_that_can_be_had(model, effort)
    random = torch.get_rng_state()
    for name, state in STATES.items():
        forget_models()
        with state():
            assert all_that_can_be_had(model, effort) == expected, name
        assert all_that_can_be_had(model, effort) == expected, f"with what was loaded in {name}"
    assert torch.equal(torch.get_rng_state(), random), "the program's random numbers are its own"


def test_models_are_loaded_whole(tiny_weights: dict[str, Path]) -> None:
    """What is loaded is all there, on the CPU, though it was built on `meta`."""
    for path in tiny_weights.values():
        whole, latent = load_autoencoder(str(path), torch.device("cpu")), load_latent(path).latent
        assert isinstance(whole, Autoencoder)
        for module in (whole, latent):
            assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}


IN_A_CHILD = """
import multiprocessing, sys, threading, torch
from pathlib import Path
import numpy as np
import latentzip
from latentzip import api
from PIL import Image

torch.set_num_threads(2)
golden = Path(sys.argv[1])
picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))

def work():
    data = latentzip.encode(picture, model=golden / "tiny-kl.safetensors", effort=1)
    latents = latentzip.load_latents(data, golden / "tiny-kl.safetensors")
    back = latentzip.decode(data, model=golden / "tiny-kl.safetensors")
    vq = latentzip.encode(picture, model=golden / "tiny-vq-prior.safetensors")
    return data, latents.numpy().tobytes(), back.tobytes(), vq

def child(expected):
    assert work() == expected

def loads_for_ever(entered):
    with api._LOADING:
        entered.set()
        threading.Event().wait()

expected = work()
entered = threading.Event()
threading.Thread(target=loads_for_ever, args=(entered,), daemon=True).start()
entered.wait()
process = multiprocessing.get_context("fork").Process(target=child, args=(expected,))
process.start()
process.join(60)
if process.is_alive():
    process.kill()
    sys.exit("the child hangs")
sys.exit(process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_hang() -> None:
    """After the parent has used torch's threads, and while another thread of it loads a model."""
    run = subprocess.run([sys.executable, "-c", IN_A_CHILD, str(GOLDEN)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_a_child_of_a_process_on_a_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto").type == "cuda"
    assert choose_device(torch.device("cuda:1")).index == 1
    with pytest.raises(ModelError, match="device cuda:2: not available"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="device cuda: not available"):
        choose_device("cuda")
