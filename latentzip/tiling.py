"""Where the parts of a picture or a latent lie. Plain numbers; no torch."""

from dataclasses import dataclass

from latentzip.errors import FormatError

Size = tuple[int, int]  # height, width

# What is read of a file that nobody vouches for: as much as Pillow reads, which refuses twice its MAX_IMAGE_PIXELS.
MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class Bounds:
    """What a user says of memory. tile: height of strips, or side of tiles, in pixels; 0: the picture in one piece.

    memory: bytes of the whole process, which choose it.
    """

    tile: int | None = None
    memory: int | None = None


NO_BOUNDS = Bounds()


@dataclass(frozen=True)
class Window:
    """Rows top..bottom - 1 and columns left..right - 1 of a plane."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def whole(cls, size: Size) -> "Window":
        return cls(0, 0, *size)

    @property
    def size(self) -> Size:
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: "Window") -> "Window":
        """What both have; its area is 0 where that is nothing."""
        return Window(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def relative_to(self, other: "Window") -> "Window":
        """The same place, counted from the other's corner."""
        return Window(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)

    def grown(self, by: int) -> "Window":
        return Window(self.top - by, self.left - by, self.bottom + by, self.right + by)

    def times(self, factor: int) -> "Window":
        """In pixels, of latent positions."""
        return Window(self.top * factor, self.left * factor, self.bottom * factor, self.right * factor)

    def over(self, factor: int) -> "Window":
        """In latent positions, of pixels: all that the window touches."""
        return Window(self.top // factor, self.left // factor, -(-self.bottom // factor), -(-self.right // factor))


def cut(size: Size, tile: Size) -> list[Window]:
    """A plane in tiles side by side, row by row; the last of a row or column are as large as what is left."""
    return [
        Window(top, left, min(size[0], top + tile[0]), min(size[1], left + tile[1]))
        for top in range(0, size[0], tile[0])
        for left in range(0, size[1], tile[1])
    ]


LEAST_SEEN = 4  # latent positions, one side, of what a network is shown at once


@dataclass(frozen=True)
class TilePlan:
    """Tiles of `side` latent positions a side, of which neighbours share `overlap`."""

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.side // 2 or not 1 <= self.side <= 0xFFFF:
            raise FormatError(f"tiles of {self.side} with an overlap of {self.overlap} cannot be: the file is damaged")

    def spans(self, length: int, start: int, end: int) -> list[tuple[int, int]]:
        """(start, end) of the tiles along a side of `length` positions that touch start..end - 1.

        The last is as long as the others.
        """
        if length <= self.side:
            return [(0, length)]
        stride = self.side - self.overlap
        starts = [*range(0, length - self.side, stride), length - self.side]
        return [(first, first + self.side) for first in starts if first < end and first + self.side > start]

    def around(self, window: Window, size: Size) -> Window:
        """The tiles of a latent of that size that touch a window, all together."""
        rows = self.spans(size[0], window.top, window.bottom)
        columns = self.spans(size[1], window.left, window.right)
        return Window(rows[0][0], columns[0][0], rows[-1][1], columns[-1][1])
