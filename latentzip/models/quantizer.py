"""Residual vector quantisation: each stage codes what the earlier ones left over."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.models.bands import KINDS, from_bands, kinds, to_bands
from latentzip.tiling import Size

NO_CODE = -1  # an index that stands for the zero vector, where codes do not end
VECTORS_AT_ONCE = 8192  # bounds the memory of their distances to all codes
PATHS_AT_ONCE = 512  # in a search, where those distances are read again and should stay in the caches
# How many choices of codes `search` keeps after each stage. On vq-f16's latents 4 leave 6 to 10 % less squared error
# than one, for the same bits (0.2 to 0.3 dB in the picture).
BEAM = 4
EFFORT_BEAMS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 128)  # by effort 0..9
END = 0  # the code after which a position has no further stage


class ResidualQuantizer(nn.Module):
    """K codebooks of N codes of C values. Nearest code in float32, ties to the lowest index.

    The first `s` stages alone are a coarser quantiser, so a file may be cut after any stage. With `ends`, a position
    takes as many stages as are worth their bits: code END of every stage is the zero vector, and so is what follows;
    and what is coded are the bands of the latent (`models.bands`).
    """

    def __init__(self, stages: int, codes: int, channels: int, *, ends: bool = False) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(stages, codes, channels))
        self.ends = ends
        if ends:
            # what a choice of code costs, by what stands at its position, without its surroundings (KINDS, stages,
            # codes): what the search goes by
            self.code_bits: Tensor
            self.register_buffer("code_bits", torch.full((KINDS, stages, codes), math.log2(codes)))
            with torch.no_grad():
                self.codebooks[:, END] = 0

    @property
    def stages(self) -> int:
        return self.codebooks.shape[0]

    @torch.no_grad()
    def search(
        self, latent: Tensor, stages: int | None = None, beam: int = BEAM, price: Tensor | None = None
    ) -> Tensor:
        """latent (B, C, h, w) -> indices (B, S, h, w) int64, S = stages or all, chosen together.

        The best of `beam` continued choices; with one it is the nearest code of each stage. Multi-path encoding of
        residual quantisers (Ai et al. 2015, doi 10.1016/j.neucom.2014.10.064). price: (B,), the squared error that a
        bit is worth, where there are ends (entropy-constrained quantisation: Chou et al. 1989, doi 10.1109/29.17498).
        """
        batch, _, height, width = latent.shape
        books = self.codebooks[:stages].float()
        norms, products = books.square().sum(2), -2 * books.transpose(1, 2).contiguous()
        vectors = self.vectors(latent).flatten(0, 1)
        found = torch.empty(len(vectors), len(books), dtype=torch.int64, device=latent.device)
        with torch.autocast(latent.device.type, enabled=False):  # in bfloat16 another code may seem the nearest
            for places, worth in self._alike(batch, (height, width), price):
                for some in torch.split(places, -(-PATHS_AT_ONCE // beam)):
                    found[some] = _best_path(vectors[some], books, norms, products, worth, beam)
        return found.view(batch, height, width, len(books)).permute(0, 3, 1, 2).contiguous()

    def vectors(self, latent: Tensor) -> Tensor:
        """What codes stand for, position by position: (B, C, h, w) -> (B, h w, C)."""
        return (to_bands(latent.float()) if self.ends else latent.float()).flatten(2).transpose(1, 2)

    def _alike(self, batch: int, size: Size, price: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Positions (n,), counted through all pictures, where bits are worth the same, and what they are (K, N)."""
        device = self.codebooks.device
        if price is None:
            yield torch.arange(batch * size[0] * size[1], device=device), None
            return
        kind = kinds(*size, device).flatten().repeat(batch)
        prices = price.repeat_interleave(size[0] * size[1])
        for value in torch.unique(price):
            for number, code_bits in enumerate(self.code_bits):
                yield ((prices == value) & (kind == number)).nonzero()[:, 0], value * code_bits

    def decode(self, indices: Tensor) -> Tensor:
        """indices (B, S, h, w) int, S <= K -> latent (B, C, h, w), from the sum of the stages' codes; NO_CODE is none.

        With ends, of whole blocks (`models.bands`).
        """
        books = F.pad(self.codebooks, (0, 0, 0, 1))  # index -1 is the last row
        total = books[0][indices[:, 0]]
        for stage in range(1, indices.shape[1]):
            total = total + books[stage][indices[:, stage]]
        latent = total.permute(0, 3, 1, 2).contiguous()
        return from_bands(latent) if self.ends else latent


