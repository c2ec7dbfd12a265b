"""Kind 3: KL latents, quantised, coded with a learned prior."""

from collections.abc import Sequence

import torch
from torch import Tensor

from latentzip.container import PayloadKind
from latentzip.entropy.coder import ESCAPE_LIMIT, SymbolDecoder, SymbolEncoder
from latentzip.models.autoencoder import KlLatent
from latentzip.models.prior import CERTAIN, HYPER_STRIDE, coded_index, coded_mean
from latentzip.payload.scans import Parsed, Payload, check_scans, join_or_split, rate_of_level


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
    whole = _range_coded(latent, [step for part in parts for step in part])
    scans = join_or_split(whole, lambda: [_range_coded(latent, part) for part in parts], level)
    return Payload(PayloadKind.KL_PRIOR, scans, coded)


def _range_coded(latent: KlLatent, steps: list[tuple[Tensor, Tensor]]) -> bytes:
    encoder = SymbolEncoder(latent.scale_table.numpy())
    for symbols, index in steps:
        encoder.encode(symbols.int().numpy(), index.numpy())
    return encoder.finish()


def parse_kl(
    latent: KlLatent, scans: Sequence[bytes], size: tuple[int, int], partial: bool, most_parts: int | None
) -> Parsed:
    """Values in steps, the same on every machine. What is not there is what the prior expects."""
    groups = len(latent.prior.groups)
    wanted = check_scans(scans, groups, partial)
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
