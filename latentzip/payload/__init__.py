"""Latents to bytes and back, for every kind of latent. docs/format.md describes each.

A payload has parts, the most important first: stages of a VQ model, or the channel groups of a KL prior. Each makes the
picture better, and the first alone is enough for one. Every part is a scan of its own, or, where that would not pay,
all of them are one scan.
"""

from collections.abc import Sequence

from latentzip.container import PayloadKind
from latentzip.errors import FormatError, ModelError
from latentzip.models.autoencoder import KlLatent, Latent, NormalLatent, VqLatent
from latentzip.payload.kl import parse_kl
from latentzip.payload.plain import parse_adaptive, parse_half
from latentzip.payload.scans import Parsed
from latentzip.payload.vq import parse_vq_counted, parse_vq_fixed, parse_vq_prior


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
    if kind == PayloadKind.VQ_FIXED and isinstance(latent, VqLatent) and latent.prior is None:
        return parse_vq_fixed(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.VQ_COUNTED and isinstance(latent, VqLatent) and latent.prior is None:
        return parse_vq_counted(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.VQ_PRIOR and isinstance(latent, VqLatent) and latent.prior is not None:
        return parse_vq_prior(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.KL_PRIOR and isinstance(latent, KlLatent):
        return parse_kl(latent, scans, size, partial, most_parts)
    if kind == PayloadKind.KL_ADAPTIVE and isinstance(latent, NormalLatent):
        return parse_adaptive(latent, scans, size)
    if kind == PayloadKind.KL_HALF and isinstance(latent, NormalLatent | KlLatent):
        return parse_half(scans, latent.channels, size)
    raise ModelError(f"its payload is of kind {kind.name}, which this model cannot decode: the file is damaged")
