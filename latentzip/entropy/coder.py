"""Range coding of integer symbols under rows of an integer table. Exact everywhere: only integers decide.

Escapes: a symbol outside its row's range is sent as entry 0 and follows in 16 bits.
"""

import constriction
import numpy as np
from numpy.typing import NDArray

from latentzip.errors import FormatError

Symbols = NDArray[np.int32]
Indices = NDArray[np.int64]
Table = NDArray[np.int32]

TOTAL = 1 << 16  # every row's counts add up to this
ESCAPE_LIMIT = 1 << 15  # symbols lie in -ESCAPE_LIMIT .. ESCAPE_LIMIT - 1
WORD = np.dtype("<u4")


class _Rows:
    """A table's rows as models of the range coder, made when first used."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.lengths = (table > 0).sum(1)
        self.models: dict[int, object] = {}
        self.escapes = constriction.stream.model.Uniform(2 * ESCAPE_LIMIT)

    def model(self, index: int) -> object:
        if index not in self.models:
            counts = self.table[index, : self.lengths[index]].astype(np.float32)
            self.models[index] = constriction.stream.model.Categorical(counts, perfect=False)
        return self.models[index]

    def range(self, index: int) -> int:
        """Symbols -range .. range have entries of their own."""
        return int(self.lengths[index] - 2) // 2


class SymbolEncoder:
    """Symbols in, words out, first in first out."""

    def __init__(self, table: Table) -> None:
        """table: (rows, entries) int32 counts, each row TOTAL in all, zeros only at its end."""
        self.rows = _Rows(table)
        self.coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, indices: Indices) -> None:
        """Append symbols (n,), each under the row that `indices` (n,) names; equal rows are coded together."""
        for index, places in _by_row(indices):
            reach = self.rows.range(index)
            values = symbols[places]
            inside = np.abs(values) <= reach
            self.coder.encode(np.where(inside, values + (reach + 1), 0).astype(np.int32), self.rows.model(index))
            if not inside.all():
                self.coder.encode((values[~inside] + ESCAPE_LIMIT).astype(np.int32), self.rows.escapes)

    def finish(self) -> bytes:
        return bytes(self.coder.get_compressed().astype(WORD).tobytes())


class SymbolDecoder:
    """Words in, symbols out, in the order in which they were encoded."""

    def __init__(self, data: bytes, table: Table) -> None:
        """Raises FormatError for data that is not whole words."""
        if len(data) % WORD.itemsize:
            raise FormatError("the coded latent is not a whole number of words: the file is damaged")
        self.rows = _Rows(table)
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, WORD).astype(np.uint32))

    def decode(self, indices: Indices) -> Symbols:
        """The next symbols (n,), under the rows (n,). Raises FormatError for data that no encoder wrote."""
        symbols = np.empty(len(indices), dtype=np.int32)
        for index, places in _by_row(indices):
            reach = self.rows.range(index)
            entries = self._take(self.rows.model(index), len(places))
            values = entries - (reach + 1)
            escaped = entries == 0
            if escaped.any():
                values[escaped] = self._take(self.rows.escapes, int(escaped.sum())) - ESCAPE_LIMIT
            symbols[places] = values
        return symbols

    def finish(self) -> None:
        """Raises FormatError where data is left over."""
        if not self.coder.maybe_exhausted():
            raise FormatError("the coded latent is longer than its symbols: the file is damaged")

    def _take(self, model: object, count: int) -> Symbols:
        try:
            taken: Symbols = self.coder.decode(model, count)
        except (AssertionError, ValueError, RuntimeError):
            raise FormatError("the coded latent is not valid: the file is damaged") from None
        return taken


def _by_row(indices: Indices) -> list[tuple[int, NDArray[np.int64]]]:
    """[(row, places that use it, ascending)], rows ascending."""
    order = np.argsort(indices, kind="stable")
    rows, starts = np.unique(indices[order], return_index=True)
    return list(zip(rows.tolist(), np.split(order, starts)[1:], strict=True))
