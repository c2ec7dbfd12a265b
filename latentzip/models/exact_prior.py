"""The exact form of `prior.HyperPrior`: what means and scales a file's values are coded with."""

from collections.abc import Callable

import torch
from torch import Tensor

from latentzip.models.exact import (
    ACTIVATION_BITS,
    LIMIT,
    ExactLayer,
    Plane,
    colours,
    in_blocks,
    odd_taps,
    units,
    upsampled,
)
from latentzip.models.prior import MEAN_BITS, SCALES, GroupContext, HyperPrior, coded_index
from latentzip.tiling import Size

# (group, positions (n,), mean in steps (C, n) float64, scale index (C, n) uint8) -> their values (C, n) float64
ExactPass = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class ExactHyperPrior:
    """Means in sixteenths of a step and whole scale indices, the same on every machine."""

    def __init__(self, prior: HyperPrior) -> None:
        """prior: as it was trained."""
        self.groups = prior.groups
        self.hyper_index = coded_index(prior.hyper_index.detach()).byte().cpu()  # (Ch,)
        first, second, third = (prior.synthesis[place] for place in (0, 3, 6))
        self.synthesis = ExactLayer(first), ExactLayer(second), ExactLayer(third)
        self.contexts = [_Context(context) for context in prior.contexts]

    def sweep(self, hyperlatent: Tensor, size: Size, code: ExactPass) -> Tensor:
        """Code a latent pass by pass, in the order of `HyperPrior.sweep`.

        hyperlatent: (ceil(h/4), ceil(w/4), Ch) float64, coded; size: (h, w). `code` is called once a pass. Positions
        are counted row by row. Returns the whole coded latent (h w, C) float32, which holds all sixteenths below 2**20.
        """
        hyper = self._upsampled(hyperlatent, size)
        out = torch.empty(size[0] * size[1], sum(self.groups))
        planes: list[Plane] = []
        channel = 0
        for group, context in enumerate(self.contexts):
            plane = Plane(size, context.channels, margin=2)
            for second, positions in enumerate(colours(size)):
                mean, index = context.expect(hyper, planes, plane if second else None, positions)
                values = code(group, positions, mean, index).T.contiguous()
                out[positions, channel : channel + context.channels] = values.float()
                plane.put(positions, units(values))
            planes.append(plane)
            channel += context.channels
        return out

    def _upsampled(self, hyperlatent: Tensor, size: Size) -> Tensor:
        """(h w, width) activations."""
        height, width, channels = hyperlatent.shape
        first, second, third = self.synthesis
        x = upsampled(first(units(hyperlatent.view(-1, channels)), relu=True), (height, width))
        x = upsampled(second(x, relu=True), (2 * height, 2 * width))
        plane = Plane((4 * height, 4 * width), x.shape[1], margin=1)
        plane.put(torch.arange(len(x)), x)
        rows, columns = torch.arange(size[0]), torch.arange(size[1])
        inside = (rows[:, None] * 4 * width + columns).flatten()
        out = torch.empty(len(inside), third.matrix.shape[1], dtype=torch.float64)
        for place, positions in in_blocks(inside):
            out[place] = third(plane.around(positions, third.taps), relu=True)
        return out


class _Context:
    """`prior.GroupContext`."""

    def __init__(self, context: torch.nn.Module) -> None:
        assert isinstance(context, GroupContext)
        self.channels = context.neighbours.in_channels
        self.hyper = ExactLayer(context.hyper)
        self.earlier = ExactLayer(context.earlier) if context.earlier is not None else None
        self.neighbours = ExactLayer(context.neighbours, odd_taps(context.neighbours.kernel_size[0]))
        self.head, self.last = ExactLayer(context.head[1]), ExactLayer(context.last)

    def expect(
        self, hyper: Tensor, earlier: list[Plane], anchors: Plane | None, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean in steps (C, n) float64 and scale index (C, n) uint8 at n positions.

        earlier: the groups before; anchors: this group where it was coded in the pass before.
        """
        mean = torch.empty(self.channels, len(positions), dtype=torch.float64)
        index = torch.empty(self.channels, len(positions), dtype=torch.uint8)
        for place, some in in_blocks(positions):
            hidden = self.hyper(hyper.index_select(0, some))
            if self.earlier is not None:
                hidden += self.earlier(_around_all(earlier, some, self.earlier))
            if anchors is not None:
                hidden += self.neighbours(anchors.around(some, self.neighbours.taps))
            hidden = self.head(hidden.clamp_(0, LIMIT), relu=True)
            both = self.last.channel_major(hidden)
            # from the activations' grid to that of the file, halves up
            both[: self.channels].mul_(2.0 ** (MEAN_BITS - ACTIVATION_BITS)).add_(0.5).floor_().mul_(2.0**-MEAN_BITS)
            both[self.channels :].mul_(2.0**-ACTIVATION_BITS).add_(0.5).floor_().clamp_(0, SCALES - 1)
            mean[:, place], index[:, place] = both[: self.channels], both[self.channels :]
        return mean, index


def _around_all(planes: list[Plane], positions: Tensor, layer: ExactLayer) -> Tensor:
    """What a layer takes whose input is the channels of several planes."""
    if len(planes) == 1:
        return planes[0].around(positions, layer.taps)
    parts = [plane.around(positions, layer.taps).view(len(positions), len(layer.taps), -1) for plane in planes]
    return torch.cat(parts, dim=2).flatten(1)
