"""The parts of the objective that look at texture and at means: each is its formula, and does what it is for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from latentzip.training.fidelity import SIDES, squared_error
from latentzip.training.vgg import BLOCKS, DEVIATION, MEAN, VggDistance
from latentzip.training.wasserstein import VARIANCE_FLOOR, log_sigma_of, wasserstein_distortion


def photograph(side: int) -> Tensor:
    """(1, 3, side, side) in [-1, 1]."""
    image = Image.open(IMAGES / "chelsea.png").convert("RGB").crop((100, 50, 100 + side, 50 + side))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def calibrated_file(vgg_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    heads = {f"vgg.lin{i}": torch.rand(8).half() for i in range(len(BLOCKS))}
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file({**load_file(vgg_file), **heads}, path)
    return path


def test_lpips_is_its_formula(calibrated_file: Path) -> None:
    distance, tensors = VggDistance(calibrated_file), load_file(calibrated_file)
    assert "LPIPS" in distance.name
    x = photograph(48).double()
    torch.manual_seed(0)
    x_hat = (x + 0.2 * torch.randn_like(x)).requires_grad_()

    def features(image: Tensor) -> list[Tensor]:
        h = ((image + 1) / 2 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
        found, number = [], 0
        for block, count in enumerate(BLOCKS):
            h = F.max_pool2d(h, 2) if block else h
            for _ in range(count):
                weight, bias = (tensors[f"vgg.conv_{number}.{part}"].double() for part in ("weight", "bias"))
                h, number = F.relu(F.conv2d(h, weight, bias, padding=1)), number + 1
            found.append(h / (h.square().sum(1, keepdim=True) + 1e-10).sqrt())
        return found

    expected = torch.zeros((), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(features(x_hat), features(x), strict=True)):
        head = tensors[f"vgg.lin{i}"].double()[None, :, None, None]
        expected = expected + (head * (a - b).square()).sum(1).mean()
    (gradient,) = torch.autograd.grad(expected, x_hat)

    moving = x_hat.detach().float().requires_grad_()
    found = distance(moving, x.float())
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    (found_gradient,) = torch.autograd.grad(found.sum(), moving)
    assert torch.allclose(found_gradient.double(), gradient, atol=1e-3 * gradient.abs().max().item())


def test_a_trunk_for_bgr_is_the_same_trunk(vgg_file: Path, tmp_path: Path) -> None:
    """Kernels for B, G, R in 0..255 give the distance of those for R, G, B of ImageNet's mean and deviation."""
    tensors = load_file(vgg_file)
    names = [f"conv{block}_{i}" for block, n in enumerate(BLOCKS, 1) for i in range(1, n + 1)]
    other = {
        f"{name}.{p}": tensors[f"vgg.conv_{i}.{p}"].float() for i, name in enumerate(names) for p in ("weight", "bias")
    }
    other["conv1_1.weight"] = (other["conv1_1.weight"] / (255 * torch.tensor(DEVIATION)[:, None, None])).flip(1)
    path = tmp_path / "bgr.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in other.items()}, path)
    x = photograph(48)
    x_hat = x + 0.1
    assert VggDistance(path)(x_hat, x).item() == pytest.approx(VggDistance(vgg_file)(x_hat, x).item(), rel=1e-3)


def test_wasserstein_distortion_is_its_formula() -> None:
    """One layer, written out in numpy: levels 1 and 2 half each at log2 sigma = 1.5."""
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 17, 14).unbind()
    found = wasserstein_distortion([a], [b], torch.full((1, 1, 17, 14), 1.5)).item()

    def halve(m: np.ndarray) -> np.ndarray:
        rows = (m[:, :-2] + 2 * m[:, 1:-1] + m[:, 2:]) / 4
        both = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
        return both[:, ::2, ::2]

    means, squares = [[v[0].double().numpy() for v in (a, b)], [v[0].double().square().numpy() for v in (a, b)]]
    expected = 0.0
    for _level in (1, 2):
        means, squares = [halve(m) for m in means], [halve(s) for s in squares]
        deviations = [np.sqrt(np.maximum(s - m**2, 0) + VARIANCE_FLOOR) for m, s in zip(means, squares, strict=True)]
        expected += 0.5 * ((means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2).mean()
    assert found == pytest.approx(expected, rel=1e-4)


def test_wasserstein_distortion_takes_grain_for_grain() -> None:
    """Other grain of the same strength costs less than no grain, though its squared error is twice as large."""
    torch.manual_seed(0)
    grain, other = torch.randn(2, 1, 4, 64, 64).unbind()
    wide, narrow = (torch.full((1, 1, 64, 64), s) for s in (3.0, 0.0))
    smooth = torch.zeros_like(grain)
    assert wasserstein_distortion([other], [grain], wide) < 0.2 * wasserstein_distortion([smooth], [grain], wide)
    assert wasserstein_distortion([other], [grain], narrow) > 1.5 * wasserstein_distortion([smooth], [grain], narrow)
    assert wasserstein_distortion([grain], [grain], wide) == 0


def test_wasserstein_distortion_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    a, b = (100 + torch.randn(2, 1, 4, 32, 32)).unbind()
    sigma = torch.full((1, 1, 32, 32), 2.0)
    expected = wasserstein_distortion([a.bfloat16()], [b.bfloat16()], sigma)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wasserstein_distortion([a.bfloat16()], [b.bfloat16()], sigma), expected)
    assert expected.dtype == torch.float32


def test_neighbourhoods_are_small_on_even_grounds_and_type() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.full((1, 3, 32, 32), 0.3), torch.rand(1, 3, 32, 32) * 2 - 1], 3)
    sigma = log_sigma_of(x, 3.0)
    assert sigma.shape == (1, 1, 32, 64)
    assert (sigma[..., :32] == 1).all()
    assert (sigma[..., 32:] == 3).all()
    mask = torch.zeros(1, 1, 32, 64)
    mask[..., 10:20, 40:50] = 1
    assert (log_sigma_of(x, 3.0, mask)[..., 10:20, 40:50] == 1).all()
    assert (log_sigma_of(x, 0.0) == 0).all()


def test_errors_of_means_are_their_formula() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0, 9, (2, 3, 32, 48))
    weights, chroma = (0.6, 0.4, 0.8, 1.6, 1.6), 0.5
    expected = np.zeros(2)
    for side, weight in zip(SIDES, weights, strict=True):
        m = d.reshape(2, 3, 32 // side, side, 48 // side, side).mean((3, 5))
        y = 0.299 * m[:, 0] + 0.587 * m[:, 1] + 0.114 * m[:, 2]
        colours = (0.564 * (m[:, 2] - y)) ** 2 + (0.713 * (m[:, 0] - y)) ** 2
        expected += weight * ((m**2).mean((1, 2, 3)) + chroma * colours.mean((1, 2)))
    found = squared_error(torch.from_numpy(d), weights, chroma)
    assert np.allclose(found.numpy(), expected, rtol=1e-5)
    assert np.allclose(squared_error(torch.from_numpy(d), (1.0,), 0.0).numpy(), (d**2).mean((1, 2, 3)))
