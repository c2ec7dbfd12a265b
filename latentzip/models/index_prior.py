"""The learned prior of a VQ model's indices: how likely each code is, given the stages before it and its neighbours.

Stage by stage, each in four passes (averages of blocks, their coarse differences, the positions diagonal to those, the
others), and each index in two digits: which group of codes, then which of the group. Nothing is coded where a position
has ended. The rate and the place in a block are known. Codebooks are ordered so that a group's codes lie near each
other, which makes the first digit easy to tell. This is the prior as it is trained; files are coded with its exact form
(exact_index_prior).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.bands import BLOCK, kinds, places_in_block
from latentzip.models.blocks import zero_init
from latentzip.models.config import AutoencoderConfig
from latentzip.models.prior import rate_network, same
from latentzip.models.quantizer import END

# (stage, digit: 0 or 1, logits in bits (B, D, h, w), positions to code, bool (B, h, w)) -> digits (B, h, w) int64
DigitPass = Callable[[int, int, Tensor, Tensor], Tensor]


class StageContext(nn.Module):
    """Logits of one stage's digits."""

    def __init__(self, config: AutoencoderConfig, *, first: bool) -> None:
        super().__init__()
        width = config.index_width
        groups, members = config.index_digits
        self.project = same(config.latent_channels + 1, width // 2, 1)  # of a vector and of whether it is at its end
        self.before = same(width // 2, width, 3)
        self.neighbours = same(width // 2, width, 5 if first else 3)  # the first stage has nothing else
        self.of_place = nn.Parameter(torch.zeros(BLOCK**2, width))  # what stands there differs by the place in a block
        self.mix = same(width, width, 1)
        self.group = zero_init(same(width, groups, 1))
        self.of_group = nn.Parameter(torch.zeros(groups, width))
        self.member = zero_init(same(width, members, 1))

    def known(self, partial: Tensor, of_rate: Tensor) -> Tensor:
        """From the sum of the stages before, marked (B, C + 1, h, w), and what the rate tells (B, width, 1, 1)."""
        hidden: Tensor = self.before(self.project(partial)) + of_rate
        places = places_in_block(hidden.shape[2], hidden.shape[3], hidden.device)
        return hidden + self.of_place[places].permute(2, 0, 1)

    def hidden(self, known: Tensor, coded: Tensor | None) -> Tensor:
        """`coded`: this stage's marked codes where they are known, zeros elsewhere, (B, C + 1, h, w); None: nowhere."""
        if coded is not None:
            known = known + self.neighbours(self.project(coded))
        hidden: Tensor = F.relu(self.mix(F.relu(known)))
        return hidden

    def member_logits(self, hidden: Tensor, group: Tensor) -> Tensor:
        logits: Tensor = self.member(F.relu(hidden + self.of_group[group].permute(0, 3, 1, 2)))
        return logits


class IndexPrior(nn.Module):
    """Probabilities for indices (B, S, h, w) of a residual quantiser that ends."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.members = config.index_digits[1]
        self.rate = rate_network(config.index_width)
        self.stages = nn.ModuleList(StageContext(config, first=stage == 0) for stage in range(config.stages))

    def sweep(self, codebooks: Tensor, rate: Tensor, size: tuple[int, int], code: DigitPass) -> Tensor:
        """Code indices digit by digit; returns them all, (B, K, h, w) int64.

        codebooks: (K, N, C); rate: (B,) in [0, 1]; size: (h, w). `code` is called in the order of the file; what it
        returns outside the mask is ignored.
        """
        height, width = size
        books = marked(codebooks)
        of_rate = self.rate(rate.view(-1, 1, 1, 1))
        partial = books.new_zeros(len(rate), books.shape[2], height, width)
        going_on = torch.ones(len(rate), height, width, dtype=torch.bool, device=books.device)
        indices: list[Tensor] = []
        for stage, (context, book) in enumerate(zip(self.stages, books, strict=True)):
            assert isinstance(context, StageContext)
            known = context.known(partial, of_rate)
            index = torch.full_like(going_on, END, dtype=torch.int64)
            codes: Tensor | None = None
            seen = torch.zeros_like(going_on)
            for places in passes(height, width, books.device):
                mask = places & going_on
                hidden = context.hidden(known, codes)
                group = code(stage, 0, context.group(hidden), mask)
                member = code(stage, 1, context.member_logits(hidden, group), mask)
                index = torch.where(mask, group * self.members + member, index)
                seen = seen | mask
                codes = book[index].permute(0, 3, 1, 2) * seen[:, None]
            indices.append(index)
            partial = partial + book[index].permute(0, 3, 1, 2) * going_on[:, None]
            going_on = going_on & (index != END)
        return torch.stack(indices, dim=1)

    def bits(self, codebooks: Tensor, indices: Tensor, rate: Tensor) -> Tensor:
        """Bits of each stage's indices (B, K, h, w) at a rate (B,): (B, K), with gradients to the prior."""
        batch, stages, height, width = indices.shape
        total = torch.zeros(stages, batch, device=indices.device)

        def count(stage: int, digit: int, logits: Tensor, mask: Tensor) -> Tensor:
            group, member = indices[:, stage] // self.members, indices[:, stage] % self.members
            wanted = (group, member)[digit]
            nats = F.cross_entropy(logits.float() * math.log(2), wanted, reduction="none")
            total[stage] = total[stage] + (nats * mask).sum((1, 2)) / math.log(2)
            return wanted

        self.sweep(codebooks, rate, (height, width), count)
        return total.T


def passes(height: int, width: int, device: torch.device) -> list[Tensor]:
    """The positions of a stage's passes, bool (height, width): averages, coarse differences, both odd, the others."""
    rows, columns = torch.arange(height, device=device)[:, None] % 2, torch.arange(width, device=device) % 2
    kind = kinds(height, width, device)
    return [kind == 0, kind == 1, (rows + columns) == 2, (rows + columns) == 1]


def marked(codebooks: Tensor) -> Tensor:
    """Codebooks (K, N, C) -> (K, N, C + 1), whose last value is 1 for code END and 0 for others.

    So a sum of codes, of one END at most, tells whether the position has ended.
    """
    out = F.pad(codebooks, (0, 1))
    out[:, END, -1] = 1
    return out


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
