"""The exact form of `index_prior.IndexPrior`: with what counts a file's indices are coded."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentzip.models.bands import places_in_block
from latentzip.models.exact import LIMIT, UNIT, ExactLayer, ExactRate, Plane, in_blocks, units
from latentzip.models.index_prior import IndexPrior, StageContext, marked, passes
from latentzip.models.quantizer import END
from latentzip.tiling import Size

TOTAL_BITS = 16  # every distribution's counts add up to 2**16
LOGIT_BITS = 4  # logits, in bits, count in sixteenths
WEIGHT_BITS = 24

# (stage, digit: 0 or 1, positions (n,), counts (n, D) float32) -> digits (n,) int64
ExactDigitPass = Callable[[int, int, Tensor, Tensor], Tensor]


class ExactIndexPrior:
    """Counts of the digits of indices, the same on every machine."""

    def __init__(self, prior: IndexPrior, codebooks: Tensor) -> None:
        """prior: as it was trained; codebooks: (K, N, C)."""
        self.members = prior.members
        self.rate = ExactRate(prior.rate)
        self.books = units(marked(codebooks.detach().cpu()))  # (K, N, C + 1)
        self.stages = [_Stage(stage, book) for stage, book in zip(prior.stages, self.books, strict=True)]

    def sweep(self, rate: float, stages: int, size: Size, code: ExactDigitPass) -> Tensor:
        """Code indices digit by digit, in the order of `IndexPrior.sweep`; returns those of all stages (K, h w) int64.

        rate: in [0, 1]; size: (h, w). `code` is called once a pass and digit, of the first `stages` stages. Positions
        are counted row by row.
        """
        count = size[0] * size[1]
        everywhere = torch.arange(count)
        of_rate = self.rate(rate)
        partial = torch.zeros(count, self.books.shape[2], dtype=torch.float64)  # sum of the codes of the stages before
        going_on = torch.ones(count, dtype=torch.bool)
        in_block = places_in_block(*size, going_on.device).flatten()
        of_passes = [mask.flatten().nonzero()[:, 0] for mask in passes(*size, going_on.device)]
        indices = torch.full((len(self.stages), count), END)
        for number, stage in enumerate(self.stages[:stages]):
            if not going_on.any():
                break
            projected, coded = (Plane(size, stage.width // 2, margin=2) for _ in range(2))
            for place, _ in in_blocks(everywhere):
                projected.put(everywhere[place], stage.project(partial[place].clamp(-LIMIT, LIMIT)))
            coded.put(everywhere, stage.projected_zero.expand(count, -1))
            for later, places in enumerate(of_passes):
                positions = places[going_on[places]]
                hidden = stage.hidden(projected, coded if later else None, positions, of_rate, in_block)
                group = code(number, 0, positions, stage.group_counts(hidden))
                member = code(number, 1, positions, stage.member_counts(hidden, group))
                index = group * self.members + member
                indices[number, positions] = index
                coded.put(positions, stage.projected_codes.index_select(0, index))
            partial[going_on] += self.books[number].index_select(0, indices[number, going_on])
            going_on &= indices[number] != END
        return indices


class _Stage:
    """`index_prior.StageContext`."""

    def __init__(self, stage: torch.nn.Module, book: Tensor) -> None:
        assert isinstance(stage, StageContext)
        self.project, self.before = ExactLayer(stage.project), ExactLayer(stage.before)
        self.neighbours, self.mix = ExactLayer(stage.neighbours), ExactLayer(stage.mix)
        self.group, self.member = ExactLayer(stage.group), ExactLayer(stage.member)
        self.of_group, self.of_place = units(stage.of_group.detach().cpu()), units(stage.of_place.detach().cpu())
        self.width = stage.mix.in_channels
        self.projected_codes = self.project(book)  # (N, width / 2), and of no code:
        self.projected_zero = self.project(torch.zeros(1, book.shape[1], dtype=torch.float64))

    def hidden(
        self, projected: Plane, coded: Plane | None, positions: Tensor, of_rate: Tensor, in_block: Tensor
    ) -> Tensor:
        """(n, width) at n positions. projected: the sum of the stages before; coded: this stage's, or zero's, codes.

        of_rate: (1, width); in_block: the place of every position (h w,).
        """
        out = torch.empty(len(positions), self.width, dtype=torch.float64)
        for place, some in in_blocks(positions):
            known = self.before(projected.around(some, self.before.taps)) + of_rate
            known += self.of_place.index_select(0, in_block[some])
            if coded is not None:
                known += self.neighbours(coded.around(some, self.neighbours.taps))
            out[place] = self.mix(known.clamp_(0, LIMIT), relu=True)
        return out

    def group_counts(self, hidden: Tensor) -> Tensor:
        return _counts(self.group, hidden, None)

    def member_counts(self, hidden: Tensor, group: Tensor) -> Tensor:
        """group: (n,) int64."""
        return _counts(self.member, hidden, self.of_group.index_select(0, group))


def _counts(layer: ExactLayer, hidden: Tensor, more: Tensor | None) -> Tensor:
    """hidden, more: (n, width) -> (n, D) float32."""
    counts = torch.empty(len(hidden), layer.matrix.shape[1], dtype=torch.float32)
    for place, _ in in_blocks(torch.arange(len(hidden))):
        x = hidden[place] if more is None else (hidden[place] + more[place]).clamp_(0, LIMIT)
        counts[place] = counts_of_logits(layer(x).mul_(1 / UNIT)).float()
    return counts


def counts_of_logits(logits: Tensor) -> Tensor:
    """Logits in bits (n, D) float64, on the activations' grid -> whole counts (n, D), at least 1, 2**16 in all.

    Every machine has the same: 2**-x comes from a table of integers in sixteenths of a bit, and what division leaves
    over goes to the likeliest digit, of several the first. Products stay below 2**40, and a quotient that is no whole
    number is further from one than float64 rounds.
    """
    below = (logits.amax(1, keepdim=True) - logits).mul_(2**LOGIT_BITS).floor_().clamp_(max=len(_POWERS) - 1)
    weights = _POWERS[below.long()]
    spare = 2**TOTAL_BITS - logits.shape[1]
    counts: Tensor = (weights * spare).div_(weights.sum(1, keepdim=True)).floor_().add_(1)
    rest = 2**TOTAL_BITS - counts.sum(1, keepdim=True)
    return counts.scatter_add_(1, weights.argmax(1, keepdim=True), rest)


def _powers() -> Tensor:
    """2**(WEIGHT_BITS - i / 16), rounded down, from integer roots; at last 0."""
    root = 2 << 16 * 64
    for _ in range(LOGIT_BITS):
        root = math.isqrt(root)  # at last 2**(1/16) in units of 2**-64
    powers, value = [], 1 << WEIGHT_BITS + 64
    while value >> 64:
        powers.append(value >> 64)
        value = (value << 64) // root
    return torch.tensor([*powers, 0], dtype=torch.float64)


_POWERS = _powers()
