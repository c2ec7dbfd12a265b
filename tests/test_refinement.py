"""Effort: a picture's own latent, refined."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY_KL, TINY_NORMAL, TINY_VQ, Result, noise_picture, tiny_model
from PIL import Image

from latentzip import refinement
from latentzip.codec import analyse, decode_image, refine_latent, refinement_steps, search_longer, write_latent
from latentzip.container import DEFAULT_QUALITY
from latentzip.images import Picture
from latentzip.models.config import AutoencoderConfig
from latentzip.models.pictures import to_tensor
from latentzip.payload.scans import level_of_quality
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import LoadedEncoder, load_autoencoder, load_decoder, load_encoder, locate

CPU = torch.device("cpu")


def nothing() -> None:
    pass


def loaded(folder: Path, config: AutoencoderConfig) -> tuple[LoadedEncoder, str]:
    path = folder / "m.safetensors"
    save_weights(path, config, tiny_model(config).state_dict(), {})
    return load_encoder(str(path), CPU), str(path)


def crop(name: str, box: tuple[int, int, int, int]) -> Picture:
    return Picture(np.array(Image.open(IMAGES / name).convert("RGB").crop(box)), greyscale=False)


def test_effort_lowers_what_is_minimised() -> None:
    """With the built-in model on a real photograph: bits plus distortion, of real files."""
    model = load_encoder(None, CPU)
    picture, level = crop("coffee.png", (100, 60, 292, 252)), level_of_quality(DEFAULT_QUALITY)
    distortion = refinement.Distortion(model.config.lambdas, level / 255)
    plain = analyse(picture, model)
    refined = refine_latent(picture, plain, load_autoencoder(None, CPU), level, 6, nothing)
    costs = []
    for analysed in (plain, refined):
        data = write_latent(analysed, model, level)
        back = decode_image(data, lambda _: load_decoder(locate(None), CPU)).pixels
        of_file = distortion.of(to_tensor(back, 16), to_tensor(picture.pixels, 16))
        costs.append(8 * len(data) / picture.pixels[..., 0].size + float(of_file))
    assert costs[1] < 0.97 * costs[0]


@pytest.mark.parametrize("native", [False, True])
def test_products_are_in_bfloat16_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Elsewhere they take ten times as long as in float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    model = tiny_model(TINY_KL).eval()
    seen: list[torch.dtype] = []
    hook = model.decoder.deep[0].register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    picture = crop("coffee.png", (100, 60, 132, 92))
    latent = model.encoder(to_tensor(picture.pixels, 16)).detach()
    refinement.refine(model, picture.pixels, latent, torch.tensor([0.5]), 1, nothing)
    hook.remove()
    assert seen == [torch.bfloat16 if native else torch.float32]


def test_texture_counts_beside_squared_error() -> None:
    """Of two pictures with the same squared error, that without the texture is the worse one."""
    distortion = refinement.Distortion((0.00001, 0.0001), 0.5)
    x = to_tensor(noise_picture(32, 32).pixels, 16)
    smooth = x.mean((2, 3), keepdim=True).expand_as(x)
    brighter = x + (smooth - x).square().mean().sqrt()
    assert distortion.of(smooth, x) > 1.05 * distortion.of(brighter, x)
    assert distortion.of(x, x) < 1e-4


def test_pictures_smaller_than_the_window_of_ssim(tmp_path: Path) -> None:
    model, path = loaded(tmp_path, dataclasses.replace(TINY_KL, factor=4))
    picture = noise_picture(3, 2)
    refined = refine_latent(picture, analyse(picture, model), load_autoencoder(path, CPU), 128, 2, nothing)
    back = decode_image(write_latent(refined, model, 128), lambda _: load_decoder(Path(path), CPU))
    assert back.pixels.shape == picture.pixels.shape


def test_tiles_cover_a_picture_once_and_every_step_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 positions with 1 around them, on 5 x 4: each is refined in its turn, with the others around it."""
    monkeypatch.setattr(refinement, "TILE", 3)
    monkeypatch.setattr(refinement, "HALO", 1)
    model, path = loaded(tmp_path, TINY_KL)
    picture = noise_picture(4 * 16, 5 * 16)
    plain = analyse(picture, model)
    reports = []

    def report() -> None:
        reports.append(1)

    refined = refine_latent(picture, plain, load_autoencoder(path, CPU), 128, 1, report)
    assert len(reports) == refinement_steps(plain, model, 1) == 4 * refinement.STEPS[1]
    moved = (refined.latent - plain.latent).abs().amax((0, 1))
    assert moved.shape == (5, 4)
    assert bool((moved > 0).all())


