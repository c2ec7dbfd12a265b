"""The figures of a comparison against other programs that compute them, and against what they must be."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGES
from PIL import Image
from safetensors.torch import load_file, save_file

from latentzip.bench import meter, metrics, perceptual_weights
from latentzip.bench.frechet import CHANNELS, frechet_distance, patch_features
from latentzip.bench.meter import Meter, ms_ssim, psnr, square_means, ssimulacra2
from latentzip.bench.metrics import EFFICIENTNET, PSNR, choose_metrics, trained_on
from latentzip.images import Pixels
from latentzip.training.efficientnet import EfficientNetLite0, read_imagenet_weights

NETWORKS = ("lpips_alex", "lpips", "dists", "vgg16")  # those of the file --perceptual-weights
OF_VGG16 = {"lpips", "dists", "vgg16"}


def chelsea() -> Pixels:
    return np.array(Image.open(IMAGES / "chelsea.png").convert("RGB"))


def posterised(pixels: Pixels) -> Pixels:
    """A distortion that no library's version can change."""
    return (pixels // 24 * 24 + 12).clip(0, 255).astype(np.uint8)


def test_psnr_is_scikit_image_s() -> None:
    """skimage.metrics.peak_signal_noise_ratio of scikit-image 0.26.0 (and sewar 0.4.10's psnr): 31.28698886411644."""
    assert psnr(chelsea(), posterised(chelsea())) == pytest.approx(31.28698886411644, abs=1e-9)
    assert psnr(chelsea(), chelsea()) == 100


def test_ms_ssim_is_scikit_image_s() -> None:
    """0.9620457 by scikit-image 0.26.0: its structural_similarity map (Gaussian weights, sigma 1.5), divided by the
    luminance term for the four finer scales, between which downscale_local_mean halves; the mean of R, G and B."""
    even = chelsea()[:288, :448]  # so that no implementation has to invent a border when it halves
    assert ms_ssim(even, posterised(even)) == pytest.approx(0.9620457, abs=2e-6)  # float32
    assert ms_ssim(even[:160], posterised(even)[:160]) is None
    assert ms_ssim(even[:161], even[:161]) == pytest.approx(1)


def test_ssimulacra2_is_vszip_s() -> None:
    """53.2213 by vapoursynth-vszip 23.1.0, an independent implementation.

    On a wide plain ground: the two treat what lies outside the picture differently, which docs/bench.md has more on.
    """
    pair = [np.pad(x, ((128, 128), (128, 128), (0, 0)), constant_values=128) for x in _even_pair()]
    assert ssimulacra2(*pair) == pytest.approx(53.2213, abs=0.5)
    assert ssimulacra2(pair[0], pair[0]) == 100


def _even_pair() -> tuple[Pixels, Pixels]:
    even = chelsea()[:288, :448]
    return even, posterised(even)


def test_means_of_squares_are_those_of_jpeg_s_planes() -> None:
    """Against the planes in floating point, square by square; what is beyond the last whole square does not count."""
    a = chelsea()[:43, :70]
    b = posterised(a)
    red, green, blue = (b.astype(float) - a).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = {"mean8_y": luma, "mean8_cb": (blue - luma) / 1.772, "mean8_cr": (red - luma) / 1.402}
    found = square_means(a, b)
    for key, plane in planes.items():
        squares = [plane[y : y + 8, x : x + 8].mean() ** 2 for y in range(0, 40, 8) for x in range(0, 64, 8)]
        assert found[key] == pytest.approx(10 * np.log10(255**2 / np.mean(squares)), abs=1e-3)  # of six digits
    assert square_means(a, a) == dict.fromkeys(planes, 100)
    assert square_means(a[:7], b[:7]) == dict.fromkeys(planes)
    checks = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert square_means(checks, 255 - checks) == dict.fromkeys(planes, 100)  # finer than any mean


def test_distances_remember_the_right_original(perceptual_file: Path) -> None:
    found = choose_metrics(perceptual_file)
    one = Meter(found.metrics, perceptual_file)
    a, b = chelsea()[:64, :64], chelsea()[100:164, 100:164]
    wanted = {EFFICIENTNET.key, *NETWORKS}
    forward = [one.measure(x, posterised(x), wanted) for x in (a, b, a)]
    afresh = [Meter(found.metrics, perceptual_file).measure(x, posterised(x), wanted) for x in (a, b, a)]
    assert forward == afresh
    assert all(value is not None and value > 0 for value in forward[0].values())
    assert one.measure(a, a, wanted) == dict.fromkeys(wanted, 0)


def test_large_pictures_are_measured_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the windows' distances by their areas: memory stays bounded."""
    monkeypatch.setattr(meter, "WINDOW", 128)
    one = Meter([EFFICIENTNET], None)
    a = chelsea()[:128, :160]
    b = posterised(a)
    parts = [slice(0, 128), slice(128, 160)]
    apart = [one.measure(a[:, part], b[:, part], {EFFICIENTNET.key})[EFFICIENTNET.key] for part in parts]
    assert apart[0] is not None
    assert apart[1] is not None
    whole = one.measure(a, b, {EFFICIENTNET.key})[EFFICIENTNET.key]
    assert whole == pytest.approx((apart[0] * 128 + apart[1] * 32) / 160)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 20)])
