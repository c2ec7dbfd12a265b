"""What the tensors of public checkpoints are called here: one pure function for each source."""

import re

_COMPVIS_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_LEGACY_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_AROUND_THE_LATENT = {
    "quant_conv": "encoder.quant_conv",
    "post_quant_conv": "decoder.post_quant_conv",
    "quantize.embedding": "latent.quantizer.codebooks",
}
# of the training: not part of the autoencoder
_COMPVIS_TRAINING = ("loss.", "model_ema.", "quantize.ema", "quantize.cluster")


def _around_the_latent(key: str) -> str | None:
    name, _, kind = key.rpartition(".")
    found = _AROUND_THE_LATENT.get(name)
    if found == "latent.quantizer.codebooks":
        return found
    return f"{found}.{kind}" if found else None


def from_diffusers(key: str) -> str:
    """Key of AutoencoderKL, VQModel or AutoencoderTiny in diffusers, also before its version 0.17 -> ours."""
    around = _around_the_latent(key)
    if around is not None:
        return around
    return re.sub(
        r"(attentions\.\d+)\.(query|key|value|proj_attn)\.",
        lambda match: f"{match[1]}.{_LEGACY_ATTENTION[match[2]]}.",
        key,
    )


def from_compvis(key: str, levels: int) -> str | None:
    """Key of taming-transformers and latent-diffusion -> ours; None for what belongs to the training alone.

    Their decoder counts its levels from the finest, ours, as diffusers', in the order of its work.
    """
    if key.startswith(_COMPVIS_TRAINING):
        return None
    around = _around_the_latent(key)
    if around is not None:
        return around
    key = re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", key)
    key = re.sub(r"\.mid\.block_([12])\.", lambda match: f".mid_block.resnets.{int(match[1]) - 1}.", key)
    key = key.replace(".mid.attn_1.", ".mid_block.attentions.0.")
    key = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.", key)
    key = re.sub(r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up_blocks.{levels - 1 - int(match[1])}.", key)
    key = re.sub(r"_blocks\.(\d+)\.block\.", r"_blocks.\1.resnets.", key)
    key = re.sub(r"_blocks\.(\d+)\.attn\.", r"_blocks.\1.attentions.", key)
    key = key.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
    key = key.replace(".nin_shortcut.", ".conv_shortcut.")
    return re.sub(
        r"(attentions\.\d+)\.(norm|q|k|v|proj_out)\.",
        lambda match: f"{match[1]}.{_COMPVIS_ATTENTION[match[2]]}.",
        key,
    )


def from_taesd(key: str, part: str) -> str:
    """Key of TAESD's bare encoder or decoder -> ours. Its decoder counts the squeezing of the latent as layer 0."""
    number, _, rest = key.partition(".")
    return f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"
