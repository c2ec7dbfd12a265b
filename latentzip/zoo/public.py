"""Reading public checkpoints: diffusers' folders, files of latent-diffusion and taming-transformers, TAESD's pairs.

Whatever the source, the result is a config and all of its tensors under our names. Tensors keep their precision.
"""

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from latentzip.errors import ModelError
from latentzip.models.families import PublicConfig
from latentzip.models.ldm import LdmConfig
from latentzip.models.tiny import TinyConfig
from latentzip.zoo.keymaps import from_compvis, from_diffusers, from_taesd
from latentzip.zoo.reading import STEM, Tensors, read_json, read_state, weights_in

FIRST_STAGE = "first_stage_model."  # where Stable Diffusion's checkpoints keep theirs
SD_SCALING = 0.18215  # of Stable Diffusion's latents; a checkpoint of latent-diffusion does not say


def diffusers_folder(folder: Path) -> Path | None:
    """The folder of an autoencoder of diffusers: this one, or the `vae` or `vqvae` in a pipeline's. None: neither."""
    return next((f for f in (folder, folder / "vae", folder / "vqvae") if (f / "config.json").is_file()), None)


def read_public(path: Path) -> tuple[PublicConfig, Tensors]:
    """A folder of diffusers or a checkpoint file -> config and tensors. Raises ModelError."""
    try:
        config, tensors = _read_folder(path) if path.is_dir() else _read_file(path)
    except ModelError as error:
        message = str(error)
        raise ModelError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: its tensors make no autoencoder ({reprlib.repr(error)}): get it again") from None
    if config.regularizer == "kl":
        tensors["latent.mean"] = torch.zeros(config.latent_channels, dtype=torch.float32)
        tensors["latent.std"] = torch.ones(config.latent_channels, dtype=torch.float32)
    return config, tensors


def _read_folder(folder: Path) -> tuple[PublicConfig, Tensors]:
    config = config_of_diffusers(read_json(folder / "config.json"))
    path = weights_in(folder)
    if path is None:
        raise ModelError(f"has no weights beside its config.json: {STEM}.safetensors is needed")
    return config, _renamed(read_state(path), from_diffusers)


def _read_file(path: Path) -> tuple[PublicConfig, Tensors]:
    state = read_state(path)
    if any(key.startswith(FIRST_STAGE) for key in state):
        state = {key.removeprefix(FIRST_STAGE): t for key, t in state.items() if key.startswith(FIRST_STAGE)}
    if "encoder.down.0.block.0.conv1.weight" in state:
        config = config_of_compvis(state)
        return config, _renamed(state, lambda key: from_compvis(key, len(config.widths)))
    if "encoder.layers.0.weight" in state:
        return _tiny(state)
    if "1.weight" in state or "1.conv.0.weight" in state:
        return _tiny(_taesd_pair(path, state))
    if any(key.startswith("encoder.down_blocks.") for key in state):
        raise ModelError("holds tensors of diffusers without their config.json: give the folder that has both")
    raise ModelError("holds no autoencoder that latentzip knows: see docs/models.md")


def _renamed(state: Tensors, rename: Callable[[str], str | None]) -> Tensors:
    """Under our names; codebooks with their one stage, and 1x1 convolutions of attention as matrices."""
    tensors: Tensors = {}
    for key, tensor in state.items():
        name = rename(key)
        if name is None:
            continue
        if name in tensors:
            raise ModelError(f"has {name} twice, under an older name too: get it again")
        if name == "latent.quantizer.codebooks":
            tensor = tensor[None]
        elif ".attentions." in name and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        tensors[name] = tensor
    return tensors


