"""The discriminator on frozen features, relativistic pairs, and the balance of gradients at the reconstruction."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import TINY_KL, tiny_model
from torch.nn import functional as F

from latentzip.training.discriminator import adversarial_loss, discriminator_loss
from latentzip.training.losses import Objective
from latentzip.training.projected import MIXED, ProjectedDiscriminator, augmented
from latentzip.training.settings import TrainSettings


@pytest.fixture(scope="module")
def discriminator() -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator()


def test_it_judges_at_four_scales_and_only_its_heads_learn(discriminator: ProjectedDiscriminator) -> None:
    x = torch.rand(2, 3, 96, 96) * 2 - 1
    logits = discriminator(x)
    assert [tuple(scale.shape) for scale in logits] == [(2, 1, side, side) for side in (24, 12, 6, 3)]
    learning = {name for name, p in discriminator.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith("heads.") for name in learning)
    sum(scale.sum() for scale in logits).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in discriminator.named_parameters() if n in learning
    )


def test_heads_fit_another_instance(discriminator: ProjectedDiscriminator) -> None:
    """What is frozen is the same in all of them."""
    torch.manual_seed(1)
    other = ProjectedDiscriminator().eval()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    discriminator.eval()
    assert not torch.equal(other(x)[0], discriminator(x)[0])
    other.heads.load_state_dict(discriminator.heads.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other(x), discriminator(x), strict=True))
    discriminator.train()


def test_coarse_features_reach_the_fine_heads(discriminator: ProjectedDiscriminator) -> None:
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    seen: list[torch.Tensor] = []
    hook = discriminator.heads[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    discriminator(x)
    changed = x.clone()
    changed[:, :, 64:, 64:] *= -1  # 8 and more pixels away from the corner that is looked at
    discriminator(changed)
    hook.remove()
    assert seen[0].shape[1] == MIXED
    assert not torch.allclose(seen[0][:, :, 2, 2], seen[1][:, :, 2, 2], atol=1e-6)


def test_relativistic_pairs() -> None:
    """Softplus of the difference, of each the other way round (arXiv 1807.00734)."""
    torch.manual_seed(0)
    real, fake = torch.randn(2, 3, 1, 5, 5).unbind()
    assert discriminator_loss(real, fake, "relativistic").item() == pytest.approx(F.softplus(fake - real).mean().item())
    assert adversarial_loss(real, fake, "relativistic").item() == pytest.approx(F.softplus(real - fake).mean().item())


def test_pairs_are_augmented_alike_and_differently_each_step() -> None:
    x = torch.rand(2, 3, 64, 64) + 1
    first, second = augmented([x, 2 * x], 3)
    assert torch.equal(second, 2 * first)
    assert 0.05 < (first == 0).float().mean() < 0.4
    assert not torch.equal(augmented([x], 4)[0], first)


def test_the_adversarial_gradient_has_its_share_at_the_pixels(discriminator: ProjectedDiscriminator) -> None:
    """`disc_weight` of the norm of the reconstruction loss's gradient, and nothing where there is type."""
    settings = TrainSettings(
        max_steps=1, precision="fp32", discriminator="projected", adversarial="relativistic", disc_weight=0.3,
        disc_start=0.0, perceptual="none", ssim_weight=0.0, perceptual_crops=2, perceptual_crop=64,
    )  # fmt: skip
    model = tiny_model(TINY_KL)
    torch.manual_seed(0)
    x, rate, mask = torch.rand(2, 3, 64, 64) * 2 - 1, torch.tensor([0.3, 0.6]), torch.zeros(2, 1, 64, 64)
    mask[:, :, :, 32:] = 1

    def gradient(settings: TrainSettings, type_mask: torch.Tensor | None) -> torch.Tensor:
        torch.manual_seed(1)
        out = model(x, rate)
        found: list[torch.Tensor] = []
        out.x_hat.register_hook(found.append)
        judge = discriminator if settings.disc_weight else None
        Objective(settings, TINY_KL.lambdas, None, judge).backward(
            x, out, rate, model.decoder.last_layer, 0.9, 0, type_mask
        )
        return found[0]

    without = dataclasses.replace(settings, disc_weight=0.0, type_weight=0.0)
    plain = gradient(without, None)
    added = gradient(settings, None) - plain
    assert (added.norm() / plain.norm()).item() == pytest.approx(0.3, rel=1e-3)
    settings = dataclasses.replace(settings, type_weight=0.0)
    masked = gradient(settings, mask) - plain
    assert masked[..., 32:].abs().max() < 1e-3 * masked.abs().max()
    assert masked[..., :32].norm() > 0


def test_train_with_it(photographs: Path, tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    from typer.testing import CliRunner

    from latentzip.cli.app import app

    arguments = f"train --data {photographs} --out {tmp_path / 'run'} --train decoder --init {tiny_weights['kl']}"
    options = "--crop 64 --batch 2 --discriminator projected --adversarial relativistic --disc-start 0 --max-steps 2"
    found = CliRunner().invoke(app, [*arguments.split(), *options.split(), "--perceptual", "none", "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "run" / "model.safetensors").exists()
