"""Codebooks that follow the latents: k-means at the start, moving averages during training, restart of dead codes."""

import torch
from torch import Tensor

from latentzip.models.bands import KINDS, kinds
from latentzip.models.index_prior import tree_order
from latentzip.models.quantizer import END, ResidualQuantizer, nearest_code
from latentzip.training.parallel import World

START_WEIGHT = 0.05  # of the first codes, in vectors a step: soon outweighed by data
DEAD_BELOW = 0.02  # times the average use of a code
# of the choices that ends bring: passes over the latents, vectors of a batch, all at one price, and their memory
START_EPOCHS, START_BATCH, START_DECAY = 12, 8192, 0.95


def k_means(vectors: Tensor, codes: int, iterations: int = 8) -> Tensor:
    """vectors (P, C) -> centroids (codes, C)."""
    centroids = vectors[torch.randperm(len(vectors))[:codes]].clone()
    for _ in range(iterations):
        index = nearest_code(vectors, centroids)
        counts = torch.bincount(index, minlength=codes)
        sums = torch.zeros_like(centroids).index_add_(0, index, vectors)
        fresh = vectors[torch.randint(len(vectors), (codes,))]
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], fresh)
    return centroids


@torch.no_grad()
def start_codebooks(quantizer: ResidualQuantizer, latents: Tensor, prices: Tensor) -> None:
    """Set every stage by k-means on what the stages before it leave of `latents` (B, C, h, w).

    Where positions end, the later stages are for those with much left; then all follow the choices that `search` makes
    at each of the `prices`.
    """
    residual = quantizer.vectors(latents).flatten(0, 1)
    for book in quantizer.codebooks:
        book.copy_(k_means(residual, len(book)))
        residual = residual - book[nearest_code(residual, book)]
        if quantizer.ends:
            book[END] = 0
            error = residual.square().sum(1)
            residual = residual[error.argsort(descending=True)[: max(len(residual) * 3 // 4, 8 * len(book))]]
    if quantizer.ends:
        averages = CodebookAverages(quantizer, START_DECAY)
        for _ in range(START_EPOCHS):
            at_once = max(1, START_BATCH // latents[0, 0].numel())
            for number, batch in enumerate(latents[torch.randperm(len(latents))].split(at_once)):  # type: ignore[no-untyped-call]
                price = prices[number % len(prices)].expand(len(batch))
                averages.update(batch, quantizer.search(batch, beam=1, price=price))


@torch.no_grad()
def order_codebooks(quantizer: ResidualQuantizer, leaf: int) -> None:
    """Put codes that lie close together next to each other, `leaf` in a row, as the prior of indices wants them.

    Code END stays where it is.
    """
    for stage, book in enumerate(quantizer.codebooks):
        order = tree_order(book, leaf)
        if quantizer.ends:
            order = torch.cat([order.new_tensor([END]), order[order != END]])
            quantizer.code_bits[:, stage] = quantizer.code_bits[:, stage, order]
        book.copy_(book[order])


class CodebookAverages:
    """Exponential moving averages of each code's use and sum (van den Oord et al. 2017, arXiv 1711.00937, appendix).

    A code that is hardly used is put on a latent of the batch: the cure for dead codes.
    """

    def __init__(self, quantizer: ResidualQuantizer, decay: float, world: World | None = None) -> None:
        self.world = world or World()
        self.quantizer = quantizer
        self.decay = decay
        stages, codes, _ = quantizer.codebooks.shape
        # by what stands at a position, if that makes a difference
        self.counts = torch.full((1, stages, codes), START_WEIGHT, device=quantizer.codebooks.device)
        if quantizer.ends:
            self.counts = START_WEIGHT / KINDS * codes * torch.exp2(-quantizer.code_bits)
        self.sums = quantizer.codebooks.detach() * self.counts.sum(0)[..., None]
        self.used = torch.zeros(stages, codes, dtype=torch.bool, device=self.counts.device)

    @torch.no_grad()
    def update(self, latent: Tensor, indices: Tensor) -> None:
        """latent (B, C, h, w) and the indices (B, K, h, w) chosen for it."""
        residual = self.quantizer.vectors(latent).flatten(0, 1)
        chosen = indices.flatten(2).transpose(1, 2).flatten(0, 1)
        number, codes = len(self.counts), self.counts.shape[2]
        kind = torch.zeros_like(indices[0, 0])
        if self.quantizer.ends:
            kind = kinds(indices.shape[2], indices.shape[3], indices.device)
        kind = kind.flatten().repeat(len(indices))
        for stage, book in enumerate(self.quantizer.codebooks):
            index = chosen[:, stage]
            count = torch.bincount(kind * codes + index, minlength=number * codes).view(number, codes).float()
            count = self.world.sum(count)
            sums = self.world.sum(torch.zeros_like(book).index_add_(0, index, residual))
            self.counts[:, stage].lerp_(count, 1 - self.decay)
            self.sums[stage].lerp_(sums, 1 - self.decay)
            self.used[stage] |= count.sum(0) > 0
            before, residual = residual, residual - book[index]
            dead = self.counts[:, stage].sum(0) < DEAD_BELOW * count.sum() / codes
            if self.quantizer.ends:
                dead[END] = False
                count[:, END], before = 0, before[index != END]  # what ends needs no other code
            if dead.any():
                self._restart(stage, dead, before, count.sum(1))
            book.copy_(self.sums[stage] / self.counts[:, stage].sum(0).clamp_min(1e-5)[:, None])
            if self.quantizer.ends:
                book[END] = 0
                likely = self.counts[:, stage] + 1e-3
                self.quantizer.code_bits[:, stage] = -(likely / likely.sum(1, keepdim=True)).log2()
                going_on = index != END
                residual, chosen, kind = residual[going_on], chosen[going_on], kind[going_on]

    def _restart(self, stage: int, dead: Tensor, residual: Tensor, number: Tensor) -> None:
        """Dead codes become random vectors of this batch, with an average code's weight of the `number` vectors.

        number: (kinds,).
        """
        if not len(residual):  # of this process
            residual = residual.new_zeros(1, residual.shape[1])
        places = dead.nonzero()[:, 0]
        weight = number / len(dead)
        chosen = residual[torch.randint(len(residual), (len(places),), device=residual.device)]
        self.sums[stage, places] = self.world.from_first(chosen) * weight.sum()
        self.counts[:, stage, places] = weight[:, None].expand(-1, len(places))

    def take_usage(self) -> list[float]:
        """Share of codes used since the last call, by stage."""
        share: list[float] = self.used.float().mean(1).tolist()
        self.used.zero_()
        return share

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
