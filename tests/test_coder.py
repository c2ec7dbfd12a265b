"""The range coder."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.entropy.coder import ESCAPE_LIMIT, TOTAL, SymbolDecoder, SymbolEncoder
from latentzip.errors import FormatError
from latentzip.models.prior import SCALES, scale_of_index, scale_table

TABLE = scale_table().numpy()


def test_every_row_is_a_distribution() -> None:
    assert (TABLE.sum(1) == TOTAL).all()
    lengths = (TABLE > 0).sum(1)
    for row, length in zip(TABLE, lengths, strict=True):
        assert (row[:length] > 0).all()
        assert (row[length:] == 0).all()
        symbols = row[1:length]
        assert (symbols == symbols[::-1]).all()  # as likely below the mean as above


@given(
    st.lists(st.tuples(st.integers(-ESCAPE_LIMIT, ESCAPE_LIMIT - 1), st.integers(0, SCALES - 1)), max_size=60),
    st.integers(0, 60),
)
@settings(deadline=None)
def test_symbols_come_back(pairs: list[tuple[int, int]], cut: int) -> None:
    """Whatever the symbols, escapes included, and however they are split into calls."""
    symbols = np.array([s for s, _ in pairs], dtype=np.int32)
    indices = np.array([i for _, i in pairs], dtype=np.int64)
    encoder = SymbolEncoder(TABLE)
    encoder.encode(symbols[:cut], indices[:cut])
    encoder.encode(symbols[cut:], indices[cut:])
    decoder = SymbolDecoder(encoder.finish(), TABLE)
    assert decoder.decode(indices[:cut]).tolist() == symbols[:cut].tolist()
    assert decoder.decode(indices[cut:]).tolist() == symbols[cut:].tolist()
    decoder.finish()


def test_the_size_is_the_entropy() -> None:
    """Within half a percent and a word of the ideal code length of rounded Gaussians."""
    rng = np.random.default_rng(0)
    indices = rng.integers(8, SCALES, 50_000)
    scales = scale_of_index(torch.from_numpy(indices).double()).numpy()
    symbols = np.round(rng.normal(0, scales)).astype(np.int32)
    encoder = SymbolEncoder(TABLE)
    encoder.encode(symbols, indices)
    reach = ((TABLE > 0).sum(1) - 2)[indices] // 2
    entries = np.where(np.abs(symbols) <= reach, symbols + reach + 1, 0)
    ideal = -np.log2(TABLE[indices, entries] / TOTAL).sum() + 16 * (entries == 0).sum()
    assert len(encoder.finish()) * 8 == pytest.approx(ideal, rel=0.005, abs=32)


def test_golden_bytes() -> None:
    """The coder of a future version must write the same: files depend on it."""
    symbols = np.array([0, 1, -1, 5, -40, 3000, 0, 0, 2, -2], dtype=np.int32)
    indices = np.array([0, 10, 10, 30, 50, 63, 0, 20, 20, 20], dtype=np.int64)
    encoder = SymbolEncoder(TABLE)
    encoder.encode(symbols, indices)
    assert encoder.finish().hex() == "0375dff3631966fd00205f4c"


@given(st.binary(max_size=64), st.lists(st.integers(0, SCALES - 1), max_size=50))
@settings(deadline=None)
def test_random_words_give_symbols_or_our_error(data: bytes, rows: list[int]) -> None:
    try:
        symbols = SymbolDecoder(data, TABLE).decode(np.array(rows, dtype=np.int64))
    except FormatError:
        return
    assert len(data) % 4 == 0
    assert len(symbols) == len(rows)
