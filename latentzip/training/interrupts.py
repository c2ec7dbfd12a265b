"""SIGINT and SIGTERM during a run: noted, until there is a place to stop at."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Whether the process was asked to end, while it was `noting` that instead of ending."""

    def __init__(self) -> None:
        self.noted = False

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.noted = True