def test_surroundings_stay(tmp_path: Path) -> None:
    model = load_autoencoder(loaded(tmp_path, TINY_KL)[1], CPU)
    start = torch.randn(1, 8, 5, 6)
    distortion = refinement.Distortion((0.001, 0.01), 0.5)
    tile = refinement._Tile(inner=(1, 1, 4, 5), outer=(0, 0, 5, 6))
    refined = refinement._refine_tile(
        model, torch.zeros(1, 3, 80, 96), start, tile, torch.tensor([0.5]), distortion, 3, nothing
    )
    changed = (refined != start).all(1)[0]
    assert changed[1:4, 1:5].all()
    assert changed.sum() == 12


def test_the_same_picture_gives_the_same_file_again(tmp_path: Path) -> None:
    model, path = loaded(tmp_path, TINY_KL)
    picture = noise_picture(50, 40)
    analysed = analyse(picture, model)
    files = [
        write_latent(refine_latent(picture, analysed, load_autoencoder(path, CPU), 99, 2, nothing), model, 99)
        for _ in range(2)
    ]
    assert files[0] == files[1] != write_latent(analysed, model, 99)


def test_vq_effort_searches_longer(tmp_path: Path) -> None:
    """More continued choices never end further from the latent, on the whole."""
    model, _ = loaded(tmp_path, dataclasses.replace(TINY_VQ, codebook_size=64))
    picture = noise_picture(96, 96)
    analysed = analyse(picture, model)
    quantizer = model.latent.quantizer  # type: ignore[union-attr]
    errors = []
    for effort in (0, 9):
        indices = quantizer.search(analysed.latent, 3, search_longer(analysed, effort).beam)  # type: ignore[operator]
        errors.append(float((quantizer.decode(indices) - analysed.latent).square().sum()))  # type: ignore[operator]
    assert errors[1] < errors[0]


def test_only_models_with_a_learned_prior_take_steps(tmp_path: Path) -> None:
    """Latents for diffusion models stay as they are, and no more than an encoder is loaded for them."""
    for config, steps in ((TINY_NORMAL, 0), (TINY_VQ, 0), (TINY_KL, refinement.STEPS[9])):
        model, _ = loaded(tmp_path, config)
        assert refinement_steps(analyse(noise_picture(32, 32), model), model, 9) == steps
        assert refinement_steps(analyse(noise_picture(32, 32), model), model, 0) == 0


def test_on_the_command_line(cli: Callable[..., Result], tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(noise_picture(70, 50).pixels).save(source)
    sizes = []
    for effort in (0, 3):
        result = cli(
            "encode", source, "-m", tiny_weights["kl"], "-e", effort, "-o", tmp_path / f"{effort}.lz", "--json"
        )
        assert result.code == 0
        assert f'"effort": {effort}' in result.out
        sizes.append((tmp_path / f"{effort}.lz").read_bytes())
    assert sizes[0] != sizes[1]
    limited = cli("encode", source, "-m", tiny_weights["kl"], "-e", 3, "--size", 1500, "-o", tmp_path / "s.lz")
    assert limited.code == 0, limited.err
    assert (tmp_path / "s.lz").stat().st_size <= 1500
    assert cli("encode", source, "-e", "10").code == 2
    refused = cli("encode", source, "-e", "2", "--coding", "fp16")
    assert refused.code == 2
    assert "effort" in refused.err
