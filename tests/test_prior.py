"""The prior: exact, and worth its bits."""

import pytest
import torch
from conftest import TINY_KL, tiny_model
from torch import nn

from latentzip.models.autoencoder import KlLatent
from latentzip.models.exact import (
    LIMIT,
    UNIT,
    ExactLayer,
    Plane,
    all_taps,
    colours,
    odd_taps,
    to_grid,
    units,
    upsampled,
)
from latentzip.models.exact_prior import ExactHyperPrior
from latentzip.models.prior import (
    SCALE_MAX,
    SCALE_MIN,
    HyperPrior,
    bits,
    checkerboard,
    index_of_scale,
    scale_of_index,
)


def prior() -> HyperPrior:
    latent = tiny_model(TINY_KL).latent
    assert isinstance(latent, KlLatent)
    return latent.prior


def on_grid(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Activations of up to about 200, in units."""
    generator = torch.Generator().manual_seed(seed)
    return units(torch.randn(shape, generator=generator, dtype=torch.float64) * 50)


def test_an_exact_layer_does_not_care_for_the_order_of_additions() -> None:
    """Permuting inputs and weights alike permutes the additions: an ordinary product differs, an exact one not."""
    torch.manual_seed(0)
    layer, permuted = nn.Conv2d(576, 16, 1), nn.Conv2d(576, 16, 1)
    order = torch.randperm(576)
    permuted.load_state_dict({"weight": layer.weight[:, order], "bias": layer.bias})
    x = on_grid((63, 576))
    plain = [(x.float() @ one.weight[:, :, 0, 0].T) for one in (layer, permuted)]
    assert not torch.equal(plain[0], x[:, order].float() @ permuted.weight[:, :, 0, 0].T)
    exact = ExactLayer(layer)(x)
    assert torch.equal(exact, ExactLayer(permuted)(x[:, order]))
    assert torch.equal(exact, torch.cat([ExactLayer(layer)(row) for row in x.split(1)]))  # nor for the number of rows
    assert torch.equal(exact.T, ExactLayer(layer).channel_major(x))


def test_an_exact_layer_agrees_with_rational_arithmetic() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(45, 2, 1)
    layer = ExactLayer(conv)
    x = on_grid((1, 45))
    weights = (to_grid(conv.weight.detach().double(), 16, 8.0) * 2**16).long()
    bias = (to_grid(conv.bias.detach().double(), 26, 4096.0) * 2**26).long()
    for channel in range(2):
        total = int((x[0].long() * weights[channel, :, 0, 0]).sum() + bias[channel])
        expected = (total + 2**15) // 2**16  # halves upwards
        assert int(layer(x)[0, channel]) == expected
        assert int(layer(x, relu=True)[0, channel]) == max(0, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 4), (6, 7)])
@pytest.mark.parametrize("side", [3, 5])
def test_layers_on_planes_are_convolutions(side: int, size: tuple[int, int]) -> None:
    """All taps everywhere, and half of them where the other half meets nothing but zeros; in integers."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, side, padding=side // 2)
    x = on_grid((6, *size))
    everywhere, half = ExactLayer(conv), ExactLayer(conv, odd_taps(side))
    weight = (to_grid(conv.weight.detach().double(), 16, 8.0) * 2**16).long()
    bias = (to_grid(conv.bias.detach().double(), 26, 4096.0) * 2**26).long()

    def expected(x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, [side // 2] * 4).long()
        total = bias[:, None, None].expand(4, *size).clone()
        for place, (dy, dx) in zip(range(side * side), all_taps(side), strict=True):
            window = padded[:, dy + side // 2 :, dx + side // 2 :][:, : size[0], : size[1]]
            total += (weight[:, :, place // side, place % side, None, None] * window).sum(1)
        return ((total + 2**15) // 2**16).double().flatten(1).T

    def plane_of(x: torch.Tensor) -> Plane:
        plane = Plane(size, 6, margin=2)
        plane.put(torch.arange(size[0] * size[1]), x.flatten(1).T.contiguous())
        return plane

    positions = torch.arange(size[0] * size[1])
    assert torch.equal(everywhere(plane_of(x).around(positions, everywhere.taps)), expected(x))
    even = checkerboard(*size, torch.device("cpu"))
    for colour, others in ((even, colours(size)[1]), (~even, colours(size)[0])):
        assert torch.equal(others, (~colour).flatten().nonzero()[:, 0])
        assert torch.equal(half(plane_of(x * colour).around(others, half.taps)), expected(x * colour)[others])


def test_upsampling_is_pixel_shuffle() -> None:
    x = torch.randn(1, 12, 5, 3)
    positions = x[0].flatten(1).T
    assert torch.equal(upsampled(positions, (5, 3)), nn.functional.pixel_shuffle(x, 2)[0].flatten(1).T)


def test_an_exact_layer_is_close_to_its_original() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(800, 8, 1)
    x = on_grid((50, 800))
    before = conv((x / UNIT).float()[..., None, None])[..., 0, 0]
    # the weights move by at most 2**-17, 800 of them meet inputs of about 50
    assert torch.allclose((ExactLayer(conv)(x) / UNIT).float(), before, atol=800**0.5 * 50 * 2**-17 * 4)


def test_extreme_inputs_stay_exact() -> None:
    conv = nn.Conv2d(100, 4, 5)
    with torch.no_grad():
        conv.weight.fill_(100.0)
    layer = ExactLayer(conv)
    assert (layer(torch.full((1, 2500), LIMIT, dtype=torch.float64)) == LIMIT).all()
    assert (units(torch.tensor([1e9, -1e9, 0.00048828125, -0.3])) == torch.tensor([LIMIT, -LIMIT, 1.0, -307.0])).all()


# in the order of the sweep: hyperlatent, then the groups
PARTS = (TINY_KL.hyper_channels, *TINY_KL.prior_groups)


def side_of_part(part: int, size: tuple[int, int]) -> tuple[int, int]:
    return size if part else (-(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_the_exact_prior_says_what_the_trained_one_does(rate: float) -> None:
    """In the same order: means to a sixteenth, scale indices rounded, but for the rounding of activations."""
    trained = prior()
    exact = ExactHyperPrior(trained)
    size = (9, 14)
    torch.manual_seed(0)
    parts = [torch.randint(-9, 10, (c, *side_of_part(p, size))).float() for p, c in enumerate(PARTS)]
    expected: list[torch.Tensor] = []

    def follow(part: int, mean: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        expected.append(torch.stack([mean, index])[:, 0, :, mask])
        return parts[part][None]

    trained.sweep(torch.tensor([rate]), size, follow)
    passes = iter(expected)

    def compare(part: int, positions: torch.Tensor, mean: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        wanted = next(passes)
        assert (mean - wanted[0]).abs().max() < 1 / 32 + 0.02
        assert (mean * 16 == (mean * 16).round()).all()
        assert (index - wanted[1].clamp(0, 63)).abs().max() < 0.5 + 0.02
        return parts[part].flatten(1)[:, positions].double()

    coded = exact.sweep(rate, size, compare)
    assert next(passes, None) is None
    assert torch.equal(coded.T.unflatten(1, size), torch.cat(parts[1:]))


def test_the_prior_knows_the_rate() -> None:
    said: list[torch.Tensor] = []

    def code(_part: int, _positions: torch.Tensor, mean: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        said.append(torch.cat([mean, index]))
        return mean

    for rate in (0.0, 1.0):
        ExactHyperPrior(prior()).sweep(rate, (8, 8), code)
    half = len(said) // 2
    assert not torch.equal(said[0], said[half]), "the hyperlatent"
    assert not torch.equal(said[-1], said[half - 1]), "the last group"


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (8, 3)])
def test_the_sweep_visits_every_value_once(size: tuple[int, int]) -> None:
    seen = [torch.zeros(c, *side_of_part(p, size)) for p, c in enumerate(PARTS)]
    model = prior()

    def code(part: int, mean: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        this = seen[part]
        assert mean.shape == index.shape == (1, *this.shape)
        this[:, mask] += 1
        return mean.detach()

    out = model.sweep(torch.zeros(1), size, code)
    assert all((visits == 1).all() for visits in seen)
    assert out.shape == (1, TINY_KL.latent_channels, *size)


def test_a_pass_knows_nothing_of_what_it_codes() -> None:
    """Causality: parameters must not depend on values that are coded in the same pass or later."""
    model = ExactHyperPrior(prior())
    passes = 2 * len(PARTS)

    def parameters(values: list[torch.Tensor]) -> list[torch.Tensor]:
        taken: list[torch.Tensor] = []

        def code(part: int, positions: torch.Tensor, mean: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            assert part == len(taken) // 2
            taken.append(torch.cat([mean, index], 0))
            return values[len(taken) - 1].expand_as(mean)

        model.sweep(0.5, (8, 8), code)
        return taken

    base = [torch.full((1, 1), 3.0, dtype=torch.float64) for _ in range(passes)]
    reference = parameters(base)
    for changed in range(passes):
        values = list(base)
        values[changed] = values[changed] + 5
        result = parameters(values)
        for step in range(passes):
            same = torch.equal(result[step], reference[step])
            assert same == (step <= changed), f"pass {step} and a change in pass {changed}"


def test_bits_are_those_of_the_integrated_gaussian() -> None:
    values = torch.arange(-400, 401).double()
    for scale in (0.3, 1.0, 17.0):
        index = index_of_scale(torch.tensor(scale, dtype=torch.float64))
        probabilities = torch.exp2(-bits(values, 0.25, index.expand_as(values)))
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_scale_indices_are_a_logarithmic_scale() -> None:
    assert scale_of_index(torch.tensor(0.0)).item() == pytest.approx(SCALE_MIN)
    assert scale_of_index(torch.tensor(63.0)).item() == pytest.approx(SCALE_MAX)
    scales = torch.tensor([0.2, 1.0, 30.0])
    assert torch.allclose(scale_of_index(index_of_scale(scales)), scales, rtol=1e-5)
