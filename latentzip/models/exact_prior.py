"""The exact form of `prior.HyperPrior`: what means and scales a file's values are coded with."""

from collections.abc import Callable

import torch
from torch import Tensor

from latentzip.models.exact import (
    ACTIVATION_BITS,
    LIMIT,
    ExactLayer,
    ExactRate,
    Plane,
    colours,
    in_blocks,
    odd_taps,
    units,
    upsampled,
)
from latentzip.models.prior import MEAN_BITS, SCALES, GroupContext, HyperPrior, hyper_size
from latentzip.tiling import Size

# (part, positions (n,), mean in steps (C, n) float64, scale index (C, n) uint8) -> their values (C, n) float64.
# Parts are those of prior.CodePass.
ExactPass = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class ExactHyperPrior:
    """Means in sixteenths of a step and whole scale indices, the same on every machine."""

    def __init__(self, prior: HyperPrior) -> None:
        """prior: as it was trained."""
        self.parts = prior.parts  # channels of each
        self.rate = ExactRate(prior.rate)
        self.synthesis = [ExactLayer(prior.synthesis[place]) for place in (0, 3, 6)]
        self.hyper_context = _Context(prior.hyper_context)
        self.contexts = [_Context(context) for context in prior.contexts]

    def sweep(self, rate: float, size: Size, code: ExactPass) -> Tensor:
        """Code a latent pass by pass, in the order of `HyperPrior.sweep`.

        rate: in [0, 1]; size: (h, w). `code` is called once a pass. Positions are counted row by row. Returns the whole
        coded latent (h w, C) float32, which holds all sixteenths below 2**20.
        """
        of_rate = self.rate(rate)
        height, width = hyper_size(size)
        everywhere = of_rate.expand(height * width, -1)
        hyperlatent, _ = self._both_passes(0, self.hyper_context, everywhere, [], (height, width), code)
        features = self._synthesized(units(hyperlatent), size, of_rate)
        planes: list[Plane] = []
        coded: list[Tensor] = []
        for part, context in enumerate(self.contexts, 1):
            values, plane = self._both_passes(part, context, features, planes, size, code)
            coded.append(values.float())
            planes.append(plane)
        return torch.cat(coded, dim=1)

    def _both_passes(
        self, part: int, context: "_Context", features: Tensor, earlier: list[Plane], size: Size, code: ExactPass
    ) -> tuple[Tensor, Plane]:
        """What was coded, (h w, C) float64, and its activations."""
        known = context.known(features, earlier, size)
        out = torch.empty(len(known), context.channels, dtype=torch.float64)
        plane = Plane(size, context.channels, margin=2)
        for second, positions in enumerate(colours(size)):
            mean, index = context.expect(known, plane if second else None, positions)
            out[positions] = values = code(part, positions, mean, index).T.contiguous()
            plane.put(positions, units(values))
        return out, plane

    def _synthesized(self, hyperlatent: Tensor, size: Size, of_rate: Tensor) -> Tensor:
        """Activations (ceil(h/4) ceil(w/4), Ch) -> (h w, width)."""
        first, second, third = self.synthesis
        height, width = hyper_size(size)
        x = upsampled(first(hyperlatent, relu=True), (height, width))
        x = upsampled(second(x, relu=True), (2 * height, 2 * width))
        plane = _plane_of(x, (4 * height, 4 * width), margin=1)
        rows, columns = torch.arange(size[0]), torch.arange(size[1])
        inside = (rows[:, None] * 4 * width + columns).flatten()
        out = torch.empty(len(inside), third.matrix.shape[1], dtype=torch.float64)
        for place, positions in in_blocks(inside):
            out[place] = (third(plane.around(positions, third.taps)) + of_rate).clamp_(0, LIMIT)
        return out


class _Context:
    """`prior.GroupContext`."""

    def __init__(self, context: torch.nn.Module) -> None:
        assert isinstance(context, GroupContext)
        self.channels = context.neighbours.in_channels
        self.features = ExactLayer(context.features)
        self.earlier = ExactLayer(context.earlier) if context.earlier is not None else None
        self.neighbours = ExactLayer(context.neighbours, odd_taps(context.neighbours.kernel_size[0]))
        block = context.block
        self.block = (ExactLayer(block.first), ExactLayer(block.second)) if block is not None else None
        self.head, self.last = ExactLayer(context.head[1]), ExactLayer(context.last)

    def known(self, features: Tensor, earlier: list[Plane], size: Size) -> Tensor:
        """What is known of the group before its first pass: activations (h w, width)."""
        everywhere = torch.arange(len(features))
        hidden = torch.empty_like(features)
        for place, positions in in_blocks(everywhere):
            hidden[place] = self.features(features[place])
            if self.earlier is not None:
                hidden[place] += self.earlier(_around_all(earlier, positions, self.earlier))
        if self.block is None:
            return hidden
        hidden.clamp_(-LIMIT, LIMIT)
        plane = _plane_of(hidden.clamp(0, LIMIT), size, margin=1)
        first, second = self.block
        for place, positions in in_blocks(everywhere):
            hidden[place] += second(first(plane.around(positions, first.taps), relu=True))
        return hidden

    def expect(self, known: Tensor, anchors: Plane | None, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean in steps (C, n) float64 and scale index (C, n) uint8 at n positions.

        anchors: this group where it was coded in the pass before.
        """
        mean = torch.empty(self.channels, len(positions), dtype=torch.float64)
        index = torch.empty(self.channels, len(positions), dtype=torch.uint8)
        for place, some in in_blocks(positions):
            hidden = known.index_select(0, some)
            if anchors is not None:
                hidden += self.neighbours(anchors.around(some, self.neighbours.taps))
            hidden = self.head(hidden.clamp_(0, LIMIT), relu=True)
            both = self.last.channel_major(hidden)
            # from the activations' grid to that of the file, halves up
            both[: self.channels].mul_(2.0 ** (MEAN_BITS - ACTIVATION_BITS)).add_(0.5).floor_().mul_(2.0**-MEAN_BITS)
            both[self.channels :].mul_(2.0**-ACTIVATION_BITS).add_(0.5).floor_().clamp_(0, SCALES - 1)
            mean[:, place], index[:, place] = both[: self.channels], both[self.channels :]
        return mean, index


def _plane_of(x: Tensor, size: Size, margin: int) -> Plane:
    """x: (h w, C) activations."""
    plane = Plane(size, x.shape[1], margin)
    plane.put(torch.arange(len(x)), x)
    return plane


def _around_all(planes: list[Plane], positions: Tensor, layer: ExactLayer) -> Tensor:
    """What a layer takes whose input is the channels of several planes."""
    if len(planes) == 1:
        return planes[0].around(positions, layer.taps)
    parts = [plane.around(positions, layer.taps).view(len(positions), len(layer.taps), -1) for plane in planes]
    return torch.cat(parts, dim=2).flatten(1)