def config_of_diffusers(fields: Any) -> PublicConfig:
    """config.json of AutoencoderKL, VQModel or AutoencoderTiny -> config. Raises ModelError for what is not built.

    fields: what the JSON holds, of whatever kind.
    """
    if not isinstance(fields, Mapping):
        raise ModelError("its config.json is no JSON object: get it again")
    kind = fields.get("_class_name")
    try:
        if kind == "AutoencoderTiny":
            return _tiny_of_diffusers(fields)
        if kind in ("AutoencoderKL", "VQModel"):
            return _ldm_of_diffusers(fields, "kl" if kind == "AutoencoderKL" else "vq")
    except (TypeError, ValueError) as error:
        raise ModelError(f"its config.json does not make sense ({reprlib.repr(error)}): get it again") from None
    raise ModelError(f"is a {reprlib.repr(kind)}, and latentzip knows AutoencoderKL, VQModel and AutoencoderTiny")


def _ldm_of_diffusers(fields: Mapping[str, Any], regularizer: Any) -> LdmConfig:
    widths = tuple(fields.get("block_out_channels", (64,)))
    down = tuple(fields.get("down_block_types", ("DownEncoderBlock2D",)))
    up = tuple(fields.get("up_block_types", ("UpDecoderBlock2D",)))
    plain, attends = ("DownEncoderBlock2D", "UpDecoderBlock2D"), ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")
    pairs = list(zip(down, reversed(up), strict=True))
    convs = fields.get("use_quant_conv", True), fields.get("use_post_quant_conv", True)
    asked = fields.get("act_fn", "silu"), fields.get("norm_type", "group"), bool(fields.get("lookup_from_codebook"))
    if len(pairs) != len(widths) or not set(pairs) <= {plain, attends}:
        raise ModelError(f"has blocks that latentzip does not build: {reprlib.repr((*down, *up))}")
    if asked != ("silu", "group", False) or convs[0] != convs[1] or fields.get("in_channels", 3) != 3:
        raise ModelError("is a variant that latentzip does not build (activation, norm, quant_conv or channels)")
    inner = fields.get("latent_channels", 4 if regularizer == "kl" else 3)
    is_kl = regularizer == "kl"
    means, deviations = fields.get("latents_mean"), fields.get("latents_std")
    if not is_kl or means is None or deviations is None:  # diffusers' pipelines take both, or neither
        means, deviations = (), ()
    return LdmConfig(
        regularizer=regularizer,
        latent_channels=inner if is_kl else fields.get("vq_embed_dim") or inner,
        inner_channels=inner,
        widths=widths,
        blocks=fields.get("layers_per_block", 1),
        attention_levels=tuple(level for level, pair in enumerate(pairs) if pair == attends),
        middle_attention=fields.get("mid_block_add_attention", True),
        quant_conv=convs[0],
        norm_groups=fields.get("norm_num_groups", 32),
        scaling=_number(fields.get("scaling_factor"), SD_SCALING) if is_kl else 1.0,
        shift=_number(fields.get("shift_factor"), 0.0) if is_kl else 0.0,
        latents_mean=tuple(map(_number, means)),
        latents_std=tuple(map(_number, deviations)),
        codebook_size=0 if is_kl else fields.get("num_vq_embeddings", 256),
    )


def _number(value: Any, where_none: float | None = None) -> float:
    """JSON's number as a float, so that 1 and 1.0 make one fingerprint. Raises TypeError or ValueError."""
    if value is None and where_none is not None:
        return where_none
    if type(value) not in (int, float) or abs(value) > 1e9:  # int has no limit, float has
        raise ValueError(f"{reprlib.repr(value)} where a number is wanted")
    return float(value)


def _tiny_of_diffusers(fields: Mapping[str, Any]) -> TinyConfig:
    widths = {*fields.get("encoder_block_out_channels", (64,)), *fields.get("decoder_block_out_channels", (64,))}
    asked = fields.get("act_fn", "relu"), fields.get("upsample_fn", "nearest"), fields.get("scaling_factor", 1.0)
    others = fields.get("upsampling_scaling_factor", 2), fields.get("shift_factor") or 0.0
    if len(widths) != 1 or asked != ("relu", "nearest", 1.0) or others != (2, 0.0):
        raise ModelError("is a variant of AutoencoderTiny that latentzip does not build")
    return TinyConfig(
        latent_channels=fields.get("latent_channels", 4),
        width=widths.pop(),
        encoder_blocks=tuple(fields.get("num_encoder_blocks", (1, 3, 3, 3))),
        decoder_blocks=tuple(reversed(fields.get("num_decoder_blocks", (3, 3, 3, 1)))),
        inner_norm=fields.get("use_midblock_gn", False),
    )


