"""All that is loaded is checked here, before it is used: names, shapes, kinds of numbers, and their values."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentzip.entropy.coder import TOTAL
from latentzip.errors import ModelError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_LOG_GAIN = 20.0  # far beyond any trained one; its exponential, and that of its negative, is still a number

Tensors = dict[str, Tensor]


def checked(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str = "") -> Tensors:
    """Tensors that modules can take: floats in float32, others as they are.

    found: what was read; wanted: what the modules have, of which only shapes and dtypes count, so that they may be on
    `meta`; prefix: of their full names. Raises ModelError unless there is every one and no other, of its shape, a float
    of two to eight bytes where a float is wanted and else the very dtype, finite in float32, and within the bounds that
    coding has.
    """
    both = [name for name in found if name in wanted]
    _refuse(path, "lacks", (name for name in wanted if name not in found), prefix)
    _refuse(path, "should not have", (name for name in found if name not in wanted), prefix)
    _refuse(path, "has another shape of", (n for n in both if found[n].shape != wanted[n].shape), prefix)
    _refuse(path, "has another kind of numbers in", (n for n in both if not _fits(found[n], wanted[n])), prefix)
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in found.items()}
    _refuse(path, "has values that are not finite in", not_finite(tensors), prefix)
    wrong = (n for n, t in tensors.items() if prefix + n in _RULES and not _RULES[prefix + n](t))
    _refuse(path, "has values that nothing can be coded with in", wrong, prefix)
    return tensors


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold what is no number."""
    return [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]


def _fits(found: Tensor, wanted: Tensor) -> bool:
    return found.dtype in FLOATS if wanted.is_floating_point() else found.dtype == wanted.dtype


def _refuse(path: Path, what: str, names: Iterable[str], prefix: str) -> None:
    if wrong := [prefix + name for name in names]:
        raise ModelError(
            f"{path}: does not fit its config, it {what} {listed(wrong)}: another version of latentzip made it, or it"
            " is damaged; fetch or train the model again"
        )


def listed(names: list[str]) -> str:
    """Names for a message, the first of them."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _is_scale_table(table: Tensor) -> bool:
    """As `models.prior.scale_table` has it: counts from 1 and zeros after them, an even number in each row."""
    there = table > 0
    lengths = there.sum(1)
    in_front = there == (torch.arange(table.shape[1], device=table.device) < lengths[:, None])
    alike = (table.sum(1) == TOTAL) & (lengths % 2 == 0) & (table >= 0).all(1)
    return bool(in_front.all() and alike.all())


# What is more than finite. Other tensors of the latent space are clamped where they are used for coding.
_RULES: dict[str, Callable[[Tensor], bool]] = {
    "latent.log_gain": lambda gains: bool((gains.abs() <= MOST_LOG_GAIN).all()),
    "latent.scale_table": _is_scale_table,
    "latent.std": lambda deviations: bool((deviations > 0).all()),
}
