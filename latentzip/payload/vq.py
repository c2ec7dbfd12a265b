"""Kinds 1, 2 and 6: indices of a VQ model's stages, at fixed length, with a learned prior, or by counting."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentzip.container import PayloadKind
from latentzip.entropy.coder import DigitDecoder, DigitEncoder
from latentzip.entropy.counts import MOST_CODES, decode_counted, encode_counted
from latentzip.errors import FormatError
from latentzip.models.autoencoder import VqLatent
from latentzip.models.exact_index_prior import ExactIndexPrior
from latentzip.models.quantizer import END, NO_CODE
from latentzip.payload.scans import Parsed, Payload, check_scans, join_or_split, rate_of_level

_COUNTED_HEAD = 4  # bytes of a counted stage's length


def pack_vq(latent: VqLatent, y: Tensor, level: int, beam: int, *, split: bool = False) -> list[Payload]:
    """Kind 2 where the model has a prior of indices, else 1 and, if it can be, 6. split: see `join_or_split`.

    y: the encoder's latent (1, C, h, w) float32; level: 0..255, or without a prior the number of stages.
    """
    if latent.prior is not None:
        price = latent.bit_price(rate_of_level(level))
        return [_pack_vq_prior(latent.exact, latent.quantizer.search(y, beam=beam, price=price), level, split)]
    stages = level
    indices = latent.quantizer.search(y, stages, beam)

    def payload(kind: PayloadKind, parts: list[bytes]) -> Payload:
        return Payload(kind, join_or_split(lambda: b"".join(parts), lambda: list(parts), stages, split=split), indices)

    rows = indices[0].flatten(1).numpy()
    width = _index_bits(latent)
    bits = (rows[..., None] >> np.arange(width - 1, -1, -1)) & 1
    payloads = [
        payload(PayloadKind.VQ_FIXED, [np.packbits(part.astype(np.uint8).reshape(-1)).tobytes() for part in bits])
    ]
    codes = latent.quantizer.codebooks.shape[1]
    if 2 <= codes <= MOST_CODES:
        counted = [encode_counted(stage, codes) for stage in rows]
        counted = [len(part).to_bytes(_COUNTED_HEAD, "little") + part for part in counted]
        payloads.append(payload(PayloadKind.VQ_COUNTED, counted))
    return payloads


def parse_vq_fixed(
    latent: VqLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    stages = _stages_in(latent, scans)
    wanted = check_scans(scans, stages, partial)
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
    return _parsed(latent, torch.from_numpy(indices).view(1, here, *size), stages)


def parse_vq_counted(
    latent: VqLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    stages = _stages_in(latent, scans)
    wanted = check_scans(scans, stages, partial)
    codes = latent.quantizer.codebooks.shape[1]
    if not 2 <= codes <= MOST_CODES:
        raise FormatError(f"counts its codes, of which there are {codes}: the file is damaged")
    here = stages if wanted == 1 else len(scans)
    data = b"".join((scans[0][2:], *scans[1:]))
    rows = []
    for _ in range(here):
        length = int.from_bytes(data[:_COUNTED_HEAD], "little")
        rest = data[_COUNTED_HEAD:]
        part, data = rest[:length], rest[length:]
        if len(part) < length or not part:
            raise FormatError("ends within a stage: the file is damaged")
        rows.append(part)
    if data:
        raise FormatError("has more in its payload than its stages: the file is damaged")
    rows = rows[: most_parts or here]
    indices = np.stack([decode_counted(row, size[0] * size[1], codes) for row in rows])
    return _parsed(latent, torch.from_numpy(indices).view(1, len(rows), *size), stages)


def _parsed(latent: VqLatent, symbols: Tensor, stages: int) -> Parsed:
    """symbols (1, S, h, w) of the first S of the file's stages."""
    here = symbols.shape[1]
    rate = torch.tensor([here / latent.quantizer.stages], dtype=torch.float32)
    return Parsed(symbols, latent.quantizer.decode, rate, stages, (here, stages), nothing=NO_CODE)


def _stages_in(latent: VqLatent, scans: Sequence[bytes]) -> int:
    stages = scans[0][1] if len(scans[0]) > 1 else 0
    if not 1 <= stages <= latent.quantizer.stages:
        raise FormatError(f"has {stages} stages where the model has {latent.quantizer.stages}: the file is damaged")
    return stages


def _index_bits(latent: VqLatent) -> int:
    return (latent.quantizer.codebooks.shape[1] - 1).bit_length()


def _pack_vq_prior(prior: ExactIndexPrior, indices: Tensor, level: int, split: bool) -> Payload:
    _, stages, height, width = indices.shape
    digits = torch.stack([indices[0] // prior.members, indices[0] % prior.members]).flatten(2)  # (2, K, h w)
    steps: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(_parts(stages))]

    def code(stage: int, digit: int, positions: Tensor, counts: Tensor) -> Tensor:
        here = digits[digit, stage, positions]
        steps[_part(stage)].append((here, counts))
        return here

    prior.sweep(rate_of_level(level).item(), stages, (height, width), code)

    def range_coded(steps: list[tuple[Tensor, Tensor]]) -> bytes:
        encoder = DigitEncoder()
        for here, counts in steps:
            encoder.encode(here.int().numpy(), counts.numpy())
        return encoder.finish()

    scans = join_or_split(
        lambda: range_coded([step for part in steps for step in part]),
        lambda: [range_coded(part) for part in steps],
        level,
        split=split,
    )
    return Payload(PayloadKind.VQ_PRIOR, scans, indices)


def parse_vq_prior(
    latent: VqLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    """Indices (1, K, h, w), END where a position has ended or nothing is there."""
    stages = latent.quantizer.stages
    parts = _parts(stages)
    wanted = check_scans(scans, parts, partial)
    decoders = [DigitDecoder(data) for data in (scans[0][2:], *scans[1:])]
    here = min(parts if wanted == 1 else len(scans), most_parts or parts)

    def code(stage: int, _digit: int, _positions: Tensor, counts: Tensor) -> Tensor:
        return torch.from_numpy(decoders[0 if wanted == 1 else _part(stage)].decode(counts.numpy())).long()

    level = scans[0][1]
    rate = rate_of_level(level)
    symbols = latent.exact.sweep(rate.item(), min(stages, 2**here - 1), size, code)
    for decoder in decoders[:here] if here == parts or wanted > 1 else []:
        decoder.finish()
    return Parsed(symbols.view(1, stages, *size), latent.quantizer.decode, rate, level, (here, parts), nothing=END)


def _parts(stages: int) -> int:
    """How many parts the stages make: the first alone, then two, four, eight and so on together."""
    return stages.bit_length()


def _part(stage: int) -> int:
    return (stage + 1).bit_length() - 1
