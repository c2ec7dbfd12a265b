"""Rates for equal quality, and settings for a wanted size."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentzip.bench.curves import Curve, bd_quality, bd_rate, compare_bytes, compare_quality
from latentzip.bench.worker import NEAR, nearest_setting

RATES, PSNRS = [0.094, 0.131, 0.184, 0.274, 0.418], [30.62, 31.95, 33.38, 35.08, 37.07]
OTHER_RATES, OTHER_PSNRS = [0.109, 0.175, 0.229, 0.311, 0.486], [29.33, 31.03, 32.13, 33.40, 35.44]
DISTANCES, OTHER_DISTANCES = [2.26, 1.95, 1.59, 1.2, 0.9], [2.9, 2.3, 2.0, 1.6, 1.1]


def curve(rates: Sequence[float], values: Sequence[float]) -> Curve:
    return list(zip(rates, values, strict=True))


def test_bd_rate_is_that_of_the_package_bjontegaard() -> None:
    """bjontegaard 1.3.0, bd_rate(..., method="pchip", require_matching_points=False); distances negated there."""
    anchor, test = curve(RATES, PSNRS), curve(OTHER_RATES, OTHER_PSNRS)
    assert bd_rate(anchor, test, higher_is_better=True) == pytest.approx(67.06211104146847)
    anchor, test = curve(RATES, DISTANCES), curve(OTHER_RATES, OTHER_DISTANCES)
    assert bd_rate(anchor, test, higher_is_better=False) == pytest.approx(73.96369165497487)


def test_half_the_bytes_are_minus_50_per_cent() -> None:
    half = curve([rate / 2 for rate in RATES], PSNRS)
    assert bd_rate(curve(RATES, PSNRS), half, higher_is_better=True) == pytest.approx(-50)
    assert bd_rate(half, curve(RATES, PSNRS), higher_is_better=True) == pytest.approx(100)


@pytest.mark.parametrize("shift", [-8.0, 8.0, 6.3])
def test_curves_that_do_not_meet_say_nothing(shift: float) -> None:
    """6.3 dB apart, they share 0.15 of 6.45 dB: too little to speak of."""
    away = curve(RATES, [value + shift for value in PSNRS])
    assert bd_rate(curve(RATES, PSNRS), away, higher_is_better=True) is None
    assert bd_rate(curve(RATES, PSNRS), curve([0.2], [33]), higher_is_better=True) is None


def test_settings_that_nobody_would_choose_are_left_out() -> None:
    """More bytes for less quality, in the middle of a curve and at its end."""
    worse = [*curve(RATES, PSNRS), (0.15, 31.0), (0.6, 37.0)]
    expected = bd_rate(curve(OTHER_RATES, OTHER_PSNRS), curve(RATES, PSNRS), higher_is_better=True)
    assert bd_rate(curve(OTHER_RATES, OTHER_PSNRS), worse, higher_is_better=True) == expected


def test_a_decibel_more_at_every_rate_is_a_decibel() -> None:
    """Over the rates that both reach; of two files of one size it is their mean that counts."""
    anchor = curve(RATES, PSNRS)
    assert bd_quality(anchor, curve(RATES, [value + 1 for value in PSNRS])) == pytest.approx(1)
    assert bd_quality(anchor, curve(RATES[1:], [value - 2 for value in PSNRS[1:]])) == pytest.approx(-2, abs=0.02)
    twice = [*curve(RATES, [value + 1 for value in PSNRS]), *curve(RATES, [value - 1 for value in PSNRS])]
    assert bd_quality(anchor, twice) == pytest.approx(0)
    assert bd_quality(anchor, curve([rate * 10 for rate in RATES], PSNRS)) is None
    assert bd_quality(anchor, curve([0.2], [33])) is None


def test_quality_at_equal_bytes_is_that_of_the_package_bjontegaard() -> None:
    """bjontegaard 1.3.0, bd_psnr(..., method="pchip", require_matching_points=False)."""
    assert bd_quality(curve(RATES, PSNRS), curve(OTHER_RATES, OTHER_PSNRS)) == pytest.approx(-2.151847417830422)


def test_means_of_differences_at_equal_bytes() -> None:
    anchor = curve(RATES, PSNRS)
    others = [curve(RATES, [value + k for value in PSNRS]) for k in (0, 1, 2, 3, 4)]
    result = compare_quality([(anchor, other) for other in others])
    assert result.change == pytest.approx(2)
    assert result.low is not None
    assert result.high is not None
    assert 0 < result.low < 2 < result.high < 4
    assert result.single == pytest.approx((0, 1, 2, 3, 4))


def test_means_of_pictures() -> None:
    """Half and twice the bytes cancel out; pictures whose curves do not meet are counted."""
    anchor = curve(RATES, PSNRS)
    scaled = [curve([rate * k for rate in RATES], PSNRS) for k in (0.5, 2)]
    away = curve(RATES, [value + 10 for value in PSNRS])
    result = compare_bytes([(anchor, test) for test in (*scaled, away)], higher_is_better=True)
    assert result.change == pytest.approx(0, abs=1e-9)
    assert (result.overlapping, result.pictures) == (2, 3)
    assert result.single[2] is None
    assert (result.low, result.high) == (None, None)  # of two pictures
    nothing = compare_bytes([(anchor, away)], higher_is_better=True)
    assert (nothing.change, nothing.overlapping) == (None, 0)


def test_the_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    anchor = curve(RATES, PSNRS)
    pairs = [(anchor, curve([rate * (1 + k / 20) for rate in RATES], PSNRS)) for k in range(10)]
    one, two = (compare_bytes(pairs, higher_is_better=True) for _ in range(2))
    assert one == two
    assert one.low is not None
    assert one.change is not None
    assert one.high is not None
    assert 0 < one.low < one.change < one.high < 45
    alike = compare_bytes([(anchor, anchor)] * 6, higher_is_better=True)
    assert (alike.low, alike.change, alike.high) == pytest.approx((0, 0, 0), abs=1e-9)


@given(st.sets(st.integers(1, 3000), min_size=1, max_size=100), st.integers(1, 4000), st.sets(st.integers(0, 99)))
def test_the_setting_whose_file_is_nearest(sizes: set[int], target: int, hints: set[int]) -> None:
    ordered = sorted(sizes)
    choices = [10 * i for i in range(len(ordered))]
    known = {choices[i]: ordered[i] for i in hints if i < len(ordered)}
    written: list[int] = []

    def write(setting: int) -> bytes:
        written.append(setting)
        return bytes(ordered[setting // 10])

    def distance(size: int) -> float:
        return abs(math.log(size / target))

    found = nearest_setting(target, choices, write, known)
    best = min(map(distance, ordered))
    assert distance(ordered[choices.index(found)]) <= max(best + 1e-9, NEAR)
    assert len(written) == len(set(written)) <= 12
    assert not set(written) & set(known)
