"""Kind 3: KL latents, quantised, coded with a learned prior."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentzip.container import PayloadKind
from latentzip.entropy.coder import ESCAPE_LIMIT, SymbolDecoder, SymbolEncoder
from latentzip.models.autoencoder import KlLatent
from latentzip.models.prior import CERTAIN
from latentzip.payload.scans import Parsed, Payload, check_scans, join_or_split, rate_of_level

Step = tuple[NDArray[np.int32], NDArray[np.uint8]]  # symbols and their scale indices, (n,), channel by channel


def pack_kl(latent: KlLatent, v: Tensor, hyperlatent: Tensor, level: int, *, split: bool = False) -> Payload:
    """Kind 3. split: see `join_or_split`.

    v: (1, C, h, w) float32 in steps (latent times gain); hyperlatent: (1, Ch, ceil(h/4), ceil(w/4)) float32.
    """
    prior = latent.exact
    size = (v.shape[2], v.shape[3])
    groups = list(prior.parts[1:])
    values = [hyperlatent[0].flatten(1), *torch.split(v[0].flatten(1), groups)]  # (C, h w) each
    steps: list[list[Step]] = [[] for _ in groups]

    def code(part: int, positions: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """mean, index: (C, n). Gives what the decoder will have."""
        symbols = torch.round(values[part][:, positions].double() - mean).clamp_(-ESCAPE_LIMIT, ESCAPE_LIMIT - 1)
        symbols.mul_(index > CERTAIN)
        steps[_scan(part)].append((symbols.int().flatten().numpy(), index.flatten().numpy()))
        return symbols.add_(mean)

    coded = prior.sweep(rate_of_level(level).item(), size, code)
    scans = join_or_split(
        lambda: _range_coded(latent, [step for scan in steps for step in scan]),
        lambda: [_range_coded(latent, scan) for scan in steps],
        level,
        split=split,
    )
    return Payload(PayloadKind.KL_PRIOR, scans, _as_plane(coded, size))


def _range_coded(latent: KlLatent, steps: list[Step]) -> bytes:
    encoder = SymbolEncoder(latent.scale_table.numpy())
    for symbols, index in steps:
        encoder.encode(symbols, index, first_row=CERTAIN + 1)
    return encoder.finish()


def parse_kl(
    latent: KlLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    """Values in steps, the same on every machine. What is not there is what the prior expects."""
    prior = latent.exact
    groups = len(prior.parts) - 1
    wanted = check_scans(scans, groups, partial)
    decoders = [SymbolDecoder(data, latent.scale_table.numpy()) for data in (scans[0][2:], *scans[1:])]
    here = min(groups if wanted == 1 else len(scans), most_parts or groups)

    def code(part: int, _positions: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        if _scan(part) >= here:
            return mean
        decoder = decoders[0 if wanted == 1 else _scan(part)]
        symbols = decoder.decode(index.flatten().numpy(), first_row=CERTAIN + 1)
        return torch.from_numpy(symbols).view(index.shape) + mean

    level = scans[0][1]
    v = prior.sweep(rate_of_level(level).item(), size, code)
    for decoder in decoders[:here] if here == groups or wanted > 1 else []:
        decoder.finish()
    gain = latent.gain(rate_of_level(level))
    return Parsed(_as_plane(v, size), lambda steps: steps / gain, rate_of_level(level), level, (here, groups))


def _scan(part: int) -> int:
    """Where a part of the prior's sweep belongs: the hyperlatent comes with the first channel group."""
    return max(0, part - 1)


def _as_plane(v: Tensor, size: tuple[int, int]) -> Tensor:
    """(h w, C) -> (1, C, h, w), channels-last."""
    return v.view(1, *size, -1).permute(0, 3, 1, 2)
