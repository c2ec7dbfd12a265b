"""The learned prior of a VQ model's indices: how likely each code is, given the stages before it and its neighbours.

Stage by stage, each in two checkerboard passes, and each index in two digits: which group of codes, then which of the
group. Codebooks are ordered so that a group's codes lie close together, which makes the first digit easy to tell.
This is the prior as it is trained; files are coded with its exact form (exact_index_prior).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.blocks import zero_init
from latentzip.models.config import AutoencoderConfig
from latentzip.models.prior import checkerboard, same

# (stage, digit: 0 or 1, logits in bits (B, D, h, w), positions to code, bool (h, w)) -> digits (B, h, w) int64
DigitPass = Callable[[int, int, Tensor, Tensor], Tensor]


class StageContext(nn.Module):
    """Logits of one stage's digits."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.index_width
        groups, members = config.index_digits
        self.project = same(config.latent_channels, width // 2, 1)
        self.before = same(width // 2, width, 3)
        self.neighbours = same(width // 2, width, 3)
        self.mix = same(width, width, 1)
        self.group = zero_init(same(width, groups, 1))
        self.of_group = nn.Parameter(torch.zeros(groups, width))
        self.member = zero_init(same(width, members, 1))

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

    def sweep(self, codebooks: Tensor, stages: int, size: tuple[int, int], batch: int, code: DigitPass) -> Tensor:
        """Code indices digit by digit; returns them all, (B, S, h, w) int64.

        codebooks: (K, N, C); size: (h, w). `code` is called in the order of the file; what it returns outside the mask
        is ignored.
        """
        height, width = size
        even = checkerboard(height, width, codebooks.device)
        partial = codebooks.new_zeros(batch, codebooks.shape[2], height, width)
        indices = []
        for stage in range(stages):
            context = self.stages[stage]
            assert isinstance(context, StageContext)
            known = context.known(partial)
            index = torch.zeros(batch, height, width, dtype=torch.int64, device=codebooks.device)
            codes: Tensor | None = None
            for mask in (even, ~even):
                hidden = context.hidden(known, codes)
                group = code(stage, 0, context.group(hidden), mask)
                member = code(stage, 1, context.member_logits(hidden, group), mask)
                index = torch.where(mask, group * self.members + member, index)
                codes = codebooks[stage][index].permute(0, 3, 1, 2) * even
            indices.append(index)
            partial = partial + codebooks[stage][index].permute(0, 3, 1, 2)
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