def nearest_code(vectors: Tensor, codebook: Tensor) -> Tensor:
    """vectors (P, C), codebook (N, C) -> index (P,) of the code at least squared distance."""
    codebook = codebook.float()
    norms = codebook.square().sum(1)
    parts = vectors.float().split(VECTORS_AT_ONCE)  # type: ignore[no-untyped-call]
    return torch.cat([(norms - 2 * part @ codebook.T).argmin(1) for part in parts])


def _best_path(
    vectors: Tensor, books: Tensor, norms: Tensor, products: Tensor, worth: Tensor | None, beam: int
) -> Tensor:
    """vectors (P, C) -> indices (P, S).

    codebooks (S, N, C); their squared norms (S, N); -2 times them (S, C, N); where there are ends, what the bits of
    each code are worth (S, N).
    """
    residual = vectors[:, None]  # (P, W, C) of the W choices that are kept
    cost = residual.square().sum(2)  # squared error, and bits at their price
    chosen = torch.zeros(len(vectors), 1, 0, dtype=torch.int64, device=vectors.device)
    best = torch.full((len(vectors), len(books)), END, device=vectors.device)
    ended = torch.full_like(cost[:, 0], math.inf)  # cost of the best choice that has ended
    going_on = torch.arange(len(vectors), device=vectors.device)
    for stage, (book, norm, product) in enumerate(zip(books, norms, products, strict=True)):
        if worth is not None:
            of_codes = worth[stage]
            _end(best, ended, going_on, chosen, cost[:, 0] + of_codes[END])
            # at best another code leaves no error at all: where even that is dearer than to end, the search is over
            least = (cost - residual.square().sum(2)).amin(1) + of_codes[END + 1 :].min()
            keep = (least < ended[going_on]).nonzero()[:, 0]
            if not len(keep):
                return best
            residual, cost, chosen, going_on = residual[keep], cost[keep], chosen[keep], going_on[keep]
            norm = (norm + of_codes).index_fill(0, going_on.new_tensor([END]), math.inf)
        more = torch.addmm(norm, residual.flatten(0, 1), product).view(*cost.shape, -1)
        nearest, codes = _smallest(more, min(beam, len(book) - (worth is not None)))
        nearest = nearest + cost[..., None]
        cost, place = nearest.flatten(1).topk(min(beam, nearest.shape[1] * nearest.shape[2]), dim=1, largest=False)
        parent, code = place // nearest.shape[2], codes.flatten(1).gather(1, place)
        residual = _rows(residual, parent) - book[code]
        chosen = torch.cat([_rows(chosen, parent), code[..., None]], dim=2)
    _end(best, ended, going_on, chosen, cost[:, 0])
    return best


def _end(best: Tensor, ended: Tensor, places: Tensor, chosen: Tensor, cost: Tensor) -> None:
    """Take note, in `best` (P, S) and `ended` (P,), of the places (p,) whose first choice may best end here.

    chosen: (p, W, s); cost: (p,).
    """
    better = cost < ended[places]
    here = places[better]
    ended[here] = cost[better]
    best[here] = F.pad(chosen[better, 0], (0, best.shape[1] - chosen.shape[2]), value=END)


def _smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest of values (P, W, N), and where they are, (P, W, count) each.

    They lie in those runs of 64 that have the `count` smallest minima, which are found much faster.
    """
    run = 64
    if values.shape[2] % run or values.shape[2] <= count * run:
        return values.topk(count, dim=2, largest=False)
    runs = values.view(*values.shape[:2], -1, run)
    which = runs.amin(3).topk(count, dim=2, largest=False).indices
    found = runs.gather(2, which[..., None].expand(-1, -1, -1, run)).flatten(2).topk(count, dim=2, largest=False)
    return found.values, which.gather(2, found.indices // run) * run + found.indices % run


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values (P, W, D), index (P, V) -> (P, V, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
