"""Range coding of integer symbols under rows of an integer table. Exact everywhere: only integers decide.

Escapes: a symbol outside its row's range is sent as entry 0 and follows in 16 bits.
"""

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from latentzip.errors import FormatError

Symbols = NDArray[np.int32]
Indices = NDArray[np.int64] | NDArray[np.uint8]
Table = NDArray[np.int32]
Bits = NDArray[np.float64]

TOTAL_BITS = 16
TOTAL = 1 << TOTAL_BITS  # every row's counts add up to this
ESCAPE_LIMIT = 1 << 15  # symbols lie in -ESCAPE_LIMIT .. ESCAPE_LIMIT - 1
WORD = np.dtype("<u4")
_EACH = constriction.stream.model.Categorical(perfect=False)


class _Rows:
    """A table's rows as models of the range coder, and what their entries cost in bits, made when first used."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.lengths = (table > 0).sum(1)
        self.models: dict[int, object] = {}
        self.costs: dict[int, Bits] = {}
        self.escapes = constriction.stream.model.Uniform(2 * ESCAPE_LIMIT)

    def model(self, index: int) -> object:
        if index not in self.models:
            self.models[index] = _same_for_all(self.table[index, : self.lengths[index]])
        return self.models[index]

    def cost(self, index: int) -> Bits:
        if index not in self.costs:
            self.costs[index] = _bits(self.table[index, : self.lengths[index]])
        return self.costs[index]

    def range(self, index: int) -> int:
        """Symbols -range .. range have entries of their own."""
        return int(self.lengths[index] - 2) // 2


class SymbolEncoder:
    """Symbols in, words out, first in first out."""

    def __init__(self, table: Table) -> None:
        """table: (rows, entries) int32 counts, each row TOTAL in all, zeros only at its end."""
        self.rows = _Rows(table)
        self.coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, indices: Indices, first_row: int = 0) -> None:
        """Append symbols (n,), each under the row that `indices` (n,) names; equal rows are coded together.

        Those of rows before `first_row` are passed over.
        """
        order, rows = _by_row(indices, first_row)
        in_order = symbols[order]
        for index, start, end in rows:
            reach = self.rows.range(index)
            values = in_order[start:end]
            inside = np.abs(values) <= reach
            self.coder.encode(np.where(inside, values + (reach + 1), 0).astype(np.int32), self.rows.model(index))
            if not inside.all():
                self.coder.encode((values[~inside] + ESCAPE_LIMIT).astype(np.int32), self.rows.escapes)

    def finish(self) -> bytes:
        return _bytes_of(self.coder)


class SymbolDecoder:
    """Words in, symbols out, in the order in which they were encoded."""

    def __init__(self, data: bytes, table: Table) -> None:
        """Raises FormatError for data that is not whole words."""
        self.rows = _Rows(table)
        self.coder = _Words(data)

    def decode(self, indices: Indices, first_row: int = 0) -> Symbols:
        """The next symbols (n,), under the rows (n,). Raises FormatError for data that no encoder wrote.

        Symbols of rows before `first_row` are zero.
        """
        order, rows = _by_row(indices, first_row)
        in_order = np.empty(len(order), dtype=np.int32)
        for index, start, end in rows:
            reach = self.rows.range(index)
            entries = self.coder.take(self.rows.model(index), end - start)
            self.coder.spend(_of_all(entries, self.rows.cost(index)))
            values = entries - (reach + 1)
            escaped = entries == 0
            if escaped.any():
                number = int(escaped.sum())
                values[escaped] = self.coder.take(self.rows.escapes, number) - ESCAPE_LIMIT
                self.coder.spend(number * TOTAL_BITS)
            in_order[start:end] = values
        symbols = np.zeros(len(indices), dtype=np.int32)
        symbols[order] = in_order
        return symbols

    def finish(self) -> None:
        """Raises FormatError where data is left over."""
        self.coder.finish()


Counts = NDArray[np.int64] | NDArray[np.float32]  # whole numbers


class DigitEncoder:
    """Digits in, each under counts of its own, or all under the same."""

    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()

    def encode(self, digits: Symbols, counts: Counts) -> None:
        """Append digits (n,) in 0..D - 1 under counts (n, D), at least 1, each row TOTAL in all."""
        self.coder.encode(digits, _EACH, _row_major(counts))

    def encode_alike(self, digits: Symbols, counts: Counts) -> None:
        """Append digits (n,) in 0..D - 1, all under counts (D,), at least 1, TOTAL in all."""
        self.coder.encode(digits, _same_for_all(counts))

    def finish(self) -> bytes:
        return _bytes_of(self.coder)


class DigitDecoder:
    """Inverse of DigitEncoder."""

    def __init__(self, data: bytes) -> None:
        """Raises FormatError for data that is not whole words."""
        self.coder = _Words(data)

    def decode(self, counts: Counts) -> Symbols:
        """The next digits (n,), under counts (n, D). Raises FormatError for data that no encoder wrote."""
        digits = self.coder.take(_EACH, _row_major(counts))
        self.coder.spend(float(_bits(counts[np.arange(len(digits)), digits]).sum()))
        return digits

    def decode_alike(self, number: int, counts: Counts) -> Symbols:
        """The next digits (number,), all under counts (D,). Raises FormatError for data that no encoder wrote."""
        digits = self.coder.take(_same_for_all(counts), number)
        self.coder.spend(_of_all(digits, _bits(counts)))
        return digits

    def finish(self) -> None:
        """Raises FormatError where data is left over."""
        self.coder.finish()


class _Words:
    """Data that symbols are taken from, as many as it can hold: a range decoder goes on for ever."""

    def __init__(self, data: bytes) -> None:
        """Raises FormatError for data that is not whole words."""
        if len(data) % WORD.itemsize:
            raise FormatError("the coded latent is not a whole number of words: the file is damaged")
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, WORD).astype(np.uint32))
        # A range coder saves nothing; but its probabilities, rounded to 24 bits, are not quite those of the counts.
        self.left = 8 * len(data) * 1.01 + 64

    def take(self, model: object, *arguments: object) -> Symbols:
        """Raises FormatError for data that no encoder wrote."""
        try:
            taken: Symbols = self.coder.decode(model, *arguments)
        except (AssertionError, ValueError, RuntimeError):
            raise FormatError("the coded latent is not valid: the file is damaged") from None
        return taken

    def spend(self, bits: float) -> None:
        """What those that were taken cost. Raises FormatError where that is more than there was."""
        self.left -= bits
        if self.left < 0:
            raise FormatError("the coded latent is shorter than its symbols: the file is damaged")

    def finish(self) -> None:
        """Raises FormatError where data is left over."""
        if not self.coder.maybe_exhausted():
            raise FormatError("the coded latent is longer than its symbols: the file is damaged")


def _row_major(counts: Counts) -> NDArray[np.float32]:
    """constriction takes an array's memory for row-major, whatever its strides say."""
    return np.ascontiguousarray(counts, dtype=np.float32)


