"""Counting indices: any of them come back, and skewed ones cost about their entropy."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VQ, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.container import PayloadKind
from latentzip.entropy.counts import MOST_CODES, decode_counted, encode_counted
from latentzip.errors import FormatError
from latentzip.models.autoencoder import VqLatent
from latentzip.payload import parse_payload
from latentzip.payload.scans import Payload
from latentzip.payload.tiles import pack_tiles
from latentzip.payload.vq import pack_vq
from latentzip.tiling import Window
from latentzip.zoo.loading import load_latent


@settings(deadline=None, max_examples=60)
@given(st.integers(2, MOST_CODES), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_indices_come_back(codes: int, number: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, codes, number)
    assert np.array_equal(decode_counted(encode_counted(indices, codes), number, codes), indices)


@pytest.mark.parametrize(("codes", "number"), [(16, 2000), (256, 20000), (4096, 200000)])
def test_skewed_indices_cost_their_entropy(codes: int, number: int) -> None:
    """And what it costs to learn the counts: some bits for every code."""
    rng = np.random.default_rng(0)
    chances = 1.0 / np.arange(1, codes + 1)
    chances /= chances.sum()
    indices = rng.choice(codes, number, p=chances)
    entropy = -(chances * np.log2(chances)).sum() * number / 8
    assert entropy * 0.98 < len(encode_counted(indices, codes)) < entropy * 1.05 + codes


FULL = dataclasses.replace(TINY_VQ, codebook_size=32)  # five bits are just enough for it


def alike_or_not(latent: VqLatent, *, alike: bool) -> torch.Tensor:
    """Latents that lie near few codes of each stage, or near all alike."""
    torch.manual_seed(0)
    books = latent.quantizer.codebooks
    codes = torch.randint(0, 2 if alike else books.shape[1], (books.shape[0], 48 * 40))
    vectors = sum(book[code] for book, code in zip(books, codes, strict=True))
    return vectors.T.reshape(1, -1, 48, 40)


def shortest(payloads: list[Payload]) -> Payload:
    """That which a file gets, see `pack_tiles`."""
    kind, _ = pack_tiles([Window(0, 0, 1, 1)], lambda _tile: payloads)
    return next(payload for payload in payloads if payload.kind == kind)


@pytest.mark.parametrize("alike", [True, False])
def test_the_shorter_coding_is_taken(alike: bool) -> None:
    latent = tiny_model(FULL).latent
    assert isinstance(latent, VqLatent)
    y = alike_or_not(latent, alike=alike)
    payload = shortest(pack_vq(latent, y, FULL.stages, 4))
    assert payload.kind == (PayloadKind.VQ_COUNTED if alike else PayloadKind.VQ_FIXED)
    parsed = parse_payload(payload.kind, latent, payload.scans, (48, 40))
    assert torch.equal(parsed.symbols, payload.symbols)
    first = parse_payload(payload.kind, latent, payload.scans, (48, 40), most_parts=1)
    assert torch.equal(first.symbols, payload.symbols[:, :1])
    for cut in (1, 2, 4, 7, len(payload.scans[0]) - 1):
        with pytest.raises(FormatError):
            parse_payload(payload.kind, latent, [payload.scans[0][:cut]], (48, 40))


def test_a_real_picture_of_one_colour_is_counted(tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    latent = load_latent(tiny_weights["vq"]).latent
    assert isinstance(latent, VqLatent)
    payload = shortest(pack_vq(latent, torch.zeros(1, TINY_VQ.latent_channels, 30, 30), TINY_VQ.stages, 4))
    assert payload.kind == PayloadKind.VQ_COUNTED
    assert sum(map(len, payload.scans)) < 300 * TINY_VQ.stages
