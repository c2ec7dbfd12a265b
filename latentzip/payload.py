"""Latents to bytes and back, for every kind of latent. docs/format.md describes each payload."""

import numpy as np
import torch
from torch import Tensor

from latentzip.container import MAX_QUALITY, PayloadKind
from latentzip.entropy.coder import ESCAPE_LIMIT, SymbolDecoder, SymbolEncoder
from latentzip.errors import FormatError, ModelError
from latentzip.models.autoencoder import KlLatent, Latent, NormalLatent, VqLatent
from latentzip.models.prior import HYPER_STRIDE, coded_index, coded_mean


def rate_of_quality(quality: int) -> Tensor:
    """Quality 1..100 -> rate (1,) in [0, 1]."""
    return torch.tensor([(quality - 1) / (MAX_QUALITY - 1)])


def stages_of_quality(quality: int, stages: int) -> int:
    """Quality 1..100 -> how many of a VQ model's stages to store, at least one."""
    return -(-quality * stages // MAX_QUALITY)


def pack_vq(latent: VqLatent, y: Tensor, quality: int) -> bytes:
    """Kind 1. y: the encoder's latent (1, C, h, w) float32."""
    quantizer = latent.quantizer
    stages = stages_of_quality(quality, quantizer.stages)
    indices = quantizer.search(y, stages)[0].numpy()
    width = _index_bits(latent)
    bits = (indices.reshape(-1, 1) >> np.arange(width - 1, -1, -1)) & 1
    return bytes([stages]) + np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def parse_vq_indices(latent: VqLatent, data: bytes, size: tuple[int, int]) -> Tensor:
    """Kind 1 -> indices (1, S, h, w) int64. size: (h, w). Raises FormatError."""
    quantizer = latent.quantizer
    stages = data[0] if data else 0
    if not 1 <= stages <= quantizer.stages:
        raise FormatError(f"has {stages} stages where the model has {quantizer.stages}: the file is damaged")
    width = _index_bits(latent)
    count = stages * size[0] * size[1]
    if len(data) - 1 != -(-count * width // 8):
        raise FormatError("its latent has another length than its size asks for: the file is damaged")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=1))
    if bits[count * width :].any():
        raise FormatError("has bits set after its last index: the file is damaged")
    indices = bits[: count * width].reshape(-1, width).astype(np.int64) @ (1 << np.arange(width - 1, -1, -1))
    if indices.max() >= quantizer.codebooks.shape[1]:
        raise FormatError("has an index outside the codebook: the file is damaged")
    return torch.from_numpy(indices).view(1, stages, *size)


def _index_bits(latent: VqLatent) -> int:
    return (latent.quantizer.codebooks.shape[1] - 1).bit_length()


def pack_kl(latent: KlLatent, v: Tensor, hyperlatent: Tensor, quality: int) -> bytes:
    """Kind 3. v: (1, C, h, w) in steps (latent times gain); hyperlatent: (1, Ch, ceil(h/4), ceil(w/4)). float32."""
    encoder = SymbolEncoder(latent.scale_table.numpy())

    def code(values: Tensor, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        symbols = torch.round(values.double() - mean).clamp(-ESCAPE_LIMIT, ESCAPE_LIMIT - 1)
        encoder.encode(symbols[:, :, mask].flatten().int().numpy(), index[:, :, mask].flatten().numpy())
        return symbols + mean

    everywhere = torch.ones(hyperlatent.shape[2:], dtype=torch.bool)
    index = coded_index(latent.prior.hyper_index)[None, :, None, None].expand_as(hyperlatent)
    z = code(hyperlatent, torch.zeros(1, dtype=torch.float64), index, everywhere)

    groups = torch.split(v, list(latent.prior.groups), 1)
    targets = iter([group for group in groups for _ in range(2)])
    latent.prior.sweep(
        z,
        (v.shape[2], v.shape[3]),
        lambda mean, index, mask: code(next(targets), coded_mean(mean), coded_index(index), mask),
    )
    return bytes([quality]) + encoder.finish()


def parse_kl(latent: KlLatent, data: bytes, size: tuple[int, int]) -> tuple[Tensor, int]:
    """Kind 3 -> latent in steps (1, C, h, w) float64, the same on every machine, and quality. Raises FormatError."""
    quality = data[0] if data else 0
    if not 1 <= quality <= MAX_QUALITY:
        raise FormatError(f"has quality {quality}, outside 1 to {MAX_QUALITY}: the file is damaged")
    decoder = SymbolDecoder(data[1:], latent.scale_table.numpy())

    def code(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        values = torch.zeros(index.shape, dtype=torch.float64)
        symbols = torch.from_numpy(decoder.decode(index[:, :, mask].flatten().numpy()))
        values[:, :, mask] = symbols.double().view(*index.shape[:2], -1)
        return values + mean

    channels = latent.prior.hyper_index.numel()
    shape = (1, channels, *(-(-side // HYPER_STRIDE) for side in size))
    index = coded_index(latent.prior.hyper_index)[None, :, None, None].expand(shape)
    z = code(torch.zeros(1, dtype=torch.float64), index, torch.ones(shape[2:], dtype=torch.bool))
    v = latent.prior.sweep(z, size, lambda mean, index, mask: code(coded_mean(mean), coded_index(index), mask))
    decoder.finish()
    return v, quality


def pack_half(mode: Tensor) -> bytes:
    """Kind 5. mode: the posterior's (1, C, h, w) float32. Raises FormatError for values beyond half precision."""
    half = mode.half().numpy().astype("<f2")
    if not np.isfinite(half).all():
        raise FormatError("has latents that half precision cannot hold: take another model")
    return half.tobytes()


def parse_half(data: bytes, channels: int, size: tuple[int, int]) -> Tensor:
    """Kind 5 -> latent (1, C, h, w) float32. Raises FormatError."""
    if len(data) != 2 * channels * size[0] * size[1]:
        raise FormatError("its latent has another length than its size asks for: the file is damaged")
    half = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(half).all():
        raise FormatError("has values in its latent that are no numbers: the file is damaged")
    return torch.from_numpy(half).view(1, channels, *size)


def parse_latent(kind: PayloadKind, latent: Latent, data: bytes, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Any kind -> latent (1, C, h, w) float32 and rate (1,) in [0, 1]. Raises FormatError or ModelError."""
    if kind == PayloadKind.VQ_FIXED and isinstance(latent, VqLatent):
        indices = parse_vq_indices(latent, data, size)
        return latent.quantizer.decode(indices), torch.tensor([indices.shape[1] / latent.quantizer.stages])
    if kind == PayloadKind.KL_PRIOR and isinstance(latent, KlLatent):
        v, quality = parse_kl(latent, data, size)
        rate = rate_of_quality(quality)
        return v.float() / latent.gain(rate), rate
    if kind == PayloadKind.KL_HALF and isinstance(latent, NormalLatent):
        return parse_half(data, len(latent.mean), size), torch.ones(1)
    raise ModelError(f"its payload is of kind {kind.name}, which this model cannot decode: the file is damaged")
