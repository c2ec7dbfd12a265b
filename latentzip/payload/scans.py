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
    """symbols: VQ indices (1, S, h, w) int64, KL values in steps (1, C, h, w) float64 or int64, or the latent itself.

    latent, rate: what the decoder takes, (1, C, h, w) float32 and (1,) in [0, 1]. parts: how many of the payload's
    parts are in them, of how many in all.
    """

    symbols: Tensor
    latent: Tensor
    rate: Tensor
    parts: tuple[int, int]


def level_of_quality(quality: int) -> int:
    """Quality 1..100 -> level of a KL payload, 0..255."""
    return round((quality - 1) / (MAX_QUALITY - 1) * MAX_LEVEL)


def rate_of_level(level: int) -> Tensor:
    """Level 0..255 -> rate (1,) in [0, 1]."""
    return torch.tensor([level / MAX_LEVEL])


def stages_of_quality(quality: int, stages: int) -> int:
    """Quality 1..100 -> how many of a VQ model's stages to store, at least one."""
    return -(-quality * stages // MAX_QUALITY)


def join_or_split(whole: bytes, parts: Callable[[], list[bytes]], setting: int) -> list[bytes]:
    """The scans of a payload, with their head: one, or where that is long one for each part.

    setting: the head's second byte.
    """
    scans = [whole] if len(whole) < SPLIT_FROM else parts()
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
