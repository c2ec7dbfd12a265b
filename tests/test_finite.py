"""A value that is not finite is an error, with the model's name, and never a picture or a file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result, noise_picture
from PIL import Image
from test_tiled import thin_sd  # noqa: F401
from torch import nn

from latentzip import api
from latentzip.codec import analyse, paint, read_symbols, refine_latent, write_latent
from latentzip.container import parse
from latentzip.errors import FormatError, ModelError
from latentzip.interop import load_latents
from latentzip.models.finite import check_finite
from latentzip.tiling import Bounds
from latentzip.zoo import loading
from latentzip.zoo.loading import load_autoencoder, load_decoder, load_encoder

CPU = torch.device("cpu")
PICTURE = noise_picture(40, 20)
BAD = [float("nan"), float("inf"), float("-inf")]


def spoil(module: nn.Module, value: float) -> None:
    """One value of the last layer."""
    parameter = list(module.parameters())[-1]
    parameter.data = parameter.data.clone()
    parameter.data.view(-1)[0] = value


@pytest.mark.parametrize("value", [*BAD, 3e38])
def test_one_of_many_is_found(value: float) -> None:
    values = torch.randn(1, 3, 40, 50)
    check_finite(values, "x")
    check_finite(torch.empty(0), "x")
    values[0, 1, 7, 9] = value
    if value == 3e38:
        check_finite(values, "x")
        values[0, 1, 7, 10] = value  # together they leave float32, as they would in the next layer
    with pytest.raises(ModelError, match=r"x gives values that are not finite: .* take another"):
        check_finite(values, "x")


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior", "normal", "public"])
def test_each_seam(kind: str, tiny_weights: dict[str, Path], thin_sd: Path) -> None:  # noqa: F811
    path = thin_sd if kind == "public" else tiny_weights[kind]
    encoder, decoder = load_encoder(str(path), CPU), load_decoder(path, CPU)
    analysed = analyse(PICTURE, encoder)
    container = parse(write_latent(analysed, encoder, 2))
    parsed = read_symbols(container, decoder)
    for value in BAD[:2]:
        spoil(decoder.decoder, value)
        for bounds in (Bounds(16), Bounds(0)):
            with pytest.raises(ModelError, match=f"the decoder of {path.stem} gives values that are not finite"):
                paint(container, parsed, decoder, bounds=bounds)
        for parameter in encoder.encoder.parameters():
            parameter.data = torch.full_like(parameter.data, value)
        with pytest.raises(ModelError, match=f"the encoder of {path.stem} gives values that are not finite"):
            analyse(PICTURE, encoder)
        if encoder.analysis is not None:
            spoil(encoder.analysis, value)
            with pytest.raises(ModelError, match=f"the analysis of {path.stem}"):
                write_latent(analysed, encoder, 2)


def test_a_latent_space_and_steps_of_effort(tiny_weights: dict[str, Path]) -> None:
    path = tiny_weights["kl"]
    encoder, decoder = load_encoder(str(path), CPU), load_decoder(path, CPU)
    container = parse(write_latent(analyse(PICTURE, encoder), encoder, 200))
    parsed = read_symbols(container, decoder)
    parsed = dataclasses.replace(parsed, to_latent=lambda symbols: symbols * float("inf"))
    with pytest.raises(ModelError, match=f"the latent space of {path.stem}"):
        paint(container, parsed, decoder)
    whole = load_autoencoder(str(path), CPU)
    spoil(whole.decoder, float("nan"))
    with pytest.raises(ModelError, match="in steps of effort"):
        refine_latent(PICTURE, analyse(PICTURE, encoder), whole, 200, 1, lambda: None)


def test_half_precision(tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What leaves it is refused where it is written, and where another program asks for it."""
    encoder = load_encoder(str(tiny_weights["kl"]), CPU)
    analysed = analyse(PICTURE, encoder)
    large = dataclasses.replace(analysed, latent=analysed.latent * 1e6)
    with pytest.raises(FormatError, match="leave --coding fp16 out"):
        write_latent(large, encoder, 0, coding="fp16")
    path = tmp_path / "a.lz"
    path.write_bytes(write_latent(large, encoder, 0))
    with pytest.raises(ModelError, match=r"a\.lz: half precision cannot hold its latents"):
        load_latents(path, str(tiny_weights["kl"]))


def test_a_deviation_too_small_to_divide_by(tiny_weights: dict[str, Path]) -> None:
    encoder = load_encoder(str(tiny_weights["normal"]), CPU)
    analysed = analyse(PICTURE, encoder)
    encoder.latent.std = torch.full_like(encoder.latent.std, 1e-45)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="means and deviations"):
        write_latent(analysed, encoder, 0)


def test_on_the_command_line(
    cli: Callable[..., Result], tiny_weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture, no file, exit code 1."""
    source, coded, back = tmp_path / "a.png", tmp_path / "a.lz", tmp_path / "b.png"
    Image.fromarray(PICTURE.pixels).save(source)
    assert cli("encode", source, "-m", tiny_weights["kl"]).code == 0
    before = coded.read_bytes()
    fill = loading._Parts.fill

    def fill_badly(self: loading._Parts, module: nn.Module, part: str) -> None:
        fill(self, module, part)
        if part in ("encoder", "decoder"):
            spoil(module, float("nan"))

    monkeypatch.setattr(loading._Parts, "fill", fill_badly)
    for load in (api._load_encoder, api._load_decoder):
        load.cache_clear()
    try:
        for command in (("decode", coded, "-o", back), ("encode", source, "-f")):
            result = cli(*command, "-m", tiny_weights["kl"])
            assert result.code == 1
            assert "values that are not finite" in result.err
    finally:
        for load in (api._load_encoder, api._load_decoder):
            load.cache_clear()
    assert not back.exists()
    assert coded.read_bytes() == before
