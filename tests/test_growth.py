"""A larger model begins where a smaller one stands."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_NORMAL, tiny_model
from torch import Tensor

from latentzip.images import read_image
from latentzip.models.autoencoder import Autoencoder, KlLatent, NormalLatent
from latentzip.models.posterior import GaussianPosterior
from latentzip.training import growth
from latentzip.training.conversion import keep_principal, to_unit_variance
from latentzip.training.data import Pictures
from latentzip.training.growth import can_widen
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start, start_from_principal_components
from latentzip.zoo.checkpoints import save_weights

WIDER = dataclasses.replace(
    TINY_KL, latent_channels=14, prior_groups=(3, 11), encoder_blocks=(2, 1), decoder_blocks=(1, 2), detail_width=6
)
RATE = torch.ones(1)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Autoencoder, Autoencoder]:
    """One that is a codec of photographs, and a larger one that starts from it."""
    monkeypatch.setattr(growth, "BATCHES", 4)
    pictures = [read_image(IMAGES / name).pixels for name in ("chelsea.png", "coffee.png")]
    small = tiny_model(TINY_KL)
    start_from_principal_components(small, pictures, seed=0)
    save_weights(tmp_path / "small.safetensors", TINY_KL, small.state_dict(), {})
    large = Autoencoder(WIDER)
    start(large, Pictures(pictures), TrainSettings(max_steps=1, init=str(tmp_path / "small.safetensors")))
    return small.eval(), large.eval()


def picture() -> Tensor:
    pixels = read_image(IMAGES / "chelsea.png").pixels[:256, :384].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@torch.no_grad()
def test_a_wider_latent_keeps_what_there_was(models: tuple[Autoencoder, Autoencoder]) -> None:
    small, large = models
    x, old = picture(), TINY_KL.latent_channels
    latent = large.encoder(x)
    assert torch.allclose(latent[:, :old], small.encoder(x), atol=0.05)  # stored in half precision
    latent[:, old:] = 0
    assert torch.allclose(large.decoder(latent, RATE), small.decoder(latent[:, :old], RATE), atol=0.01)


@torch.no_grad()
def test_its_new_channels_add_what_lacked(models: tuple[Autoencoder, Autoencoder]) -> None:
    x = picture()
    errors = []
    for model in models:
        assert isinstance(model.latent, KlLatent)
        gain = model.latent.gain(RATE)
        x_hat = model.decoder(torch.round(model.encoder(x) * gain) / gain, RATE)
        errors.append((x_hat - x).square().mean().item() * 127.5**2)
    assert errors[1] < 0.8 * errors[0]
    assert models[1](x, RATE).bpp.isfinite().all()


@torch.no_grad()
def test_a_latent_of_fewer_channels_keeps_what_has_most() -> None:
    """Here all but nothing lies in three directions: pictures stay what they were."""
    model = tiny_model(TINY_KL)
    directions = torch.linalg.qr(torch.randn(TINY_KL.latent_channels, 3))[0]
    latents = torch.einsum("cd,ndhw->nchw", directions, torch.randn(20, 3, 4, 4)) + 1e-3 * torch.randn(20, 8, 4, 4)
    fewer = dataclasses.replace(TINY_KL, latent_channels=3, prior_groups=(1, 2))
    small = Autoencoder(fewer)
    tensors = keep_principal(model.state_dict(), latents, 3)
    small.load_state_dict({n: t for n, t in tensors.items() if n.startswith(("encoder.", "decoder."))}, strict=False)
    x = picture()
    latent = small.encoder(x)
    assert latent.shape[1] == 3
    within = torch.einsum("cd,ed,nehw->nchw", directions, directions, model.encoder(x))
    assert torch.allclose(latent.square().sum(1), within.square().sum(1), rtol=0.01, atol=0.01)
    assert torch.allclose(small.decoder(latent, RATE), model.decoder(within, RATE), atol=0.01)


@torch.no_grad()
def test_latents_of_unit_variance_give_the_same_pictures() -> None:
    """Also when the posterior is sampled. What carries nothing is not blown up."""
    model, scaled = tiny_model(TINY_NORMAL), Autoencoder(TINY_NORMAL).eval()
    assert isinstance(model.latent, NormalLatent)
    assert isinstance(scaled.latent, NormalLatent)
    model.latent.mean.copy_(torch.tensor([0.1, -0.2, 0.0, 1.0]))
    model.latent.std.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    scaled.load_state_dict(to_unit_variance(model.state_dict()))
    assert torch.equal(scaled.latent.std, torch.ones(4))
    x, samples = picture(), []
    for one in (model, scaled):
        torch.manual_seed(0)
        samples.append(GaussianPosterior(one.encoder(x)).sample())
    mean, std = (values[:, None, None] for values in (model.latent.mean, model.latent.std))
    assert torch.allclose((samples[0] - mean) / std, samples[1] - scaled.latent.mean[:, None, None], atol=1e-4)
    assert torch.allclose(scaled.decoder(samples[1], RATE), model.decoder(samples[0], RATE), atol=1e-4)
    model.latent.std[0] = 0
    emptied = to_unit_variance(model.state_dict())
    assert emptied["latent.std"].tolist() == [0, 1, 1, 1]
    assert torch.allclose(emptied["encoder.linear.weight"][0], 10 * model.encoder.linear.weight[0])


def test_what_can_be_widened() -> None:
    assert can_widen(TINY_KL, WIDER)
    assert not can_widen(WIDER, TINY_KL)
    assert not can_widen(TINY_KL, dataclasses.replace(WIDER, prior_groups=(5, 9)))
    assert not can_widen(TINY_KL, dataclasses.replace(WIDER, factor=8))
    assert not can_widen(TINY_KL, dataclasses.replace(WIDER, widths=(8, 16)))
    assert not can_widen(TINY_KL, dataclasses.replace(WIDER, prior="normal"))
