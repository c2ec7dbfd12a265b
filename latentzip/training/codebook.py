"""Codebooks that follow the latents: k-means at the start, moving averages during training, restart of dead codes."""

import torch
from torch import Tensor

from latentzip.models.index_prior import tree_order
from latentzip.models.quantizer import ResidualQuantizer, nearest_code
from latentzip.training.parallel import World

START_WEIGHT = 0.05  # of the first codes, in vectors a step: soon outweighed by data
DEAD_BELOW = 0.02  # times the average use of a code


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
def start_codebooks(quantizer: ResidualQuantizer, latents: Tensor) -> None:
    """Set every stage by k-means on what the stages before it leave of `latents` (P, C)."""
    residual = latents.float()
    for book in quantizer.codebooks:
        book.copy_(k_means(residual, len(book)))
        residual = residual - book[nearest_code(residual, book)]


@torch.no_grad()
def order_codebooks(quantizer: ResidualQuantizer, leaf: int) -> None:
    """Put codes that lie close together next to each other, `leaf` in a row, as the prior of indices wants them."""
    for book in quantizer.codebooks:
        book.copy_(book[tree_order(book, leaf)])


class CodebookAverages:
    """Exponential moving averages of each code's use and sum (van den Oord et al. 2017, arXiv 1711.00937, appendix).

    A code that is hardly used is put on a latent of the batch: the cure for dead codes.
    """

    def __init__(self, quantizer: ResidualQuantizer, decay: float, world: World | None = None) -> None:
        self.world = world or World()
        self.quantizer = quantizer
        self.decay = decay
        stages, codes, _ = quantizer.codebooks.shape
        self.counts = torch.full((stages, codes), START_WEIGHT, device=quantizer.codebooks.device)
        self.sums = quantizer.codebooks.detach() * START_WEIGHT
        self.used = torch.zeros(stages, codes, dtype=torch.bool, device=self.counts.device)

    @torch.no_grad()
    def update(self, latent: Tensor, indices: Tensor) -> None:
        """latent (B, C, h, w) and the indices (B, K, h, w) chosen for it."""
        residual = latent.float().permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
        for stage, book in enumerate(self.quantizer.codebooks):
            index = indices[:, stage].reshape(-1)
            count = torch.bincount(index, minlength=len(book)).float()
            count = self.world.sum(count)
            sums = self.world.sum(torch.zeros_like(book).index_add_(0, index, residual))
            self.counts[stage].lerp_(count, 1 - self.decay)
            self.sums[stage].lerp_(sums, 1 - self.decay)
            self.used[stage] |= count > 0
            dead = self.counts[stage] < DEAD_BELOW * len(index) * self.world.size / len(book)
            if dead.any():
                self._restart(stage, dead, residual)
            old = book[index]
            book.copy_(self.sums[stage] / self.counts[stage].clamp_min(1e-5)[:, None])
            residual = residual - old

    def _restart(self, stage: int, dead: Tensor, residual: Tensor) -> None:
        """Dead codes become random vectors of this batch, with an average code's weight."""
        places = dead.nonzero()[:, 0]
        weight = len(residual) * self.world.size / len(dead)
        chosen = residual[torch.randint(len(residual), (len(places),), device=residual.device)]
        self.sums[stage, places] = self.world.from_first(chosen) * weight
        self.counts[stage, places] = weight

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
