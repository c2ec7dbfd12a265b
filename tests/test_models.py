"""The networks: shapes, the linear start, the bounded receptive field, separable halves."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_VQ, TINY_VQ_PRIOR, tiny_model

from latentzip.errors import ModelError
from latentzip.images import read_image
from latentzip.models.autoencoder import Autoencoder, KlLatent
from latentzip.models.bands import kinds, to_bands
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_from_json, config_to_json
from latentzip.models.quantizer import END, ResidualQuantizer, nearest_code
from latentzip.training.start import start_from_principal_components


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_every_factor_trains_and_reconstructs(config: AutoencoderConfig, factor: int) -> None:
    model = Autoencoder(dataclasses.replace(config, factor=factor))
    x = torch.rand(2, 3, 2 * factor, 3 * factor) * 2 - 1
    out = model(x, torch.tensor([1 / 3, 1.0]))
    assert out.x_hat.shape == x.shape
    assert out.latent.shape == (2, 8, 2, 3)
    (out.x_hat.square().mean() + out.bpp.mean() + out.commitment.mean()).backward()
    assert model.encoder.linear.weight.grad is not None
    assert model.encoder.linear.weight.grad.abs().sum() > 0


def test_factor_1_is_built_with_one_level() -> None:
    model = Autoencoder(dataclasses.replace(TINY_KL, factor=1, widths=(8,)))
    assert model(torch.zeros(1, 3, 8, 8), torch.tensor([0.5])).x_hat.shape == (1, 3, 8, 8)


def test_configs_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(ModelError, match="factor"):
        dataclasses.replace(TINY_KL, factor=12)
    with pytest.raises(ModelError, match="levels"):
        dataclasses.replace(TINY_KL, factor=1)
    with pytest.raises(ModelError, match="add up"):
        dataclasses.replace(TINY_KL, prior_groups=(3, 3))
    with pytest.raises(ModelError, match="as many as the 2 widths"):
        dataclasses.replace(TINY_KL, decoder_blocks=(1, 2, 3))
    with pytest.raises(ModelError, match="coarser than the pixels"):
        dataclasses.replace(TINY_KL, factor=2, detail_width=8)


def test_a_config_survives_json() -> None:
    for config in (TINY_VQ, dataclasses.replace(TINY_KL, encoder_blocks=(2, 1), detail_width=6)):
        assert config_from_json(config_to_json(config)) == config
    for text in ("", "[]", "{}", '{"config_version": 9, "family": "lite"}', config_to_json(TINY_VQ)[:-1] + ', "x": 1}'):
        with pytest.raises(ModelError):
            config_from_json(text)


def test_the_linear_start_is_already_a_codec() -> None:
    """Principal components of a photograph reconstruct it before the first training step."""
    pixels = read_image(IMAGES / "chelsea.png").pixels[:288, :448]
    model = Autoencoder(dataclasses.replace(TINY_KL, latent_channels=64, prior_groups=(16, 48), lambdas=(0.0005, 0.01)))
    start_from_principal_components(model, [pixels], seed=0)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        x_hat = model.decoder(model.encoder(x), torch.tensor([0.5]))
        assert isinstance(model.latent, KlLatent)
        gains = [float(model.latent.gain(torch.tensor([rate])).mean()) for rate in (0.0, 0.5, 1.0)]
    error = (x - x_hat).square().mean().item() * 127.5**2
    assert 10 * np.log10(255**2 / error) > 28
    # steps fall with the square root of lambda: a factor of 20 in lambda is one of sqrt(20) in steps
    assert gains[1] == pytest.approx(1)
    assert gains[2] / gains[0] == pytest.approx(20**0.5, rel=1e-4)


def test_gains_are_interpolated_between_knots() -> None:
    model = tiny_model(TINY_KL)
    assert isinstance(model.latent, KlLatent)
    knots = model.latent.log_gain.exp()
    at = model.latent.gain(torch.tensor([0.0, 0.25, 0.5, 1.0]))[:, :, 0, 0]
    assert torch.allclose(at[[0, 2, 3]], knots)
    assert torch.allclose(at[1], (knots[0] * knots[1]).sqrt())


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_the_receptive_field_is_bounded(config: AutoencoderConfig) -> None:
    """A change in one corner must not reach a far one, in either direction."""
    model = tiny_model(config).double().eval()
    x = torch.zeros(1, 3, 320, 320, dtype=torch.float64)
    changed = x.clone()
    changed[..., :16, :16] = 1
    with torch.no_grad():
        moved = (model.encoder(changed) - model.encoder(x)).abs().sum(1)[0]
        assert moved[0, 0] > 0
        assert (moved[10:] == 0).all()
        assert (moved[:, 10:] == 0).all()
        latent = torch.zeros(1, 8, 20, 20, dtype=torch.float64)
        other = latent.clone()
        other[..., 0, 0] = 1
        rate = torch.tensor([0.5], dtype=torch.float64)
        difference = (model.decoder(other, rate) - model.decoder(latent, rate)).abs().sum(1)[0]
        assert difference[0, 0] > 0
        assert (difference[160:] == 0).all()


def test_residual_stages_refine() -> None:
    quantizer = ResidualQuantizer(TINY_VQ.stages, TINY_VQ.codebook_size, TINY_VQ.latent_channels)
    latent = torch.randn(2, 8, 5, 4)
    indices = quantizer.search(latent, beam=1)
    assert indices.shape == (2, 3, 5, 4)
    for stages in (1, 2, 3):
        assert torch.equal(quantizer.search(latent, stages, beam=1), indices[:, :stages])
        codes = quantizer.decode(indices[:, :stages])
        by_hand = sum(quantizer.codebooks[k][indices[:, k]] for k in range(stages))
        assert torch.allclose(codes, by_hand.permute(0, 3, 1, 2))


def test_stages_searched_together_come_nearer() -> None:
    """With one path it is the nearest code of each stage; with as many as there are codes, of two stages, the best."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(2, 6, TINY_VQ.latent_channels).requires_grad_(False)
    latent = torch.randn(1, 8, 7, 5)
    first, second = quantizer.codebooks
    vectors = latent.permute(0, 2, 3, 1).reshape(-1, 8)
    nearest = nearest_code(vectors, first)
    one_by_one = torch.stack([nearest, nearest_code(vectors - first[nearest], second)]).view(1, 2, 7, 5)
    assert torch.equal(quantizer.search(latent, 2, beam=1), one_by_one)
    assert torch.equal(quantizer.search(latent, 1), one_by_one[:, :1])
    sums = (first[:, None] + second[None]).reshape(36, 8)
    best = nearest_code(vectors, sums).view(1, 7, 5)
    assert torch.equal(quantizer.search(latent, 2, beam=6), torch.stack([best // 6, best % 6], 1))


@pytest.mark.parametrize("price", [0.01, 0.3, 1.5, 10.0])
def test_a_position_takes_as_many_stages_as_are_worth_their_bits(price: float) -> None:
    """Of all choices that end somewhere, the one of least squared error and bits; what follows the end is END."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 5, 4, ends=True).requires_grad_(False)
    quantizer.code_bits.uniform_(0.5, 4)
    latent = torch.randn(1, 4, 6, 7) * torch.linspace(0, 2, 7)
    found = quantizer.search(latent, beam=64, price=torch.tensor([price]))[0].flatten(1).T
    kind = kinds(6, 7, latent.device).flatten().tolist()
    choices = [path for k in range(4) for path in itertools.product(range(1, 5), repeat=k)]

    def cost(place: int, path: tuple[int, ...]) -> float:
        coded, vector = (*path, END)[:3], vectors[place]
        bits = sum(quantizer.code_bits[kind[place], stage, code].item() for stage, code in enumerate(coded))
        error = vector - sum(quantizer.codebooks[stage][code] for stage, code in enumerate(coded))
        return error.square().sum().item() + price * bits

    lengths = set()
    vectors = to_bands(latent)[0].flatten(1).T
    for place, indices in enumerate(found.tolist()):
        path = tuple(itertools.takewhile(lambda code: code != END, indices))
        assert all(code == END for code in indices[len(path) :])
        assert cost(place, path) == pytest.approx(min(cost(place, choice) for choice in choices), abs=1e-4)
        lengths.add(len(path))
    assert len(lengths) > 1 or price > 5


def test_the_nearest_code_wins_and_ties_go_to_the_lowest() -> None:
    book = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest_code(torch.tensor([[0.9, 0.1], [0.0, 0.8]]), book).tolist() == [0, 1]


def test_autocast_does_not_change_the_nearest_code() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(1, 200, 32)
    latent = torch.randn(1, 32, 25, 20)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer.search(latent, beam=1)
    vectors, book = latent[0].flatten(1).T.double(), quantizer.codebooks[0].double()
    assert torch.equal(found.flatten(), torch.cdist(vectors, book).argmin(1))


def test_vq_training_uses_as_many_stages_as_the_rate_says() -> None:
    model = tiny_model(TINY_VQ).eval()
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    indices = model.latent.quantizer.search(model.encoder(x), beam=1)
    for stages in (1, 2, 3):
        out = model(x, torch.tensor([stages / 3]))
        expected = model.decoder(model.latent.quantizer.decode(indices[:, :stages]), torch.tensor([stages / 3]))
        assert torch.allclose(out.x_hat, expected, atol=1e-4)
        assert out.bpp.item() == pytest.approx(stages * 5 / 256)  # 20 codes need 5 bits


def test_with_a_prior_the_rate_is_what_a_bit_is_worth() -> None:
    """More is spent at higher rates, as the search says, and the estimate is that of the prior."""
    model = tiny_model(TINY_VQ_PRIOR).eval()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    latent = model.latent
    spent = []
    for value in (0.0, 0.5, 1.0):
        rate = torch.tensor([value])
        out = model(x, rate)
        indices = latent.quantizer.search(model.encoder(x), price=latent.bit_price(rate))
        assert torch.equal(out.indices, indices)
        assert torch.allclose(out.x_hat, model.decoder(latent.quantizer.decode(indices), rate), atol=1e-4)
        bits = latent.prior.bits(latent.quantizer.codebooks, indices, rate).sum()
        assert out.bpp.item() == pytest.approx(bits.item() / 64**2)
        spent.append((indices != END).float().mean().item())
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]