def config_of_compvis(state: Tensors) -> LdmConfig:
    """The config that the shapes of latent-diffusion's tensors tell. Raises ModelError.

    They do not tell the scaling of latents: 0.18215 is taken for 4 channels at factor 8, else 1.
    """
    try:
        inner = state["decoder.conv_in.weight"].shape[1]
        widths: list[int] = []
        while (key := f"encoder.down.{len(widths)}.block.0.conv1.weight") in state:
            widths.append(state[key].shape[0])
        blocks = sum(f"encoder.down.0.block.{i}.conv1.weight" in state for i in range(16))
        codebook = state.get("quantize.embedding.weight")
        convs = "quant_conv.weight" in state
        if codebook is not None:
            latent = codebook.shape[1]
        else:
            latent = state["quant_conv.weight"].shape[0] // 2 if convs else inner
        return LdmConfig(
            regularizer="kl" if codebook is None else "vq",
            latent_channels=latent,
            inner_channels=inner,
            widths=tuple(widths),
            blocks=blocks,
            attention_levels=tuple(i for i in range(len(widths)) if f"encoder.down.{i}.attn.0.q.weight" in state),
            middle_attention="encoder.mid.attn_1.q.weight" in state,
            quant_conv=convs,
            scaling=SD_SCALING if codebook is None and latent == 4 and len(widths) == 4 else 1.0,
            codebook_size=0 if codebook is None else codebook.shape[0],
        )
    except (KeyError, IndexError) as error:
        raise ModelError(f"lacks the tensor {error}: it is not a whole autoencoder") from None


def _taesd_pair(path: Path, state: Tensors) -> Tensors:
    """Both parts of a TAESD, of which one is given: the other lies beside it, under the same name but for its part."""
    part = next((part for part in ("encoder", "decoder") if part in path.stem), None)
    if part is None:
        raise ModelError("looks like a part of a TAESD: name the two *_encoder and *_decoder")
    other_part = "decoder" if part == "encoder" else "encoder"
    before, _, after = path.name.rpartition(part)
    other = path.with_name(before + other_part + after)
    if not other.exists():
        raise ModelError(f"is one part of a TAESD, and {other.name} is not beside it")
    parts = {part: state, other_part: read_state(other)}
    return {from_taesd(key, part): tensor for part, tensors in parts.items() for key, tensor in tensors.items()}


def _tiny(tensors: Tensors) -> tuple[TinyConfig, Tensors]:
    """The config that a TAESD's tensors tell, whose names are ours."""
    levels: dict[str, list[int]] = {}
    for part in ("encoder", "decoder"):
        numbers = sorted({int(key.split(".")[2]) for key in tensors if key.startswith(f"{part}.layers.")})
        counts: list[int] = []
        for number in numbers[:-1]:
            if f"{part}.layers.{number}.weight" in tensors:
                counts.append(0)  # a convolution begins a level
            elif counts:
                counts[-1] += 1
        levels[part] = counts
    first, last = tensors["encoder.layers.0.weight"], tensors.get("decoder.layers.0.weight")
    if last is None:
        raise ModelError("has no decoder")
    config = TinyConfig(
        latent_channels=last.shape[1],
        width=first.shape[0],
        encoder_blocks=tuple(levels["encoder"]),
        decoder_blocks=tuple(reversed(levels["decoder"])),
        inner_norm=any(".pool." in key for key in tensors),
    )
    return config, tensors
