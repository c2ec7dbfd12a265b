"""Mutated payloads: read, or one of our errors. tests/fuzz.py does the same in large numbers."""

from fuzz import fuzz


def test_mutated_payloads_are_read_or_refused() -> None:
    outcomes = list(fuzz(1500, seed=1))
    assert 10 < outcomes.count("read") < 1000
    assert len(set(outcomes)) > 8