def test_small_pictures_have_distances_too(shape: tuple[int, int], perceptual_file: Path) -> None:
    found = choose_metrics(perceptual_file)
    a = chelsea()[: shape[0], : shape[1]]
    values = Meter(found.metrics, perceptual_file).measure(a, posterised(a), {m.key for m in found.metrics})
    assert values["ms_ssim"] is None
    assert (values["ssimulacra2"] is None) == (min(shape) < 8)
    assert all(values[key] is not None for key in (PSNR.key, EFFICIENTNET.key, *NETWORKS))


def test_frechet_distance_of_known_covariances() -> None:
    """Scaled by 2 and moved: |move|² + trace(A + 4A - 2 · 2A) = |move|² + trace A."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    a -= a.mean(0)
    move = np.arange(6.0)
    expected = move @ move + np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, 2 * a + move) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_patches_are_means_of_the_feature_map() -> None:
    network = EfficientNetLite0(read_imagenet_weights())
    x = torch.rand(1, 3, 150, 200) * 2 - 1
    found = patch_features(network, [x])
    assert found.shape == (2 * 3, CHANNELS)
    with torch.no_grad():
        features = network.features(x[:, :, :128, :192])[-1]
    assert torch.allclose(torch.from_numpy(found[4]), features[0, :, 4:8, 4:8].mean((1, 2)), atol=1e-5)
    assert patch_features(network, [x[:, :, :63]]).shape == (0, CHANNELS)


def test_what_is_not_installed_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (metrics, perceptual_weights):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    found = choose_metrics(None)
    assert [metric.key for metric in found.metrics] == ["psnr", "mean8_y", "mean8_cb", "mean8_cr"]
    assert not found.measures_frechet
    assert "SSIMULACRA 2 is left out: ssimulacra2 is not installed: pip install 'latentzip[bench]'" in found.missing
    assert found.missing[-2:] == (
        "LPIPS-Alex, LPIPS-VGG, DISTS, VGG16 distance are left out: they need --perceptual-weights FILE, see"
        " docs/bench.md",
        "ST-LPIPS-Alex is left out: stlpips-pytorch is not installed: pip install 'latentzip[lpips]'",
    )


def test_other_weights_are_another_metric(perceptual_file: Path, tmp_path: Path) -> None:
    """So that cached distances of one file are not taken for the other's."""
    other = tmp_path / "other.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(perceptual_file).items()}, other)
    keys = [{m.key: m.cache_key for m in choose_metrics(path).metrics} for path in (perceptual_file, other)]
    assert {key for key in keys[0] if keys[0][key] != keys[1][key]} == set(NETWORKS)
    assert hashlib.sha256(perceptual_file.read_bytes()).hexdigest()[:12] in keys[0]["dists"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reconstruction": "mse", "perceptual": "trunk.safetensors", "perceptual_weight": 0.3}, {"psnr", *OF_VGG16}),
        ({"reconstruction": "l1", "perceptual": "efficientnet", "perceptual_weight": 0.3}, {"efficientnet", "frechet"}),
        ({"reconstruction": "mse", "perceptual": "lpips", "perceptual_weight": 0}, {"psnr"}),
        ({"perceptual": "trunk.safetensors", "perceptual_weight": 0.3, "ssim_weight": 1.0}, {*OF_VGG16, "ms_ssim"}),
        ({"reconstruction": "mse", "perceptual": "none", "ssim_weight": 1.0}, {"psnr"}),
        (
            {"reconstruction": "mse", "perceptual": "none", "ssim_weight": 1.0, "settings_version": 2},
            {"psnr", "ms_ssim"},
        ),
        ({"reconstruction": "mse", "perceptual": "none", "perceptual_weight": 1, "train": "prior"}, set()),
        ({"reconstruction": "mse", "perceptual": "lpips", "perceptual_weight": 1}, {"psnr", *OF_VGG16}),
        ({"reconstruction": "mse", "means_weights": [0.6, 0.0, 1.6]}, {"psnr", "mean8_y", "mean8_cb", "mean8_cr"}),
        ({"reconstruction": "mse", "means_weights": [1.0]}, {"psnr"}),
        ({"perceptual": "trunk.safetensors", "perceptual_weight": 0, "wasserstein_weight": 1.0}, OF_VGG16),
        ({"discriminator": "projected", "disc_weight": 0.3}, {"efficientnet", "frechet"}),
        ({"discriminator": "projected", "disc_weight": 0.0}, set()),
        ({}, set()),
    ],
)
def test_what_a_model_was_trained_on(settings: dict[str, object], expected: set[str]) -> None:
    """AlexNet is in no loss; what a network has in common with one is marked too."""
    assert trained_on(settings) == expected
    assert trained_on(settings, ["ms_ssim"]) == expected | {"ms_ssim"}
