"""Adaptive coding: any integers, any shape, exact, and near what they are worth."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.entropy.adaptive import HEAD, decode_planes, encode_planes, geometric_table
from latentzip.errors import FormatError


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    st.floats(0, 2000),
    st.integers(0, 2**32 - 1),
)
def test_what_goes_in_comes_out(shape: tuple[int, int, int], scale: float, seed: int) -> None:
    planes = np.random.default_rng(seed).normal(0, scale, shape).round().astype(np.int64)
    assert np.array_equal(decode_planes(encode_planes(planes), shape), planes)


def test_extremes_come_back() -> None:
    planes = np.zeros((1, 9, 9), dtype=np.int64)
    planes[0, ::2, ::2], planes[0, 1::2, 1::2] = 2**14 - 1, -(2**14)
    assert np.array_equal(decode_planes(encode_planes(planes), planes.shape), planes)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 30.0])
def test_noise_costs_little_more_than_its_entropy(scale: float) -> None:
    """Of Gaussian values that nothing predicts, under geometric distributions: at most 6 % more."""
    planes = np.random.default_rng(0).normal(0, scale, (4, 64, 64)).round().astype(np.int64)
    _, counts = np.unique(planes, return_counts=True)
    entropy = -(counts * np.log2(counts / planes.size)).sum() / 8
    assert len(encode_planes(planes)) < 1.06 * entropy + 4 * HEAD.size + 8


def test_neighbours_tell_of_smooth_planes() -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.rint(300 * np.sin(x / 9) * np.cos(y / 7)).astype(np.int64)[None]
    shuffled = np.random.default_rng(0).permutation(smooth.ravel()).reshape(smooth.shape)
    assert len(encode_planes(smooth)) < 0.5 * len(encode_planes(shuffled))


def test_the_table_is_the_same_everywhere() -> None:
    """It is made of integers alone. docs/format.md says how."""
    table = geometric_table()
    assert table.shape[0] == 64
    assert (table.sum(1) == 2**16).all()
    digest = hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()
    assert digest == "4ba780511f494851f4d5fb15fa5a2f578e3fd617bee7b84c8e46823b4f704d74"


def test_damage_is_refused_or_decodes() -> None:
    rng = np.random.default_rng(0)
    data = encode_planes(rng.normal(0, 3, (2, 12, 12)).round().astype(np.int64))
    for _ in range(300):
        mutated = bytearray(data)
        mutated[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        length = rng.integers(len(data)) if rng.random() < 0.3 else len(data)
        try:
            assert decode_planes(bytes(mutated[:length]), (2, 12, 12)).shape == (2, 12, 12)
        except FormatError:
            continue
    for hostile in (b"", data[:5], data[: 2 * HEAD.size + 1], bytes([9]) + data[1:], data + bytes(40)):
        with pytest.raises(FormatError):
            decode_planes(hostile, (2, 12, 12))
