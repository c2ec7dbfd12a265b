"""Kinds 4 and 5: KL latents without a learned prior, quantised and adaptively coded, or in half precision."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentzip.container import PayloadKind
from latentzip.entropy.adaptive import decode_planes, encode_planes
from latentzip.entropy.coder import ESCAPE_LIMIT
from latentzip.errors import FormatError
from latentzip.models.autoencoder import NormalLatent
from latentzip.models.finite import check_finite
from latentzip.payload.scans import Parsed, Payload, check_scans


def pack_adaptive(latent: NormalLatent, mode: Tensor, level: int) -> Payload:
    """Kind 4. mode: the posterior's (1, C, h, w) float32."""
    steps = torch.round((mode - latent.mean[:, None, None]) / _step(latent, level))
    check_finite(steps, "the latent space, by its means and deviations,")
    steps = steps.clamp(-ESCAPE_LIMIT // 2, ESCAPE_LIMIT // 2 - 1).long()
    scan = bytes([1, level]) + encode_planes(steps[0].numpy())
    return Payload(PayloadKind.KL_ADAPTIVE, [scan], steps)


def parse_adaptive(latent: NormalLatent, scans: Sequence[bytes], size: tuple[int, int]) -> Parsed:
    check_scans(scans, 1, partial=False)
    level = scans[0][1]
    steps = torch.from_numpy(decode_planes(scans[0][2:], (latent.channels, *size)))[None]
    step, mean = _step(latent, level), latent.mean[:, None, None]
    return Parsed(steps, lambda steps: steps * step + mean, torch.ones(1, dtype=torch.float32), level, (1, 1))


def _step(latent: NormalLatent, level: int) -> Tensor:
    """Quantisation step (C, 1, 1) of a level 0..255: from 4 deviations of a channel's latents down to 1/64 of one."""
    deviations: Tensor = latent.std[:, None, None] * 2.0 ** (2 - level / 32)
    return deviations


def pack_half(mode: Tensor) -> Payload:
    """Kind 5. mode: the posterior's (1, C, h, w) float32. Raises FormatError for values beyond half precision.

    The high bytes of all values, which are much alike, then the low ones, deflated.
    """
    half = mode.half().contiguous()
    if not torch.isfinite(half).all():
        raise FormatError("has latents that half precision cannot hold: leave --coding fp16 out, or take another model")
    low_and_high = half.numpy().astype("<f2").view(np.uint8).reshape(-1, 2)
    scan = zlib.compress(low_and_high.T[::-1].tobytes(), 9)
    return Payload(PayloadKind.KL_HALF, [scan], half.float())


def parse_half(scans: Sequence[bytes], channels: int, size: tuple[int, int]) -> Parsed:
    wanted = 2 * channels * size[0] * size[1]
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(scans[0], wanted)
    except zlib.error as error:
        raise FormatError(f"its latent cannot be inflated ({error}): the file is damaged") from None
    if len(scans) != 1 or len(data) != wanted or not inflate.eof or inflate.unused_data:
        raise FormatError("its latent has another length than its size asks for: the file is damaged")
    low_and_high = np.frombuffer(data, np.uint8).reshape(2, -1)[::-1].T
    half = np.ascontiguousarray(low_and_high).view("<f2").astype(np.float32)
    if not np.isfinite(half).all():
        raise FormatError("has values in its latent that are no numbers: the file is damaged")
    latent = torch.from_numpy(half).view(1, channels, *size)
    return Parsed(latent, lambda latent: latent, torch.ones(1, dtype=torch.float32), 0, (1, 1))
