"""Where tiles lie that overlap. Plain numbers; no torch."""

from dataclasses import dataclass

from latentzip.errors import FormatError


@dataclass(frozen=True)
class TilePlan:
    """Tiles of `side` latent positions a side, of which neighbours share `overlap`."""

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.side // 2 or not 1 <= self.side <= 0xFFFF:
            raise FormatError(f"tiles of {self.side} with an overlap of {self.overlap} cannot be: the file is damaged")

    def spans(self, length: int) -> list[tuple[int, int]]:
        """(start, end) of the tiles along a side of `length` positions; the last is as long as the others."""
        if length <= self.side:
            return [(0, length)]
        stride = self.side - self.overlap
        starts = [*range(0, length - self.side, stride), length - self.side]
        return [(start, start + self.side) for start in starts]
