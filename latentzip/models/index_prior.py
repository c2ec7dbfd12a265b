"""The learned prior of a VQ model's indices: how likely each code is, given the stages before it and its neighbours.

Stage by stage, each in two checkerboard passes, and each index in two digits: which group of codes, then which of the
group. Codebooks are ordered so that a group's codes lie close together, which makes the first digit easy to tell.
As in `prior`, `sweep` is the only description of that order.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.blocks import ACTIVATION_BITS, ACTIVATION_LIMIT, ExactConv2d, to_grid, zero_init
from latentzip.models.config import AutoencoderConfig
from latentzip.models.prior import checkerboard

TOTAL_BITS = 16  # every distribution's counts add up to 2**16
LOGIT_BITS = 4  # logits, in bits, count in sixteenths
WEIGHT_BITS = 24

# (stage, digit: 0 or 1, logits in bits (B, D, h, w), positions to code, bool (h, w)) -> digits (B, h, w) int64
DigitPass = Callable[[int, int, Tensor, Tensor], Tensor]


class StageContext(nn.Module):
    """Logits of one stage's digits."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.index_width
        groups, members = config.index_digits
        self.project = ExactConv2d(config.latent_channels, width // 2, 1)
        self.before = ExactConv2d(width // 2, width, 3)
        self.neighbours = ExactConv2d(width // 2, width, 3)
        self.mix = ExactConv2d(width, width, 1)
        self.group = zero_init(ExactConv2d(width, groups, 1))
        self.of_group = nn.Parameter(torch.zeros(groups, width))
        self.member = zero_init(ExactConv2d(width, members, 1))

    def known(self, partial: Tensor) -> Tensor:
        """From the sum of the stages before, (B, C, h, w)."""
        hidden: Tensor = self.before(self.project(partial))
        return hidden

    def hidden(self, known: Tensor, coded: Tensor | None) -> Tensor:
        """`coded`: this stage's codes where they are known, zeros elsewhere, (B, C, h, w); None: nowhere."""
        if coded is not None:
            known = known + self.neighbours(self.project(coded))
        hidden: Tensor = F.relu(self.mix(F.relu(known)))
        return hidden

    def member_logits(self, hidden: Tensor, group: Tensor) -> Tensor:
        logits: Tensor = self.member(F.relu(hidden + self.of_group[group].permute(0, 3, 1, 2)))
        return logits


class IndexPrior(nn.Module):
    """Probabilities for indices (B, S, h, w) of a residual quantiser."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.members = config.index_digits[1]
        self.stages = nn.ModuleList(StageContext(config) for _ in range(config.stages))
        self.exact = False

    def make_exact(self) -> "IndexPrior":
        """Turn the networks into their exact form (see ExactConv2d), for coding. Not to be trained afterwards."""
        for module in self.modules():
            if isinstance(module, ExactConv2d):
                module.make_exact()
            elif isinstance(module, StageContext):
                module.of_group.data = to_grid(module.of_group.data.double(), ACTIVATION_BITS, ACTIVATION_LIMIT)
        self.exact = True
        return self.eval()

    def sweep(self, codebooks: Tensor, stages: int, size: tuple[int, int], batch: int, code: DigitPass) -> Tensor:
        """Code indices digit by digit; returns them all, (B, S, h, w) int64.

        codebooks: (K, N, C); size: (h, w). `code` is called in the order of the file; what it returns outside the mask
        is ignored.
        """
        height, width = size
        books = to_grid(codebooks.double(), ACTIVATION_BITS, ACTIVATION_LIMIT) if self.exact else codebooks
        even = checkerboard(height, width, books.device)
        partial = books.new_zeros(batch, books.shape[2], height, width)
        indices = []
        for stage in range(stages):
            context = self.stages[stage]
            assert isinstance(context, StageContext)
            known = context.known(partial)
            index = torch.zeros(batch, height, width, dtype=torch.int64, device=books.device)
            codes: Tensor | None = None
            for mask in (even, ~even):
                hidden = context.hidden(known, codes)
                group = code(stage, 0, context.group(hidden), mask)
                member = code(stage, 1, context.member_logits(hidden, group), mask)
                index = torch.where(mask, group * self.members + member, index)
                codes = books[stage][index].permute(0, 3, 1, 2) * even
            indices.append(index)
            partial = partial + books[stage][index].permute(0, 3, 1, 2)
        return torch.stack(indices, dim=1)

    def bits(self, codebooks: Tensor, indices: Tensor) -> Tensor:
        """Bits of each stage's indices (B, S, h, w): (B, S), with gradients to the prior."""
        batch, stages, height, width = indices.shape
        total = torch.zeros(stages, batch, device=indices.device)

        def count(stage: int, digit: int, logits: Tensor, mask: Tensor) -> Tensor:
            group, member = indices[:, stage] // self.members, indices[:, stage] % self.members
            wanted = (group, member)[digit]
            nats = F.cross_entropy(logits.float() * math.log(2), wanted, reduction="none")
            total[stage] = total[stage] + (nats * mask).sum((1, 2)) / math.log(2)
            return wanted

        self.sweep(codebooks, stages, (height, width), batch, count)
        return total.T


def counts_of_logits(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Logits in bits (n, D), on the grid of the exact layers -> integer counts (n, D), at least 1, 2**16 in all.

    Integers alone, so that every machine has the same: 2**-x comes from a table in sixteenths of a bit, and what
    division leaves over goes to the likeliest digit, of several the first.
    """
    below = np.floor((logits.max(1, keepdims=True) - logits) * 2**LOGIT_BITS).astype(np.int64)
    weights = _POWERS[np.minimum(below, len(_POWERS) - 1)]
    spare = 2**TOTAL_BITS - logits.shape[1]
    counts: NDArray[np.int64] = 1 + weights * spare // weights.sum(1, keepdims=True)
    counts[np.arange(len(counts)), weights.argmax(1)] += 2**TOTAL_BITS - counts.sum(1)
    return counts


def _powers() -> NDArray[np.int64]:
    """2**(WEIGHT_BITS - i / 16), rounded down, from integer roots."""
    root = 2 << 16 * 64
    for _ in range(LOGIT_BITS):
        root = math.isqrt(root)  # at last 2**(1/16) in units of 2**-64
    powers, value = [], 1 << WEIGHT_BITS + 64
    while value >> 64:
        powers.append(value >> 64)
        value = (value << 64) // root
    return np.array([*powers, 0], dtype=np.int64)


_POWERS = _powers()


def tree_order(codes: Tensor, leaf: int) -> Tensor:
    """Order of codes (N, C) in which every `leaf` in a row lie close together: halves along the widest direction."""

    def split(members: Tensor) -> list[Tensor]:
        if len(members) <= leaf:
            return [members]
        centred = codes[members] - codes[members].mean(0)
        direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        ordered = members[torch.argsort(centred @ direction)]
        half = len(ordered) // 2
        return [*split(ordered[:half]), *split(ordered[half:])]

    return torch.cat(split(torch.arange(len(codes), device=codes.device)))
