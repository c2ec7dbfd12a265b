"""Coding of integer planes that no prior was trained for: the picture itself says how. Integers only, exact everywhere.

Positions are visited from a coarse grid to ever finer ones, each predicted from neighbours that are known already. How
much a channel trusts its neighbours, and how far its values stray from them, are parameters in the file.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latentzip.entropy.coder import ESCAPE_LIMIT, TOTAL, SymbolDecoder, SymbolEncoder, Table
from latentzip.errors import FormatError

Planes = NDArray[np.int64]  # (C, h, w)

ROWS = 64
TRUST_UNIT = 8  # a channel's trust is in eighths
CLASSES = 3  # of activity: how much the neighbours differ
GROUPS = 2  # of passes: the last one, which has half of the positions, and all others
HEAD = struct.Struct(f"<BH{GROUPS * CLASSES}B")  # trust, activity, rows: of each channel


@dataclass
class _Parameters:
    trust: NDArray[np.int64]  # (C,) eighths
    activity: NDArray[np.int64]  # (C,), where the middle class begins
    rows: NDArray[np.int64]  # (C, GROUPS, CLASSES) into the table

    def pack(self) -> bytes:
        heads = zip(self.trust, self.activity, self.rows.reshape(len(self.trust), -1), strict=True)
        return b"".join(HEAD.pack(trust, activity, *rows) for trust, activity, rows in heads)

    @classmethod
    def parse(cls, data: bytes, channels: int) -> "_Parameters":
        fields = np.array([HEAD.unpack_from(data, i * HEAD.size) for i in range(channels)], dtype=np.int64)
        trust, activity, rows = fields[:, 0], fields[:, 1], fields[:, 2:]
        if trust.max() > TRUST_UNIT or rows.max() >= ROWS:
            raise FormatError("has coding parameters that are out of range: the file is damaged")
        return cls(trust, activity, rows.reshape(channels, GROUPS, CLASSES))


def encode_planes(planes: Planes) -> bytes:
    """planes: (C, h, w) within ±ESCAPE_LIMIT / 2, about zero in the mean of each channel -> bytes."""
    parameters = _choose(planes)
    encoder = SymbolEncoder(geometric_table())

    def code(rows: NDArray[np.int64], columns: NDArray[np.int64], expected: Planes, index: Planes) -> Planes:
        values = planes[:, rows, columns]
        encoder.encode((values - expected).ravel().astype(np.int32), index.ravel())
        return values

    _sweep(planes.shape, parameters, code)
    return parameters.pack() + encoder.finish()


def decode_planes(data: bytes, shape: tuple[int, int, int]) -> Planes:
    """Inverse of `encode_planes`. Raises FormatError."""
    head = shape[0] * HEAD.size
    if len(data) < head:
        raise FormatError("ends within its coding parameters: the file is damaged")
    parameters = _Parameters.parse(data, shape[0])
    decoder = SymbolDecoder(data[head:], geometric_table())

    def code(rows: NDArray[np.int64], columns: NDArray[np.int64], expected: Planes, index: Planes) -> Planes:
        return decoder.decode(index.ravel()).astype(np.int64).reshape(expected.shape) + expected

    planes = _sweep(shape, parameters, code)
    decoder.finish()
    return planes


_CodePass = Callable[[NDArray[np.int64], NDArray[np.int64], Planes, Planes], Planes]


def _sweep(shape: tuple[int, ...], parameters: _Parameters, code: _CodePass) -> Planes:
    """Visit all positions; `code` gets rows, columns, expected values and table rows (C, n) and gives the values."""
    known = np.zeros(shape, dtype=np.int64)
    for rows, columns, steps in _passes(shape[1], shape[2]):
        group = int(steps is _CROSS_OF_ONE)
        total, count, spread = _neighbours(known, rows, columns, steps)
        expected = _expected(total, count, parameters.trust)
        kind = _class_of(spread, count, parameters.activity)
        index = np.take_along_axis(parameters.rows[:, group], kind, axis=1)
        known[:, rows, columns] = np.clip(code(rows, columns, expected, index), -ESCAPE_LIMIT, ESCAPE_LIMIT - 1)
    return known


Steps = tuple[tuple[int, int], ...]
_CROSS_OF_ONE: Steps = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _passes(height: int, width: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Steps]]:
    """(rows, columns, steps to the known neighbours): the corner, then for each grid its diagonals and its crosses."""
    stride = 1 << max(height - 1, width - 1).bit_length()
    yield np.zeros(1, np.int64), np.zeros(1, np.int64), ()
    while stride > 1:
        half = stride // 2
        diagonal = tuple((half * dy, half * dx) for dy in (-1, 1) for dx in (-1, 1))
        cross = _CROSS_OF_ONE if half == 1 else tuple((half * dy, half * dx) for dy, dx in _CROSS_OF_ONE)
        yield *_grid(height, width, half, half, stride), diagonal
        up, left = _grid(height, width, 0, half, stride), _grid(height, width, half, 0, stride)
        yield np.concatenate([up[0], left[0]]), np.concatenate([up[1], left[1]]), cross
        stride = half


def _grid(height: int, width: int, top: int, left: int, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.meshgrid(np.arange(top, height, stride), np.arange(left, width, stride), indexing="ij")
    return rows.ravel().astype(np.int64), columns.ravel().astype(np.int64)


def _neighbours(
    known: Planes, rows: NDArray[np.int64], columns: NDArray[np.int64], steps: Steps
) -> tuple[Planes, NDArray[np.int64], Planes]:
    """Sum of the neighbours inside the plane (C, n), their number (n,), and the sum of their magnitudes (C, n)."""
    height, width = known.shape[1:]
    total = np.zeros((len(known), len(rows)), dtype=np.int64)
    spread = np.zeros_like(total)
    count = np.zeros(len(rows), dtype=np.int64)
    for dy, dx in steps:
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        values = np.where(inside, known[:, y.clip(0, height - 1), x.clip(0, width - 1)], 0)
        total += values
        spread += np.abs(values)
        count += inside
    return total, count, spread


def _expected(total: Planes, count: NDArray[np.int64], trust: NDArray[np.int64]) -> Planes:
    """The mean of the neighbours times the channel's trust, rounded; halves go up."""
    divisor = np.maximum(count, 1) * TRUST_UNIT
    expected: Planes = (2 * trust[:, None] * total + divisor) // (2 * divisor)
    return expected


