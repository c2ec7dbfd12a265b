"""LPIPS and DISTS against their formulas written out in numpy, what they must be like, and files that are none."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from latentzip.bench import distances
from latentzip.bench.meter import Meter
from latentzip.bench.metrics import NEEDED, ST_LPIPS, choose_metrics
from latentzip.bench.perceptual_weights import check_weights
from latentzip.errors import BenchError
from latentzip.images import Pixels

Array = NDArray[np.float64]
KEYS = ["lpips_alex", "lpips", "dists", "vgg16"]


def photograph(left: int = 100, top: int = 60, side: int = 48) -> Pixels:
    return np.array(Image.open(IMAGES / "chelsea.png").convert("RGB"))[top : top + side, left : left + side]


def noisy(pixels: Pixels, deviation: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, deviation, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def blurred(pixels: Pixels, radius: float) -> Pixels:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


@pytest.fixture
def measure(perceptual_file: Path) -> Callable[[Pixels, Pixels], dict[str, float]]:
    meter = Meter(NEEDED, perceptual_file)

    def run(a: Pixels, b: Pixels) -> dict[str, float]:
        return {key: value for key, value in meter.measure(a, b, KEYS).items() if value is not None}

    return run


def convolved(x: Array, weight: Array, bias: Array, stride: int, padding: int) -> Array:
    """(C, H, W) by (O, C, k, k), straight from the definition."""
    side = weight.shape[2]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]


def pooled(x: Array, side: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::2, ::2].max((3, 4))


def hanned(x: Array) -> Array:
    window = np.outer(np.hanning(5)[1:-1], np.hanning(5)[1:-1])
    kernel = np.eye(len(x))[:, :, None, None] * window / window.sum()
    return np.sqrt(convolved(x**2, kernel, np.zeros(len(x)), 2, 1) + 1e-12)


def layers(x: Array, trunk: str, tensors: Mapping[str, Array], pool: Callable[[Array], Array]) -> list[Array]:
    """x: (3, H, W) in [0, 1] -> the outputs that are compared."""
    h = (x - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    before, taps = ((1, 2), range(5)) if trunk == "alex" else ((2, 4, 7, 10), (1, 3, 6, 9, 12))
    found = []
    for i in range(max(taps) + 1):
        weight, bias = tensors[f"{trunk}.conv_{i}.weight"], tensors[f"{trunk}.conv_{i}.bias"]
        stride, padding = (4, 2) if weight.shape[2] == 11 else (1, weight.shape[2] // 2)
        h = convolved(pool(h) if i in before else h, weight, bias, stride, padding).clip(0)
        if i in taps:
            found.append(h)
    return found


def lpips(a: list[Array], b: list[Array], heads: list[Array]) -> float:
    total = 0.0
    for f, g, head in zip(a, b, heads, strict=True):
        f, g = (x / np.sqrt((x**2).sum(0) + 1e-20) for x in (f, g))
        total += float((((f - g) ** 2) * head[:, None, None]).sum(0).mean())
    return total


def dists(a: list[Array], b: list[Array], alpha: Array, beta: Array) -> float:
    similarity, place = 0.0, 0
    for f, g in zip(a, b, strict=True):
        for x, y in zip(f, g, strict=True):
            means = (2 * x.mean() * y.mean() + 1e-6) / (x.mean() ** 2 + y.mean() ** 2 + 1e-6)
            covariance = (x * y).mean() - x.mean() * y.mean()
            structure = (2 * covariance + 1e-6) / (x.var() + y.var() + 1e-6)
            similarity += alpha[place] * means + beta[place] * structure
            place += 1
    return float(1 - similarity / (alpha.sum() + beta.sum()))


def test_distances_are_their_formulas(
    perceptual_file: Path, measure: Callable[[Pixels, Pixels], dict[str, float]]
) -> None:
    """Written out in float64. With the published weights the values are those of the packages lpips 0.1.4 and
    DISTS-pytorch 0.1 to seven digits: docs/bench.md has them."""
    tensors = {name: tensor.double().numpy() for name, tensor in load_file(perceptual_file).items()}
    pair = [photograph(), noisy(photograph(), 20)]
    a, b = (x.transpose(2, 0, 1) / 255 for x in pair)
    heads = {trunk: [tensors[f"{trunk}.lin{i}"] for i in range(5)] for trunk in ("alex", "vgg")}
    alex = [layers(x, "alex", tensors, lambda h: pooled(h, 3)) for x in (a, b)]
    vgg = [layers(x, "vgg", tensors, lambda h: pooled(h, 2)) for x in (a, b)]
    hann = [[x, *layers(x, "vgg", tensors, hanned)] for x in (a, b)]
    expected = {
        "lpips_alex": lpips(alex[0], alex[1], heads["alex"]),
        "lpips": lpips(vgg[0], vgg[1], heads["vgg"]),
        "dists": dists(hann[0], hann[1], tensors["dists.alpha"].ravel(), tensors["dists.beta"].ravel()),
        "vgg16": lpips(vgg[0], vgg[1], [np.ones(6)] * 5),
    }
    assert measure(*pair) == pytest.approx(expected, rel=1e-4)  # float32


def test_equal_pictures_are_at_no_distance_and_no_side_comes_first(
    measure: Callable[[Pixels, Pixels], dict[str, float]],
) -> None:
    a, b = photograph(), blurred(photograph(), 2)
    assert measure(a, a) == dict.fromkeys(KEYS, 0)
    assert measure(a, b) == pytest.approx(measure(b, a), rel=1e-5)


@pytest.mark.parametrize("spoil", [noisy, blurred])
def test_distances_grow_with_what_is_done(
    spoil: Callable[[Pixels, float], Pixels], measure: Callable[[Pixels, Pixels], dict[str, float]]
) -> None:
    amounts = (4.0, 12.0, 40.0) if spoil is noisy else (0.5, 1.0, 3.0)
    found = [measure(photograph(side=96), spoil(photograph(side=96), amount)) for amount in amounts]
    for key in KEYS:
        assert 0 < found[0][key] < found[1][key] < found[2][key]


def test_a_file_with_a_part_measures_that_part(perceptual_file: Path, tmp_path: Path) -> None:
    tensors = load_file(perceptual_file)
    path = tmp_path / "part.safetensors"
    for prefixes, keys in (
        (("alex",), {"lpips_alex"}),
        (("vgg.conv",), {"vgg16"}),
        (("vgg",), {"vgg16", "lpips"}),
        (("vgg.conv", "dists"), {"vgg16", "dists"}),
    ):
        save_file({name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}, path)
        found = choose_metrics(path)
        assert keys == {metric.key for metric in found.metrics} & set(KEYS)
        values = Meter(found.metrics, path).measure(photograph(), noisy(photograph(), 9), keys)
        assert all(value is not None and value > 0 for value in values.values())
    assert f"LPIPS-Alex is left out: {path} has no alex.conv_0.weight" in found.missing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vgg.conv_7.bias": None}, "vgg.conv_7.bias is missing"),
        ({"alex.lin3": None}, "alex.lin3 is missing"),
        ({"dists.beta": None}, "dists.beta is missing"),
        (
            {"vgg.conv_4.weight": torch.zeros(6, 5, 3, 3)},
            r"vgg.conv_4.weight is of shape \(6, 5, 3, 3\) instead of \(6, 6,",
        ),
        ({"alex.lin0": torch.zeros(1, 6, 1, 1)}, r"alex.lin0 is of shape \(1, 6, 1, 1\) instead of \(6,\)"),
        (
            {"dists.alpha": torch.zeros(1, 3, 1, 1)},
            r"dists.alpha is of shape \(1, 3, 1, 1\) instead of \(1, 33, 1, 1\)",
        ),
    ],
)
def test_weights_that_do_not_fit(
    change: dict[str, torch.Tensor | None], message: str, perceptual_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    tensors = {**load_file(perceptual_file), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(BenchError, match=rf"odd\.safetensors: {message}"):
        check_weights(path)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"missing\.safetensors: cannot be read"):
        choose_metrics(tmp_path / "missing.safetensors")
    with pytest.raises(BenchError, match="not a safetensors file"):
        choose_metrics(IMAGES / "chelsea.png")
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BenchError, match=r"other\.safetensors: has no weights of LPIPS or DISTS"):
        choose_metrics(tmp_path / "other.safetensors")


def test_the_shift_tolerant_form_is_the_package_s(perceptual_file: Path) -> None:
    """0.2300285 by stlpips-pytorch 0.0.2 itself ("alex", "shift_tolerant"). A file of the user's takes its place."""
    whole = np.array(Image.open(IMAGES / "chelsea.png").convert("RGB"))
    posterised = (whole // 24 * 24 + 12).clip(0, 255).astype(np.uint8)
    assert ST_LPIPS in choose_metrics(None).metrics
    assert ST_LPIPS not in choose_metrics(perceptual_file).metrics
    meter = Meter([ST_LPIPS], None)
    assert meter.measure(whole, posterised, {"st_lpips"})["st_lpips"] == pytest.approx(0.2300285, abs=1e-6)
    assert meter.measure(whole, whole, {"st_lpips"}) == {"st_lpips": 0}


def test_a_package_that_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "alex.pth"
    monkeypatch.setattr(distances, "shift_tolerant_file", lambda: path)
    torch.save({"net.slice1.0.weight": torch.zeros(1)}, path)
    for _ in range(2):
        with pytest.raises(BenchError, match=r"alex\.pth: cannot be read: install stlpips-pytorch anew"):
            Meter([ST_LPIPS], None).measure(photograph(), photograph(), {"st_lpips"})
        path.write_bytes(b"nonsense")
