"""Coding of indices that no prior was trained for, by counting those that came before. Integers only, exact everywhere.

Indices come in blocks, each as long as all before it, and each is coded under what was counted until then: so the
counts follow the picture without a step for every index.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from latentzip.entropy.coder import TOTAL, DigitDecoder, DigitEncoder

FIRST_BLOCK = 64
MOST_CODES = TOTAL // 4  # of more, rounding to whole counts would cost more than counting saves

IndexList = NDArray[np.int64]  # (n,)


def encode_counted(indices: IndexList, codes: int) -> bytes:
    """indices: (n,) in 0..codes - 1, codes in 2..MOST_CODES -> bytes."""
    encoder = DigitEncoder()
    for start, end in _blocks(len(indices)):
        encoder.encode_alike(indices[start:end].astype(np.int32), _counts(indices[:start], codes))
    return encoder.finish()


def decode_counted(data: bytes, number: int, codes: int) -> IndexList:
    """Inverse of `encode_counted`. Raises FormatError."""
    decoder = DigitDecoder(data)
    indices = np.zeros(number, dtype=np.int64)
    for start, end in _blocks(number):
        indices[start:end] = decoder.decode_alike(end - start, _counts(indices[:start], codes))
    decoder.finish()
    return indices


def _blocks(number: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < number:
        end = min(number, 2 * start or FIRST_BLOCK)
        yield start, end
        start = end


def _counts(seen: IndexList, codes: int) -> NDArray[np.int64]:
    """(codes,) TOTAL in all, at least 1: each as often as it was seen and a half (Krichevsky and Trofimov 1981)."""
    weights = 2 * np.bincount(seen, minlength=codes).astype(np.int64) + 1
    counts: NDArray[np.int64] = 1 + weights * (TOTAL - codes) // weights.sum()
    counts[weights.argmax()] += TOTAL - counts.sum()
    return counts
