"""Noise of the decoder: what it is, that it is the same everywhere, and that it can be left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_KL, noise_picture, tiny_model
from typer.testing import CliRunner

from latentzip.cli.app import app
from latentzip.codec import analyse, paint, read_symbols, write_latent
from latentzip.container import parse
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.noise import Noise, noise_at
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedDecoder, load_decoder, load_encoder

NOISY = dataclasses.replace(TINY_KL, detail_width=6, noise_planes=3)
CPU = torch.device("cpu")


def by_hand(row: int, column: int, plane: int) -> float:
    """The formula in Python's own integers."""
    h = (column * 0x9E3779B1 + row * 0x85EBCA77 + plane * 0xC2B2AE3D) % 2**32
    h = (h ^ h >> 16) * 0x7FEB352D % 2**32
    h = (h ^ h >> 15) * 0x846CA68B % 2**32
    h ^= h >> 16
    return float(np.float32(sum(h.to_bytes(4, "little")) - 510) / np.float32(147.8))


def test_noise_is_the_formula_at_absolute_places() -> None:
    rows, columns = torch.tensor([0, 7, 65535 * 4]), torch.tensor([0, 3, 1023, 65535 * 4])
    found = noise_at(rows, columns, 3)
    assert found.shape == (1, 3, 3, 4)
    assert found.dtype == torch.float32
    for plane in range(3):
        for i, row in enumerate(rows.tolist()):
            for j, column in enumerate(columns.tolist()):
                assert found[0, plane, i, j].item() == by_hand(row, column, plane)


def test_noise_is_noise() -> None:
    """Mean 0, variance 1, and no relation to a neighbour or to another plane: bounds are four deviations of a mean."""
    side = 256
    noise = noise_at(torch.arange(side), torch.arange(1000, 1000 + side), 2)[0]
    bound = 4 / side
    assert noise.mean().abs() < bound
    assert (noise.var() - 1).abs() < 2 * bound
    for a, b in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[:, 1:, 1:], noise[:, :-1, :-1]),
        (noise[:, :, 8:], noise[:, :, :-8]),
        (noise[:1], noise[1:]),
    ):
        assert (a * b).mean().abs() < bound


def test_fresh_noise_changes_nothing_and_keeps_the_names_of_tensors() -> None:
    quiet, noisy = tiny_model(dataclasses.replace(NOISY, noise_planes=0)), tiny_model(NOISY)
    more = noisy.state_dict().keys() - quiet.state_dict().keys()
    assert quiet.state_dict().keys() < noisy.state_dict().keys()
    assert all(".noise." in name for name in more)
    noisy.load_state_dict(quiet.state_dict(), strict=False)
    y, rate = torch.randn(1, NOISY.latent_channels, 3, 4), torch.tensor([0.5])
    assert torch.equal(noisy.decoder(y, rate), quiet.decoder(y, rate))


def test_in_training_noise_is_drawn_anew() -> None:
    torch.manual_seed(0)
    layer = Noise(4, 2, 1)
    torch.nn.init.normal_(layer.mix.weight)
    x = torch.randn(2, 4, 5, 5)
    assert not torch.equal(layer.train()(x), layer(x))
    same = torch.cat([x[:1], x[:1]])
    first, second = layer(same)
    assert not torch.equal(first, second)
    first, second = layer.eval()(same)
    assert torch.equal(first, second)


def stirred() -> Autoencoder:
    model = tiny_model(NOISY)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "noisy.safetensors"
    save_weights(path, NOISY, stirred().state_dict(), {})
    return path


def test_no_noise_is_the_decoder_without_it(weights: Path) -> None:
    encoder, decoder = load_encoder(str(weights), CPU), load_decoder(weights, CPU)
    container = parse(write_latent(analyse(noise_picture(40, 30), encoder), encoder, 128))
    parsed = read_symbols(container, decoder)
    painted = [paint(container, parsed, decoder, noise=amount).pixels for amount in (0.0, 0.5, 1.0)]
    assert not np.array_equal(painted[0], painted[2])
    assert not np.array_equal(painted[1], painted[2])
    silenced = stirred().decoder
    for module in silenced.modules():
        if isinstance(module, Noise):
            torch.nn.init.zeros_(module.mix.weight)
    path = weights.with_name("silenced.safetensors")
    tensors = {**stirred().state_dict(), **{f"decoder.{n}": t for n, t in silenced.state_dict().items()}}
    save_weights(path, NOISY, tensors, {})
    without: LoadedDecoder = load_decoder(path, CPU)
    assert np.array_equal(paint(container, parsed, without).pixels, painted[0])


def test_noise_on_the_command_line(weights: Path, tmp_path: Path) -> None:
    from PIL import Image

    source, file = tmp_path / "a.png", tmp_path / "a.lz"
    Image.fromarray(noise_picture(40, 30).pixels).save(source)
    run = CliRunner().invoke
    assert run(app, ["encode", str(source), "-o", str(file), "-m", str(weights), "--quiet"]).exit_code == 0
    outputs = []
    for amount in ("0", "1"):
        out = tmp_path / f"{amount}.png"
        arguments = ["decode", str(file), "-o", str(out), "-m", str(weights), "--noise", amount, "--quiet"]
        assert run(app, arguments).exit_code == 0
        outputs.append(np.asarray(Image.open(out)))
    plain = tmp_path / "plain.png"
    assert run(app, ["decode", str(file), "-o", str(plain), "-m", str(weights), "--quiet"]).exit_code == 0
    assert np.array_equal(np.asarray(Image.open(plain)), outputs[1])
    assert not np.array_equal(*outputs)
    assert run(app, ["decode", str(file), "-o", str(tmp_path / "b.png"), "--noise", "-1"]).exit_code == 2