def _same_for_all(counts: Counts | Table) -> object:
    return constriction.stream.model.Categorical(counts.astype(np.float32), perfect=False)


def _bytes_of(coder: Any) -> bytes:
    return bytes(coder.get_compressed().astype(WORD).tobytes())


def _bits(counts: Counts | Table) -> Bits:
    """What an entry costs that was counted so often of TOTAL."""
    bits: Bits = TOTAL_BITS - np.log2(counts, dtype=np.float64)
    return bits


def _of_all(entries: Symbols, cost: Bits) -> float:
    """entries: (n,) in 0..D - 1; cost: of each of them (D,)."""
    return float(np.bincount(entries, minlength=len(cost)) @ cost)


def _by_row(indices: Indices, first_row: int) -> tuple[NDArray[np.intp], list[tuple[int, int, int]]]:
    """Places in the order of their rows, and of equal ones ascending; and (row, start, end) in that order.

    Rows before `first_row` are left out.
    """
    counts = np.bincount(indices)
    ends = counts.cumsum()
    skipped = int(counts[:first_row].sum())
    order = np.argsort(indices, kind="stable")[skipped:]  # of bytes numpy makes a radix sort
    used = (row for row in np.flatnonzero(counts).tolist() if row >= first_row)
    return order, [(row, int(ends[row] - counts[row]) - skipped, int(ends[row]) - skipped) for row in used]
