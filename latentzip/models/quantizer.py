"""Residual vector quantisation: each stage codes what the earlier ones left over."""

import torch
from torch import Tensor, nn

from latentzip.models.config import AutoencoderConfig

VECTORS_AT_ONCE = 8192  # bounds the memory of their distances to all codes


class ResidualQuantizer(nn.Module):
    """K codebooks of N codes of C values. Nearest code in float32, ties to the lowest index.

    The first `s` stages alone are a coarser quantiser, so a file may be cut after any stage.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(config.stages, config.codebook_size, config.latent_channels))

    @property
    def stages(self) -> int:
        return self.codebooks.shape[0]

    def encode(self, latent: Tensor, stages: int | None = None) -> Tensor:
        """latent (B, C, h, w) -> indices (B, S, h, w) int64, S = stages or all."""
        residual = latent.float().permute(0, 2, 3, 1)
        indices = []
        for book in self.codebooks[: stages or self.stages]:
            index = nearest_code(residual.reshape(-1, residual.shape[-1]), book).view(residual.shape[:-1])
            residual = residual - book[index]
            indices.append(index)
        return torch.stack(indices, dim=1)

    def decode(self, indices: Tensor) -> Tensor:
        """indices (B, S, h, w) int, S <= K -> latent (B, C, h, w): the sum of the stages' codes."""
        codes = [self.codebooks[stage][indices[:, stage]] for stage in range(indices.shape[1])]
        return torch.stack(codes).sum(0).permute(0, 3, 1, 2).contiguous()


def nearest_code(vectors: Tensor, codebook: Tensor) -> Tensor:
    """vectors (P, C), codebook (N, C) -> index (P,) of the code at least squared distance."""
    codebook = codebook.float()
    norms = codebook.square().sum(1)
    with torch.autocast(vectors.device.type, enabled=False):  # in bfloat16 another code may seem the nearest
        parts = vectors.float().split(VECTORS_AT_ONCE)  # type: ignore[no-untyped-call]
        return torch.cat([(norms - 2 * part @ codebook.T).argmin(1) for part in parts])
