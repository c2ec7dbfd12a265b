"""Latents to bytes and back, for every kind of latent. docs/format.md describes each payload.

A payload has parts, the most important first: a VQ model's stages, or the channel groups of a KL prior. Each makes the
picture better, and the first alone is enough for one. Every part is a scan of its own, or, where that would not pay,
all of them are one scan.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentzip.container import MAX_LEVEL, MAX_QUALITY, PayloadKind
from latentzip.entropy.adaptive import decode_planes, encode_planes
from latentzip.entropy.coder import ESCAPE_LIMIT, SymbolDecoder, SymbolEncoder
from latentzip.errors import FormatError, ModelError
from latentzip.models.autoencoder import KlLatent, Latent, NormalLatent, VqLatent
from latentzip.models.prior import HYPER_STRIDE, coded_index, coded_mean

SPLIT_FROM = 8192  # bytes; a scan more costs 8 to 16 of them
# Values with this scale index are what the prior expects, and are not coded: a deviation of 0.11 steps makes any other
# symbol a matter of one in 100,000, and with kl-f16 a quarter to two fifths of all values are such.
CERTAIN = 0


@dataclass(frozen=True)
class Payload:
    """scans: bytes, the most important first; symbols: what they stand for, as `parse_payload` gives it."""

    kind: PayloadKind
    scans: list[bytes]
    symbols: Tensor


@dataclass(frozen=True)
class Parsed:
    """symbols: VQ indices (1, S, h, w) int64, KL values in steps (1, C, h, w) float64 or int64, or the latent itself.

    latent, rate: what the decoder takes, (1, C, h, w) float32 and (1,) in [0, 1]. parts: how many of the payload's
    parts are in them, of how many in all.
    """

    symbols: Tensor
    latent: Tensor
    rate: Tensor
    parts: tuple[int, int]


def level_of_quality(quality: int) -> int:
    """Quality 1..100 -> level of a KL payload, 0..255."""
    return round((quality - 1) / (MAX_QUALITY - 1) * MAX_LEVEL)


def rate_of_level(level: int) -> Tensor:
    """Level 0..255 -> rate (1,) in [0, 1]."""
    return torch.tensor([level / MAX_LEVEL])


def stages_of_quality(quality: int, stages: int) -> int:
    """Quality 1..100 -> how many of a VQ model's stages to store, at least one."""
    return -(-quality * stages // MAX_QUALITY)


def parse_payload(
    kind: PayloadKind,
    latent: Latent,
    scans: Sequence[bytes],
    size: tuple[int, int],
    *,
    partial: bool = False,
    most_parts: int | None = None,
) -> Parsed:
    """Scans of any kind -> symbols. size: (h, w) of the latent. Raises FormatError or ModelError.

    Scans may be missing at the end where `partial` is set. Of more parts than `most_parts` the rest is passed over.
    """
    if not scans:
        raise FormatError("has no whole scan: nothing of the picture has arrived")
    if kind == PayloadKind.VQ_FIXED and isinstance(latent, VqLatent):
        return _parse_vq(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.KL_PRIOR and isinstance(latent, KlLatent):
        return _parse_kl(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.KL_ADAPTIVE and isinstance(latent, NormalLatent):
        return _parse_adaptive(latent, scans, size)
    if kind == PayloadKind.KL_HALF and isinstance(latent, NormalLatent | KlLatent):
        return _parse_half(scans, latent.channels, size)
    raise ModelError(f"its payload is of kind {kind.name}, which this model cannot decode: the file is damaged")


def _check_scans(scans: Sequence[bytes], parts: int, partial: bool) -> int:
    """How many scans there should be, by the first byte of the first: one, or one for each part."""
    if len(scans[0]) < 2 or scans[0][0] not in (1, parts):
        raise FormatError("the head of its payload is not valid: the file is damaged")
    wanted = scans[0][0]
    if len(scans) > wanted or (len(scans) < wanted and not partial):
        raise FormatError(f"has {len(scans)} scans where {wanted} are needed: the file is damaged")
    return wanted


def pack_vq(latent: VqLatent, y: Tensor, stages: int) -> Payload:
    """Kind 1. y: the encoder's latent (1, C, h, w) float32."""
    indices = latent.quantizer.search(y, stages)
    width = _index_bits(latent)
    bits = (indices[0].numpy().reshape(stages, -1, 1) >> np.arange(width - 1, -1, -1)) & 1
    parts = [np.packbits(stage.astype(np.uint8).reshape(-1)).tobytes() for stage in bits]
    if sum(map(len, parts)) < SPLIT_FROM:
        parts = [b"".join(parts)]
    parts[0] = bytes([len(parts), stages]) + parts[0]
    return Payload(PayloadKind.VQ_FIXED, parts, indices)


def _parse_vq(
    latent: VqLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    stages = scans[0][1] if len(scans[0]) > 1 else 0
    if not 1 <= stages <= latent.quantizer.stages:
        raise FormatError(f"has {stages} stages where the model has {latent.quantizer.stages}: the file is damaged")
    wanted = _check_scans(scans, stages, partial)
    width, count = _index_bits(latent), size[0] * size[1]
    part_bytes = -(-count * width // 8)
    data = b"".join((scans[0][2:], *scans[1:]))
    here = stages if wanted == 1 else len(scans)
    if len(data) != here * part_bytes or any(len(scan) != part_bytes for scan in scans[1:]):
        raise FormatError("its latent has another length than its size asks for: the file is damaged")
    here = min(here, most_parts or here)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 8 * part_bytes)[:here]
    if bits[:, count * width :].any():
        raise FormatError("has bits set after its last index: the file is damaged")
    indices = bits[:, : count * width].reshape(here, -1, width).astype(np.int64) @ (1 << np.arange(width - 1, -1, -1))
    if indices.max() >= latent.quantizer.codebooks.shape[1]:
        raise FormatError("has an index outside the codebook: the file is damaged")
    symbols = torch.from_numpy(indices).view(1, here, *size)
    rate = torch.tensor([here / latent.quantizer.stages])
    return Parsed(symbols, latent.quantizer.decode(symbols), rate, (here, stages))


def _index_bits(latent: VqLatent) -> int:
    return (latent.quantizer.codebooks.shape[1] - 1).bit_length()


def pack_kl(latent: KlLatent, v: Tensor, hyperlatent: Tensor, level: int) -> Payload:
    """Kind 3. v: (1, C, h, w) in steps (latent times gain); hyperlatent: (1, Ch, ceil(h/4), ceil(w/4)). float32."""
    groups = torch.split(v, list(latent.prior.groups), 1)
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in groups]  # (symbols, scale indices), flat

    def code(part: int, values: Tensor, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        symbols = torch.round(values.double() - mean).clamp(-ESCAPE_LIMIT, ESCAPE_LIMIT - 1)
        symbols = torch.where(index > CERTAIN, symbols, 0.0)
        coded = mask & (index > CERTAIN)
        parts[part].append((symbols[coded], index[coded]))
        return symbols + mean

    everywhere = torch.ones(hyperlatent.shape[2:], dtype=torch.bool)
    index = coded_index(latent.prior.hyper_index)[None, :, None, None].expand_as(hyperlatent)
    z = code(0, hyperlatent, torch.zeros(1, dtype=torch.float64), index, everywhere)
    passes = iter([(part, group) for part, group in enumerate(groups) for _ in range(2)])

    def code_pass(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        part, group = next(passes)
        return code(part, group, coded_mean(mean), coded_index(index), mask)

    coded = latent.prior.sweep(z, (v.shape[2], v.shape[3]), code_pass)
    scans = [_range_coded(latent, [step for part in parts for step in part])]
    if len(scans[0]) >= SPLIT_FROM:
        scans = [_range_coded(latent, part) for part in parts]
    scans[0] = bytes([len(scans), level]) + scans[0]
    return Payload(PayloadKind.KL_PRIOR, scans, coded)


def _range_coded(latent: KlLatent, steps: list[tuple[Tensor, Tensor]]) -> bytes:
    encoder = SymbolEncoder(latent.scale_table.numpy())
    for symbols, index in steps:
        encoder.encode(symbols.int().numpy(), index.numpy())
    return encoder.finish()


def _parse_kl(
    latent: KlLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    """Values in steps, the same on every machine. What is not there is what the prior expects."""
    groups = len(latent.prior.groups)
    wanted = _check_scans(scans, groups, partial)
    decoders = [SymbolDecoder(data, latent.scale_table.numpy()) for data in (scans[0][2:], *scans[1:])]
    here = min(groups if wanted == 1 else len(scans), most_parts or groups)

    def code(decoder: SymbolDecoder, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        symbols = torch.zeros(index.shape, dtype=torch.float64)
        coded = mask & (index > CERTAIN)
        symbols[coded] = torch.from_numpy(decoder.decode(index[coded].numpy())).double()
        return symbols + mean

    channels = latent.prior.hyper_index.numel()
    shape = (1, channels, *(-(-side // HYPER_STRIDE) for side in size))
    index = coded_index(latent.prior.hyper_index)[None, :, None, None].expand(shape)
    z = code(decoders[0], torch.zeros(1, dtype=torch.float64), index, torch.ones(shape[2:], dtype=torch.bool))
    passes = iter([part for part in range(groups) for _ in range(2)])

    def code_pass(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        part = next(passes)
        if part >= here:
            return coded_mean(mean)
        return code(decoders[0 if wanted == 1 else part], coded_mean(mean), coded_index(index), mask)

    v = latent.prior.sweep(z, size, code_pass)
    for decoder in decoders[:here] if here == groups or wanted > 1 else []:
        decoder.finish()
    rate = rate_of_level(scans[0][1])
    return Parsed(v, v.float() / latent.gain(rate), rate, (here, groups))


def pack_adaptive(latent: NormalLatent, mode: Tensor, level: int) -> Payload:
    """Kind 4. mode: the posterior's (1, C, h, w) float32."""
    steps = torch.round((mode - latent.mean[:, None, None]) / _step(latent, level))
    steps = steps.clamp(-ESCAPE_LIMIT // 2, ESCAPE_LIMIT // 2 - 1).long()
    scan = bytes([1, level]) + encode_planes(steps[0].numpy())
    return Payload(PayloadKind.KL_ADAPTIVE, [scan], steps)


def _parse_adaptive(latent: NormalLatent, scans: Sequence[bytes], size: tuple[int, int]) -> Parsed:
    _check_scans(scans, 1, partial=False)
    level = scans[0][1]
    steps = torch.from_numpy(decode_planes(scans[0][2:], (latent.channels, *size)))[None]
    return Parsed(steps, steps * _step(latent, level) + latent.mean[:, None, None], torch.ones(1), (1, 1))


def _step(latent: NormalLatent, level: int) -> Tensor:
    """Quantisation step (C, 1, 1) of a level 0..255: from 4 deviations of a channel's latents down to 1/64 of one."""
    deviations: Tensor = latent.std[:, None, None] * 2.0 ** (2 - level / 32)
    return deviations


def pack_half(mode: Tensor) -> Payload:
    """Kind 5. mode: the posterior's (1, C, h, w) float32. Raises FormatError for values beyond half precision.

    The high bytes of all values, which are much alike, then the low ones, deflated.
    """
    half = mode.half()
    if not torch.isfinite(half).all():
        raise FormatError("has latents that half precision cannot hold: take another model")
    low_and_high = half.numpy().astype("<f2").view(np.uint8).reshape(-1, 2)
    scan = zlib.compress(low_and_high.T[::-1].tobytes(), 9)
    return Payload(PayloadKind.KL_HALF, [scan], half.float())


def _parse_half(scans: Sequence[bytes], channels: int, size: tuple[int, int]) -> Parsed:
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
    return Parsed(latent, latent, torch.ones(1), (1, 1))
