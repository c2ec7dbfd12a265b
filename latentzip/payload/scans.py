"""What every payload has: scans, their head, and levels of quality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentzip.container import MAX_LEVEL, MAX_QUALITY, PayloadKind
from latentzip.errors import FormatError

SPLIT_FROM = 8192  # bytes; a scan more costs 8 to 16 of them


@dataclass(frozen=True)
class Payload:
    """scans: bytes, the most important first; symbols: what they stand for, as `parse_payload` gives it."""

    kind: PayloadKind
    scans: list[bytes]
    symbols: Tensor


@dataclass(frozen=True)
class Parsed:
    """symbols: VQ indices (1, S, h, w) int64, KL values in steps (1, C, h, w) float32 or int64, or the latent itself.

    to_latent: gives what the decoder takes, (1, C, ...) float32, of all of them or of whole blocks (`models.bands`).
    rate: the decoder's, (1,) in [0, 1]. setting: the second byte of the payload's head. parts: how many of its parts
    are in the symbols, of how many in all. nothing: the symbol that stands for nothing at all.
    """

    symbols: Tensor
    to_latent: Callable[[Tensor], Tensor]
    rate: Tensor
    setting: int
    parts: tuple[int, int]
    nothing: int = 0

    @property
    def latent(self) -> Tensor:
        return self.to_latent(self.symbols)


def level_of_quality(quality: int) -> int:
    """Quality 1..100 -> level of a KL payload, 0..255."""
    return round((quality - 1) / (MAX_QUALITY - 1) * MAX_LEVEL)


def rate_of_level(level: int) -> Tensor:
    """Level 0..255 -> rate (1,) in [0, 1]."""
    return torch.tensor([level / MAX_LEVEL], dtype=torch.float32)


def stages_of_quality(quality: int, stages: int) -> int:
    """Quality 1..100 -> how many of a VQ model's stages to store, at least one."""
    return -(-quality * stages // MAX_QUALITY)


def join_or_split(
    whole: Callable[[], bytes], parts: Callable[[], list[bytes]], setting: int, *, split: bool
) -> list[bytes]:
    """The scans of a payload, with their head: one, or where that is long, or for `split`, one for each part.

    setting: the head's second byte.
    """
    scans = [] if split else [whole()]
    if split or len(scans[0]) >= SPLIT_FROM:
        scans = parts()
    scans[0] = bytes([len(scans), setting]) + scans[0]
    return scans


def check_scans(scans: Sequence[bytes], parts: int, partial: bool) -> int:
    """How many scans there should be, by the first byte of the first: one, or one for each part."""
    if len(scans[0]) < 2 or scans[0][0] not in (1, parts):
        raise FormatError("the head of its payload is not valid: the file is damaged")
    wanted = scans[0][0]
    if len(scans) > wanted or (len(scans) < wanted and not partial):
        raise FormatError(f"has {len(scans)} scans where {wanted} are needed: the file is damaged")
    return wanted
