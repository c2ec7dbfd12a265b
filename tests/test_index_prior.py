"""The prior of VQ indices: distributions in integers, the order of the passes, and what it is worth."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VQ_PRIOR, noise_picture, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.codec import analyse, write_latent
from latentzip.entropy.coder import DigitDecoder, DigitEncoder
from latentzip.errors import FormatError, ModelError
from latentzip.models.autoencoder import VqLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.models.exact_index_prior import ExactIndexPrior, counts_of_logits
from latentzip.models.index_prior import tree_order
from latentzip.models.quantizer import END
from latentzip.payload.scans import rate_of_level
from latentzip.training.codebook import order_codebooks
from latentzip.zoo.loading import load_encoder

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 64), st.floats(0.01, 200), st.integers(0, 2**32 - 1))
def test_counts_are_a_distribution_near_the_logits(digits: int, spread: float, seed: int) -> None:
    """Each at least 1, 2**16 in all; and a fifth of a percent more bits than the logits themselves, or less."""
    logits = np.round(np.random.default_rng(seed).normal(0, spread, (20, digits)) * 1024) / 1024
    counts = counts_of(logits)
    assert (counts == in_integers(logits)).all()
    assert counts.min() >= 1
    assert (counts.sum(1) == 2**16).all()
    p = np.exp2(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    excess = (p * np.log2(np.maximum(p, 1e-300) * 2**16 / counts)).sum(1)
    assert excess.max() < 0.01  # bits a digit: sixteenths of a bit, and at least one count for each


def counts_of(logits: np.ndarray) -> np.ndarray:
    return counts_of_logits(torch.from_numpy(logits)).numpy()


def in_integers(logits: np.ndarray) -> list[list[int]]:
    """docs/format.md, kind 2, in Python's integers."""
    root = 2**1025
    for _ in range(4):
        root = math.isqrt(root)
    rows = []
    for row in logits:
        weights = []
        for logit in row:
            u = 2**88
            for _ in range(min(math.floor(16 * (row.max() - logit)), 500)):
                u = u * 2**64 // root
            weights.append(u // 2**64)
        counts = [1 + weight * (65536 - len(row)) // sum(weights) for weight in weights]
        counts[weights.index(max(weights))] += 65536 - sum(counts)
        rows.append(counts)
    return rows


def test_powers_are_powers() -> None:
    logits = np.array([[0.0, -1.0, -2.0, -8.0, -100.0]])
    p = np.exp2(logits) / np.exp2(logits).sum()
    assert counts_of(logits)[0] == pytest.approx(p[0] * 2**16, abs=5)


def test_digits_come_back() -> None:
    rng = np.random.default_rng(0)
    counts = counts_of(np.round(rng.normal(0, 3, (500, 16)) * 16) / 16)
    digits = np.array([rng.choice(16, p=row / 2**16) for row in counts], dtype=np.int32)
    encoder = DigitEncoder()
    encoder.encode(digits[:300], counts[:300])
    encoder.encode(digits[300:], counts[300:])
    data = encoder.finish()
    transposed = DigitEncoder()
    transposed.encode(digits, np.asfortranarray(counts))  # however the counts lie in memory
    assert transposed.finish() == data
    ideal = -np.log2(counts[np.arange(500), digits] / 2**16).sum() / 8
    assert ideal <= len(data) < ideal + 8
    decoder = DigitDecoder(data)
    assert np.array_equal(decoder.decode(counts[:300]), digits[:300])
    assert np.array_equal(decoder.decode(counts[300:]), digits[300:])
    decoder.finish()
    with pytest.raises(FormatError, match="whole number of words"):
        DigitDecoder(data[:-1])


@pytest.fixture
def latent() -> VqLatent:
    latent = tiny_model(TINY_VQ_PRIOR).latent
    assert isinstance(latent, VqLatent)
    return latent.requires_grad_(False)


def test_a_digit_is_told_from_what_was_coded_before_it_alone(latent: VqLatent) -> None:
    """Changing indices that come later in the file changes no logits before; changing earlier ones does."""
    prior = latent.prior
    assert prior is not None

    def logits_of(indices: torch.Tensor) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []

        def code(stage: int, digit: int, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            seen.append(logits[:, :, mask[0]])
            return torch.stack([indices[:, stage] // prior.members, indices[:, stage] % prior.members])[digit]

        assert torch.equal(prior.sweep(latent.quantizer.codebooks, torch.tensor([0.5]), (4, 6), code), indices)
        return seen

    torch.manual_seed(0)
    indices = torch.randint(1, 32, (1, 3, 4, 6))
    before = logits_of(indices)
    steps = [(stage, place) for stage in range(3) for place in ((0, 4), (2, 2), (1, 3), (2, 3))]
    for number, (stage, (y, x)) in enumerate(steps):
        changed = indices.clone()
        changed[0, stage, y, x] = (changed[0, stage, y, x] + 17) % 32 or 1  # another group
        after = logits_of(changed)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(same[: 2 * number + 1])  # up to the group's digit of this very pass
        assert not same[2 * number + 1]  # the member's digit depends on the group
        assert not all(same[2 * number + 2 :: 2]) or number == len(steps) - 1  # where it is near enough


def random_indices(stages: int, height: int, width: int) -> torch.Tensor:
    """(1, S, h, w), of which many end."""
    torch.manual_seed(0)
    indices = torch.randint(1, 32, (1, stages, height, width)) * (torch.rand(1, stages, height, width) < 0.6)
    return indices * (indices != END).cumprod(1)


def test_nothing_is_coded_after_the_end(latent: VqLatent) -> None:
    """Neither in training nor in a file; and that neighbours have ended is known."""
    prior, books = latent.prior, latent.quantizer.codebooks
    assert prior is not None
    indices = random_indices(3, 6, 5)
    going_on = torch.cat([torch.ones(1, 1, 6, 5, dtype=torch.bool), indices[:, :-1] != END], 1)
    assert 0 < going_on[0, 2].sum() < 30
    masks, counted = torch.zeros(3, 6, 5), torch.zeros(3, 30)

    def look(stage: int, digit: int, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        masks[stage] += mask[0] / 2
        return torch.stack([indices[:, stage] // prior.members, indices[:, stage] % prior.members])[digit]

    def count(stage: int, digit: int, positions: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        counted[stage, positions] += 0.5
        here = indices[0, stage].flatten()[positions]
        return torch.stack([here // prior.members, here % prior.members])[digit]

    assert torch.equal(prior.sweep(books, torch.tensor([0.5]), (6, 5), look), indices)
    assert torch.equal(latent.exact.sweep(0.5, 3, (6, 5), count).view_as(indices), indices)
    assert torch.equal(masks, going_on[0].float())
    assert torch.equal(counted, going_on[0].float().flatten(1))
    first = latent.exact.sweep(0.5, 1, (6, 5), count)
    assert torch.equal(first[0].view(6, 5), indices[0, 0])
    assert (first[1:] == END).all()


def test_it_is_known_where_others_have_ended(latent: VqLatent) -> None:
    """Even where the sum of codes does not show it: a position's logits change when its neighbour has ended."""
    prior, books = latent.prior, latent.quantizer.codebooks.clone()
    assert prior is not None
    books[0, 1] = 0

    def first_logits(indices: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def look(stage: int, digit: int, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if (stage, digit) == (1, 0):
                seen.append(logits[0, :, 0, 0])
            return torch.stack([indices[:, stage] // prior.members, indices[:, stage] % prior.members])[digit]

        prior.sweep(books, torch.tensor([0.5]), (4, 4), look)
        return seen[0]

    going_on = torch.ones(1, 3, 4, 4, dtype=torch.int64)
    ended = going_on.clone()
    ended[0, :, 0, 1] = END
    assert not torch.allclose(first_logits(going_on), first_logits(ended), rtol=1e-3)


def test_the_exact_form_says_what_the_float_one_does(latent: VqLatent) -> None:
    """In the same order; bits by the exact counts are at most 1 % more than those of the network that was trained."""
    indices = random_indices(3, 12, 9)
    rate = torch.tensor([0.3])
    prior, books = latent.prior, latent.quantizer.codebooks
    assert prior is not None
    trained = prior.bits(books, indices, rate)[0]
    assert not torch.allclose(trained, prior.bits(books, indices, torch.tensor([0.9]))[0], rtol=0.001)
    digits = torch.stack([indices[0] // prior.members, indices[0] % prior.members]).flatten(2)
    bits = torch.zeros(3)
    order = []

    def code(stage: int, digit: int, positions: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        here = digits[digit, stage, positions]
        assert (counts.sum(1) == 2**16).all()
        bits[stage] -= (counts.gather(1, here[:, None]) / 2**16).log2().sum()
        order.append((stage, digit))
        return here

    coded = ExactIndexPrior(prior, books).sweep(rate.item(), 3, (12, 9), code)
    assert torch.equal(coded.view(3, 12, 9), indices[0])
    assert order == [(stage, digit) for stage in range(3) for _ in range(4) for digit in (0, 1)]
    assert torch.allclose(bits, trained, rtol=0.01)


def test_a_file_is_as_long_as_training_says(tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    encoder = load_encoder(str(tiny_weights["vq-prior"]), CPU)
    latent = encoder.latent
    assert isinstance(latent, VqLatent)
    assert latent.prior is not None
    analysed = analyse(noise_picture(640, 320), encoder)
    rate = rate_of_level(150)
    indices = latent.quantizer.search(analysed.latent, price=latent.bit_price(rate))
    estimate = latent.prior.bits(latent.quantizer.codebooks, indices, rate).sum().item() / 8
    assert len(write_latent(analysed, encoder, 150)) - 40 == pytest.approx(estimate, rel=0.01, abs=8)


def test_codes_are_ordered_by_groups_that_lie_close() -> None:
    torch.manual_seed(0)
    centres = torch.randn(8, 4) * 10
    codes = (centres[:, None] + 0.1 * torch.randn(8, 4, 4)).reshape(32, 4)[torch.randperm(32)]
    order = tree_order(codes, 4)
    assert sorted(order.tolist()) == list(range(32))
    groups = codes[order].view(8, 4, 4)
    assert (groups - groups.mean(1, keepdim=True)).abs().max() < 1
    model = tiny_model(TINY_VQ_PRIOR)
    before = model.latent.quantizer.codebooks.detach().clone()
    order_codebooks(model.latent.quantizer, 8)
    assert (model.latent.quantizer.codebooks[:, END] == 0).all()
    for book, old in zip(model.latent.quantizer.codebooks, before, strict=True):
        assert torch.equal(book.sort(0).values, old.sort(0).values)


def test_only_powers_of_two_have_digits() -> None:
    assert AutoencoderConfig("vq", codebook_size=4096, index_width=8).index_digits == (64, 64)
    assert AutoencoderConfig("vq", codebook_size=2048, index_width=8).index_digits == (32, 64)
    with pytest.raises(ModelError, match="power of two"):
        dataclasses.replace(TINY_VQ_PRIOR, codebook_size=20)
