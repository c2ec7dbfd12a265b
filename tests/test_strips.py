"""Large pictures: strips change nothing, whatever their height; and a region is what the whole picture has there."""

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_VQ_PRIOR, noise_picture, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentzip.codec import analyse, latent_window, paint, read_symbols, write_latent
from latentzip.container import Container, parse
from latentzip.errors import FormatError
from latentzip.images import Picture, read_image
from latentzip.models.autoencoder import Autoencoder
from latentzip.tiling import Bounds, Window
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, load_decoder, load_encoder, locate

CPU = torch.device("cpu")
TINY_DETAIL = dataclasses.replace(TINY_KL, encoder_blocks=(2, 1), decoder_blocks=(1, 2), detail_width=6)
TINY_NOISE = dataclasses.replace(TINY_DETAIL, noise_planes=3)


@dataclass
class Model:
    encoder: LoadedEncoder
    decoder: LoadedDecoder

    def latent(self, picture: Picture, tile: int | None) -> Tensor:
        return analyse(picture, self.encoder, Bounds(tile)).latent

    def container(self, picture: Picture) -> Container:
        return parse(write_latent(analyse(picture, self.encoder), self.encoder, 2, verify=False))

    def pixels(self, container: Container, tile: int | None, region: Window | None = None) -> np.ndarray:
        window = latent_window(container, self.decoder, region) if region else None
        parsed = read_symbols(container, self.decoder, window)
        return paint(container, parsed, self.decoder, region, bounds=Bounds(tile)).pixels


def stirred(config: object, seed: int = 1) -> Autoencoder:
    """A tiny model whose deep paths, which start at zero, do something."""
    model = tiny_model(config)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in (model.encoder, model.decoder):
            for parameter in part.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    found = {"kl-f16": Model(load_encoder("kl-f16", CPU), load_decoder(locate("kl-f16"), CPU))}
    for name, config in (
        ("tiny kl", TINY_KL),
        ("tiny vq", TINY_VQ_PRIOR),
        ("tiny detail", TINY_DETAIL),
        ("tiny noise", TINY_NOISE),
    ):
        path = folder / f"{name}.safetensors"
        save_weights(path, config, stirred(config).state_dict(), {})
        found[name] = Model(load_encoder(str(path), CPU), load_decoder(path, CPU))
    return found


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


SIZES = st.one_of(st.integers(1, 40), st.integers(41, 330))


@settings(max_examples=40, deadline=None)
@given(st.data(), SIZES, SIZES, st.integers(0, 200), st.integers(1, 2))
def test_strips_of_any_height_give_the_same(
    models: dict[str, Model], data: st.DataObject, width: int, height: int, tile: int, threads: int
) -> None:
    """Latents and pixels to the bit, also with another number of threads; and regions of them."""
    model = models[data.draw(st.sampled_from(["tiny kl", "tiny vq", "tiny detail", "tiny noise"]))]
    picture = noise_picture(width, height)
    before = torch.get_num_threads()
    latent, container = model.latent(picture, 0), model.container(picture)
    pixels = model.pixels(container, 0)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    try:
        torch.set_num_threads(threads)
        assert torch.equal(model.latent(picture, tile), latent)
        assert np.array_equal(model.pixels(container, tile), pixels)
        part = model.pixels(container, tile, Window(top, left, bottom, right))
        assert np.array_equal(part, pixels[top:bottom, left:right])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tile", [16, 80, 208, None])
def test_strips_of_the_real_model(models: dict[str, Model], threads: int, tile: int | None) -> None:
    model = models["kl-f16"]
    picture = read_image(IMAGES / "chelsea.png")
    odd = Picture(picture.pixels[3:, 2:], picture.greyscale)
    assert torch.equal(model.latent(odd, tile), model.latent(odd, 0))
    container = model.container(odd)
    pixels = model.pixels(container, 0)
    assert np.array_equal(model.pixels(container, tile), pixels)
    for region in (Window(0, 0, 1, 1), Window(101, 77, 166, 391), Window(296, 0, 297, 449)):
        part = model.pixels(container, tile, region)
        assert np.array_equal(part, pixels[region.slices])


def test_strips_are_the_network(models: dict[str, Model]) -> None:
    """Not only alike: they are what the module gives for the whole picture, but for float32's rounding."""
    for model in models.values():
        x = torch.rand(1, 3, 96, 80) * 2 - 1
        picture = Picture(((x[0] + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy(), greyscale=False)
        x = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None] / 127.5 - 1
        expected = model.encoder.encoder(x)
        assert torch.allclose(model.latent(picture, 32), expected, atol=1e-4 * expected.abs().max().item())
        container = model.container(picture)
        parsed = read_symbols(container, model.decoder)
        expected = model.decoder.decoder(parsed.latent, parsed.rate)
        levels = ((expected[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
        assert np.abs(model.pixels(container, 32) - levels).max() < 0.51


def test_the_reach_is_that_of_the_gradient(models: dict[str, Model]) -> None:
    """How far a pixel looks: no further than `reach`, and the last of its positions is really looked at.

    With random kernels: those of a trained model may be silent.
    """
    for model in models.values():
        decoder = copy.deepcopy(model.decoder.decoder)
        torch.manual_seed(0)
        for layer in decoder.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_uniform_(layer.weight)
        reach = decoder.reach
        side = 2 * reach + 5
        latent = torch.zeros(1, model.decoder.config.latent_channels, side, side).normal_().requires_grad_()
        factor = model.decoder.config.factor
        middle = (reach + 2) * factor
        painted = decoder(latent, torch.ones(1))[..., middle : middle + factor, middle : middle + factor]
        (gradient,) = torch.autograd.grad(painted.square().sum(), latent)
        seen = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0]
        assert middle // factor - seen.min() == seen.max() - middle // factor == reach


@pytest.mark.parametrize("region", [(0, 0, 41, 10), (5, 5, 5, 10), (-1, 0, 5, 5), (39, 0, 40, 31)])
def test_regions_outside_the_picture_are_refused(models: dict[str, Model], region: tuple[int, ...]) -> None:
    model = models["tiny kl"]
    container = model.container(noise_picture(30, 40))
    with pytest.raises(FormatError, match="30x40 pixels: the region does not lie within"):
        latent_window(container, model.decoder, Window(*region))
