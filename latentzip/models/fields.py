"""What the fields of a config may hold, checked where the config is made. No torch."""

import dataclasses
import reprlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from latentzip.errors import ModelError

MOST_ITEMS = 4096  # of a tuple, which has one for each channel at most

Bounds = Mapping[str, tuple[float, float]]


def check_fields(config: Any, bounds: Bounds) -> None:
    """Raise ModelError unless every field of a dataclass is of its declared type, and within bounds.

    bounds: the least and the greatest number in each field that has numbers. What is no number at all lies in none.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value, hint = field.name, getattr(config, field.name), hints[field.name]
        if isinstance(value, tuple) and len(value) > MOST_ITEMS:
            raise ModelError(f"the model's config has {len(value)} numbers for {name}: {MOST_ITEMS} are the most")
        if not _is_of(value, hint):
            raise ModelError(f"the model's config has {reprlib.repr(value)} for {name}: it is to be {_in_words(hint)}")
        for number in _numbers(value):
            low, high = bounds[name]
            if not low <= number <= high:
                raise ModelError(
                    f"the model's config has {reprlib.repr(value)} for {name}: it is to be from {low:g} to {high:g}"
                )


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value has a type, as annotations name it. True is no int here, but a whole number is a float."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return isinstance(value, str) and value in parts
    if kind in (Union, types.UnionType):
        return any(_is_of(value, part) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is ...:
            return all(_is_of(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_is_of, value, parts))
    return type(value) in ((int, float) if hint is float else (hint,))


def _in_words(hint: Any) -> str:
    kind, parts = get_origin(hint), get_args(hint)
    if kind is tuple:
        return f"a list of {len(parts)}" if parts[-1] is not ... else "a list"
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in (Union, types.UnionType):
        return " or ".join(map(_in_words, parts))
    return {int: "a whole number", float: "a number", bool: "true or false"}[hint]


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
