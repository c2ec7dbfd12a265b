"""The prior: exact, and worth its bits."""

import pytest
import torch
from conftest import TINY_KL, tiny_model

from latentzip.models.blocks import ACTIVATION_BITS, ExactConv2d, to_grid
from latentzip.models.prior import SCALE_MAX, SCALE_MIN, HyperPrior, bits, checkerboard, index_of_scale, scale_of_index


def prior() -> HyperPrior:
    latent = tiny_model(TINY_KL).latent
    assert hasattr(latent, "prior")
    return latent.prior


def on_grid(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return to_grid(torch.randn(shape, generator=generator, dtype=torch.float64) * 50, ACTIVATION_BITS, 4096.0)


def test_an_exact_layer_does_not_care_for_the_order_of_additions() -> None:
    """Permuting inputs and weights alike permutes the additions: an ordinary float layer differs, an exact one not."""
    torch.manual_seed(0)
    layer = ExactConv2d(64, 16, 3)
    order = torch.randperm(64)
    permuted = ExactConv2d(64, 16, 3)
    permuted.load_state_dict({"weight": layer.weight[:, order], "bias": layer.bias})
    x = on_grid((1, 64, 9, 7))
    assert not torch.equal(layer(x.float()), permuted(x.float()[:, order]))
    layer.make_exact()
    permuted.make_exact()
    assert torch.equal(layer(x), permuted(x[:, order]))


def test_an_exact_layer_agrees_with_rational_arithmetic() -> None:
    torch.manual_seed(0)
    layer = ExactConv2d(5, 2, 3)
    layer.make_exact()
    x = on_grid((1, 5, 3, 3))
    scale = 2**ACTIVATION_BITS
    units = (x * scale).long()
    weights = (layer.weight * 2**16).long()
    bias = (layer.bias * 2**26).long()
    for channel in range(2):
        total = int((units[0] * weights[channel]).sum() + bias[channel])  # the middle position sees the whole input
        expected = (total + 2**15) // 2**16  # halves upwards
        assert int(layer(x)[0, channel, 1, 1] * scale) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 4), (6, 7)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_half_of_the_taps_suffice_at_the_other_colour(kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = ExactConv2d(6, 4, kernel)
    layer.make_exact()
    even = checkerboard(*size, torch.device("cpu"))
    for colour in (even, ~even):
        x = on_grid((2, 6, *size)) * colour
        assert torch.equal(layer.at_other_colour(x, ~colour), layer(x)[:, :, ~colour])


def test_an_exact_layer_is_close_to_its_original() -> None:
    torch.manual_seed(0)
    layer = ExactConv2d(32, 8, 5)
    x = on_grid((2, 32, 6, 6))
    before = layer(x.float())
    layer.make_exact()
    # the weights move by at most 2**-17, 800 of them meet inputs of about 50
    assert torch.allclose(layer(x).float(), before, atol=800**0.5 * 50 * 2**-17 * 4)


def test_extreme_inputs_stay_exact() -> None:
    layer = ExactConv2d(100, 4, 5)
    with torch.no_grad():
        layer.weight.fill_(100.0)
    layer.make_exact()
    out = layer(torch.full((1, 100, 5, 5), 1e9, dtype=torch.float64))
    assert (out == 4096.0).all()


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (8, 3)])
def test_the_sweep_visits_every_value_once(size: tuple[int, int]) -> None:
    seen = torch.zeros(TINY_KL.latent_channels, *size)
    model = prior()
    channel = iter([(0, 3), (0, 3), (3, 8), (3, 8)])

    def code(mean: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        first, last = next(channel)
        assert mean.shape == index.shape == (1, last - first, *size)
        seen[first:last, mask] += 1
        return mean.detach()

    hyperlatent = torch.zeros(1, TINY_KL.hyper_channels, -(-size[0] // 4), -(-size[1] // 4))
    out = model.sweep(hyperlatent, size, code)
    assert (seen == 1).all()
    assert out.shape == (1, TINY_KL.latent_channels, *size)


def test_a_pass_knows_nothing_of_what_it_codes() -> None:
    """Causality: parameters must not depend on values that are coded in the same pass or later."""
    model = prior().make_exact()
    size, hyperlatent = (6, 6), torch.ones(1, TINY_KL.hyper_channels, 2, 2, dtype=torch.float64)

    def parameters(values: list[torch.Tensor]) -> list[torch.Tensor]:
        taken: list[torch.Tensor] = []

        def code(mean: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            taken.append(torch.cat([mean, index], 1)[:, :, mask])
            return values[len(taken) - 1].expand_as(mean)

        model.sweep(hyperlatent, size, code)
        return taken

    base = [torch.full((1, 1, 6, 6), 3.0, dtype=torch.float64) for _ in range(4)]
    reference = parameters(base)
    for changed in range(4):
        values = list(base)
        values[changed] = values[changed] + 5
        result = parameters(values)
        for step in range(4):
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
