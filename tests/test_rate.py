"""A wanted size is met from below."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentzip.errors import LatentzipError, UsageError
from latentzip.rate import highest_level_within, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [("40000", 40000), ("40KB", 40000), ("40kb", 40000), ("40KiB", 40960), ("40K", 40960), ("1.5 MB", 1500000)],
)
def test_sizes_as_people_write_them(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "KB", "40 apples", "-3", "1e3", "4,5KB", "nan", "inf", "0", "0.1", "9" * 400])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 1100))
def test_the_highest_level_that_fits(sizes: list[int], limit: int) -> None:
    """In at most seven tries, and never above the limit."""
    sizes.sort()
    tries = []

    def write(level: int) -> bytes:
        tries.append(level)
        return bytes(sizes[level])

    if sizes[0] > limit:
        with pytest.raises(LatentzipError, match=f"as small as {limit} bytes: this model needs {sizes[0]}"):
            highest_level_within(limit, range(len(sizes)), write)
    else:
        level = highest_level_within(limit, range(len(sizes)), write)
        assert sizes[level] <= limit
        assert level + 1 == len(sizes) or sizes[level + 1] > limit
    assert len(tries) <= 7
