"""Hidden channels that do nothing are found, counted and begun anew."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_KL, tiny_model

from latentzip.models.autoencoder import Autoencoder
from latentzip.models.blocks import ResidualBlock
from latentzip.training import start as starting
from latentzip.training.data import load_pictures
from latentzip.training.journal import Journal
from latentzip.training.settings import TrainSettings
from latentzip.training.silence import listening, revive
from latentzip.training.start import start
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import load_autoencoder

SCRIPT = Path(__file__).parents[1] / "weights" / "prune.py"
NOTES = {"steps": "1", "minutes": "1", "settings": TrainSettings(max_steps=1).to_public_json()}

RATE = torch.tensor([0.3, 0.9])


@pytest.fixture
def silenced() -> Autoencoder:
    """Half of a block's hidden channels hear nothing above zero, and it adds something all the same."""
    model = tiny_model(TINY_KL)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ResidualBlock):
                torch.nn.init.normal_(module.second.weight, 0, 0.1)
                torch.nn.init.normal_(module.second.bias, 0, 0.1)
        torch.nn.init.normal_(model.encoder.deep[-1].weight, 0, 0.1)
        model.encoder.deep[2][0].first.bias[:4] = -50.0
    return model


def crops() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 3, 64, 64) * 2 - 1


def test_silent_channels_are_counted(silenced: Autoencoder) -> None:
    hidden = sum(m.first.out_channels for m in silenced.modules() if isinstance(m, ResidualBlock))
    with listening(silenced) as listener:
        silenced(crops(), RATE)
    assert listener.silent_share == pytest.approx(4 / hidden)
    assert (listener.shares["encoder.deep.2.0"][:4] == 0).all()
    before = listener.shares
    silenced(crops() * 100, RATE)  # nobody listens any more
    assert all(torch.equal(before[name], share) for name, share in listener.shares.items())


def test_they_begin_anew_and_pictures_stay(silenced: Autoencoder) -> None:
    x, block = crops(), silenced.encoder.deep[2][0]
    painted = silenced.decoder(silenced.encoder(x), RATE)
    with listening(silenced) as listener:
        silenced(x, RATE)
    kept = block.first.weight[4:].clone()
    assert revive(silenced, listener) == 4
    assert torch.equal(block.first.weight[4:], kept)
    assert torch.allclose(silenced.decoder(silenced.encoder(x), RATE), painted, atol=1e-5)
    silenced.decoder(silenced.encoder(x), RATE).square().mean().backward()
    assert (block.second.weight.grad[:, :4].abs().amax((0, 2, 3)) > 0).all()
    with listening(silenced) as listener:
        silenced(x, RATE)
    assert listener.silent_share == 0


def test_a_run_begins_them_anew(
    silenced: Autoencoder, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "PATCHES", 1500)
    path = tmp_path / "silenced.safetensors"
    save_weights(path, TINY_KL, silenced.state_dict(), {})
    pictures = load_pictures(photographs, 64, 1 << 30)
    settings = TrainSettings(max_steps=1, init=str(path), batch=2, crop=64)
    model = Autoencoder(TINY_KL)
    assert start(model, pictures, settings).endswith(f"from {path}, 4 silent channels begun anew")
    assert not start(model, pictures, dataclasses.replace(settings, train="decoder")).endswith("anew")


def test_silent_blocks_are_cut_off(
    silenced: Autoencoder, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after a convolution, one after another block, one after a pixel shuffle; the half silent one stays."""
    config = dataclasses.replace(TINY_KL, encoder_blocks=(2, 1), decoder_blocks=(1, 2))
    model = tiny_model(config)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, ResidualBlock):
                torch.nn.init.normal_(module.second.weight, 0, 0.1)
                torch.nn.init.normal_(module.second.bias, 0, 0.1)
                if name != "decoder.deep.1.0":
                    module.first.bias -= 50.0
        model.encoder.deep[2][0].first.bias[1:] += 50.0
    model.half().float()
    save_weights(tmp_path / "silent.safetensors", config, model.state_dict(), NOTES)
    arguments = [photographs, tmp_path / "silent.safetensors", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["prune.py", *map(str, arguments)])
    script = runpy.run_path(str(SCRIPT))
    script["main"].__globals__.update(SIDE=64, BATCHES=1)
    script["main"]()
    pruned = load_autoencoder(str(tmp_path / "out"), torch.device("cpu"))
    assert (pruned.config.encoder_blocks, pruned.config.decoder_blocks) == ((1, 0), (0, 1))
    x = crops()
    latent = model.encoder(x)
    assert torch.allclose(pruned.encoder(x), latent, atol=2e-3 * latent.abs().max().item())
    assert torch.allclose(pruned.decoder(latent, RATE), model.decoder(latent, RATE), atol=2e-3)


def test_a_validation_says_how_many_are_silent(tmp_path: Path) -> None:
    said: list[str] = []

    class Display:
        def say(self, line: str) -> None:
            said.append(line)

        def show(self, record: object) -> None:
            pass

    journal = Journal(tmp_path, Display())
    for silent in (0.0, 0.25):
        journal.validation({"step": 3, "rates": [], "score": 1.0, "silent": silent})
    assert "silent" not in said[0]
    assert said[1].endswith("silent 25%")
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[1])["silent"] == 0.25