def _class_of(spread: Planes, count: NDArray[np.int64], activity: NDArray[np.int64]) -> Planes:
    """0: the neighbours are less than half as active as the channel's middle, 2: more than one and a half times."""
    scaled = 8 * spread // np.maximum(count, 1)
    kind: Planes = (2 * scaled > activity[:, None]).astype(np.int64) + (2 * scaled > 3 * activity[:, None])
    return kind


def _choose(planes: Planes) -> _Parameters:
    """Parameters for the planes: only their effect on the size depends on this choice."""
    channels = len(planes)
    samples = [
        (*_neighbours(planes, r, c, s), planes[:, r, c], s is _CROSS_OF_ONE) for r, c, s in _passes(*planes.shape[1:])
    ]
    means = np.concatenate([total / np.maximum(count, 1) for total, count, *_ in samples], axis=1)
    values = np.concatenate([value for *_, value, _ in samples], axis=1).astype(np.float64)
    slope = (means * values).sum(1) / np.maximum((means**2).sum(1), 1e-9)
    trust = np.rint(slope * TRUST_UNIT).clip(0, TRUST_UNIT).astype(np.int64)
    activity = np.median(np.concatenate([8 * s // np.maximum(n, 1) for _, n, s, *_ in samples], axis=1), axis=1)
    parameters = _Parameters(
        trust, activity.clip(1, 2**16 - 1).astype(np.int64), np.zeros((channels, GROUPS, CLASSES), np.int64)
    )
    sums, counts = np.zeros((2, channels, GROUPS, CLASSES))
    for total, count, spread, value, is_last in samples:
        away = np.abs(value - _expected(total, count, trust))
        kind = _class_of(spread, count, parameters.activity)
        for k in range(CLASSES):
            sums[:, int(is_last), k] += np.where(kind == k, away, 0).sum(1)
            counts[:, int(is_last), k] += (kind == k).sum(1)
    # bits of n values whose magnitudes add up to m: n bits(0) + m bits(one step further)
    q = np.array([_decay(row) / 2**32 for row in range(ROWS)])
    cost = counts[..., None] * -np.log2((1 - q) / (1 + q)) + sums[..., None] * -np.log2(q)
    parameters.rows = cost.argmin(-1)
    return parameters


@cache
def geometric_table() -> Table:
    """Two-sided geometric distributions in integers, as `entropy.coder` takes them: P(s) ~ q**|s|, a row for each q."""
    rows = [_geometric_row(_decay(row)) for row in range(ROWS)]
    table = np.zeros((ROWS, max(map(len, rows))), dtype=np.int32)
    for row, counts in zip(table, rows, strict=True):
        row[: len(counts)] = counts
    return table


def _decay(row: int) -> int:
    """q of a row in units of 2**-32: q / (1 - q) = 2**(row / 4 - 9)."""
    quarter = math.isqrt(math.isqrt(2 << 128))  # 2**(1/4) in units of 2**-32
    odds = 1 << 32 + 23  # 2**-9 in units of 2**-64, and what the quarters add
    for _ in range(row):
        odds = odds * quarter >> 32
    return (odds << 32) // (odds + (1 << 64))


def _geometric_row(q: int) -> list[int]:
    one = 1 << 32
    count = TOTAL * (one - q) * one // (one + q)  # of 0, in units of 2**-32
    side = []
    while True:
        count = count * q >> 32
        if count >> 32 < 1:
            break
        side.append(count >> 32)
    side = side or [1]
    escape = 1
    return [escape, *reversed(side), TOTAL - escape - 2 * sum(side), *side]
