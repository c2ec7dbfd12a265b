"""Tiny seeded models and pictures, and the command line as a function."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from latentzip.bench.perceptual_weights import KERNELS
from latentzip.cli import app
from latentzip.codec import encode_image
from latentzip.images import Picture, read_image
from latentzip.models.autoencoder import Autoencoder, KlLatent, NormalLatent, VqLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.training.vgg import BLOCKS
from latentzip.zoo.checkpoints import save_weights
from latentzip.zoo.loading import load_encoder

# no test measures a time, and machines are of many speeds
hypothesis.settings.register_profile("latentzip", deadline=None)
hypothesis.settings.load_profile("latentzip")

IMAGES = Path(__file__).parent / "images"

TINY_KL = AutoencoderConfig(
    regularizer="kl",
    latent_channels=8,
    widths=(8, 12),
    encoder_blocks=1,
    decoder_blocks=1,
    prior_groups=(3, 5),
    hyper_channels=4,
    prior_width=16,
    gain_knots=3,
)
TINY_NORMAL = dataclasses.replace(TINY_KL, prior="normal", latent_channels=4, prior_groups=(2, 2))
TINY_VQ = AutoencoderConfig(
    regularizer="vq",
    latent_channels=8,
    widths=(8, 12),
    encoder_blocks=1,
    decoder_blocks=1,
    stages=3,
    codebook_size=20,
)

TINY_VQ_PRIOR = dataclasses.replace(TINY_VQ, codebook_size=32, index_width=32)


def tiny_model(config: AutoencoderConfig, seed: int = 0) -> Autoencoder:
    """A seeded model whose latents span several quantisation steps."""
    torch.manual_seed(seed)
    model = Autoencoder(config)
    with torch.no_grad():
        model.encoder.linear.weight *= 4
        if isinstance(model.latent, KlLatent):
            model.latent.log_gain.copy_(torch.linspace(-1, 1, config.gain_knots)[:, None].expand(-1, 8))
            model.latent.prior.start_at(torch.full((config.latent_channels,), 2.0))
            # as in a trained one, no layer is zero, and the rate tells something
            model.latent.prior.rate[2].weight *= 20
            for context in model.latent.prior.contexts:
                torch.nn.init.normal_(context.block.second.weight, std=0.3)  # type: ignore[union-attr,arg-type]
        elif isinstance(model.latent, VqLatent) and model.latent.prior is not None:
            for parameter in model.latent.prior.parameters():  # its last layers begin at zero
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `latentzip ...` in this process, as its console script would."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["latentzip", *map(str, arguments)])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which commands change
        capfd.readouterr()
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files of the tiny models: kl, vq, vq-prior, and normal, whose channels differ in mean and deviation."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for name, config in (("kl", TINY_KL), ("vq", TINY_VQ), ("vq-prior", TINY_VQ_PRIOR), ("normal", TINY_NORMAL)):
        paths[name] = folder / f"tiny-{name}.safetensors"
        model = tiny_model(config)
        if isinstance(model.latent, NormalLatent):
            model.latent.mean.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
            model.latent.std.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
        save_weights(paths[name], config, model.state_dict(), {})
    return paths


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk of VGG16's layers, but thin and random."""
    torch.manual_seed(0)
    tensors, channels = {}, 3
    for number in range(sum(BLOCKS)):
        tensors[f"vgg.conv_{number}.weight"] = torch.randn(8, channels, 3, 3).half() * 0.3
        tensors[f"vgg.conv_{number}.bias"] = torch.zeros(8).half()
        channels = 8
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def perceptual_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of LPIPS and DISTS as docs/bench.md describes them, but thin and random."""
    torch.manual_seed(0)
    tensors = {}
    for trunk, kernels in KERNELS.items():
        channels = 3
        for i, side in enumerate(kernels):
            tensors[f"{trunk}.conv_{i}.weight"] = (torch.randn(6, channels, side, side) / channels**0.5 / side).half()
            tensors[f"{trunk}.conv_{i}.bias"] = torch.randn(6) / 10
            channels = 6
        tensors |= {f"{trunk}.lin{i}": torch.rand(6) for i in range(5)}
    tensors |= {f"dists.{name}": torch.rand(1, 3 + 5 * 6, 1, 1) for name in ("alpha", "beta")}
    path = tmp_path_factory.mktemp("perceptual") / "perceptual.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of crops of real photographs, some of them in a subfolder, and things that are not usable."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    image = Image.open(IMAGES / "coffee.png").convert("RGB")
    for i in range(8):
        image.crop((i * 50, i * 20, i * 50 + 150, i * 20 + 140)).save(folder / ("more" if i % 2 else "") / f"{i}.png")
    image.crop((0, 0, 20, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"nonsense")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def noise_picture(width: int, height: int, seed: int = 0) -> Picture:
    rng = np.random.default_rng(seed)
    return Picture(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), greyscale=False)


@pytest.fixture(scope="session")
def example_lz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photograph, encoded by the default model."""
    path = tmp_path_factory.mktemp("example") / "chelsea.lz"
    path.write_bytes(encode_image(read_image(IMAGES / "chelsea.png"), load_encoder(None, torch.device("cpu"))))
    return path
