"""Public autoencoders: the same numbers as diffusers gives, from all layouts of their checkpoints."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result, noise_picture
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentzip import load_latents
from latentzip.codec import analyse, decode_image, write_latent
from latentzip.container import parse
from latentzip.errors import ModelError
from latentzip.images import Picture
from latentzip.models.autoencoder import VqLatent
from latentzip.models.families import config_from_json, config_to_json, make_decoder, make_encoder
from latentzip.models.ldm import LdmConfig
from latentzip.models.pictures import to_tensor
from latentzip.models.tiny import TinyConfig
from latentzip.zoo.checkpoints import save_as_is
from latentzip.zoo.loading import load_decoder, load_encoder, locate
from latentzip.zoo.public import config_of_diffusers, read_public

CPU = torch.device("cpu")
# sums of some hundred terms in another order: float32's rounding, and nothing else
CLOSE = 1e-5

SD = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
KL = {
    "sd": dict(SD, latent_channels=4, scaling_factor=0.18215),
    "flux": dict(
        SD,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ),
    "no attention": dict(SD, latent_channels=3, mid_block_add_attention=False, layers_per_block=1),
    "attention": dict(
        SD,
        latent_channels=8,
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    ),
}
VQ = {
    "f4": dict(SD, latent_channels=3, num_vq_embeddings=64),
    "f8": dict(KL["attention"], latent_channels=6, vq_embed_dim=4, num_vq_embeddings=37),
}
TINY = {
    "sd": {"latent_channels": 4, "encoder_block_out_channels": [16] * 4, "decoder_block_out_channels": [16] * 4},
    "short": {
        "latent_channels": 5,
        "encoder_block_out_channels": [8] * 3,
        "decoder_block_out_channels": [8] * 3,
        "num_encoder_blocks": [1, 2, 3],
        "num_decoder_blocks": [2, 1, 2],
    },
}


def folder_of(model: nn.Module, path: Path) -> str:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and codebooks too, which begin at values that hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(path)
    return str(path)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= CLOSE * b.abs().max())


@torch.no_grad()
def check_kl(theirs: AutoencoderKL, folder: str, size: tuple[int, int] = (48, 40)) -> None:
    encoder, decoder = load_encoder(folder, CPU), load_decoder(locate(folder), CPU)
    x = torch.rand(1, 3, *size) * 2 - 1
    scaling, shift = theirs.config.scaling_factor, theirs.config.shift_factor or 0.0
    z = (theirs.encode(x).latent_dist.mode() - shift) * scaling
    mean, log_variance = encoder.encoder(x).chunk(2, dim=1)
    assert close(mean, z)
    assert close(log_variance, theirs.encode(x).latent_dist.logvar + 2 * torch.tensor(scaling).log())
    assert close(decoder.decoder(z, torch.ones(1)), theirs.decode(z / scaling + shift).sample)


@torch.no_grad()
def check_vq(theirs: VQModel, folder: str, size: tuple[int, int] = (48, 40)) -> None:
    encoder, decoder = load_encoder(folder, CPU), load_decoder(locate(folder), CPU)
    x = torch.rand(1, 3, *size) * 2 - 1
    h = theirs.encode(x).latents
    assert close(encoder.encoder(x), h)
    codes, _, (_, _, indices) = theirs.quantize(h)
    assert isinstance(encoder.latent, VqLatent)
    ours = encoder.latent.quantizer.search(h, 1)
    assert torch.equal(ours.flatten(), indices.flatten())
    assert torch.equal(encoder.latent.quantizer.decode(ours), h + (codes - h)) or close(
        encoder.latent.quantizer.decode(ours), codes
    )
    assert close(decoder.decoder(codes, torch.ones(1)), theirs.decode(h).sample)


@pytest.mark.parametrize("kind", KL)
def test_kl_is_that_of_diffusers(tmp_path: Path, kind: str) -> None:
    theirs = AutoencoderKL(**KL[kind])
    check_kl(theirs, folder_of(theirs, tmp_path))


@pytest.mark.parametrize("kind", VQ)
def test_vq_is_that_of_diffusers(tmp_path: Path, kind: str) -> None:
    theirs = VQModel(**VQ[kind])
    check_vq(theirs, folder_of(theirs, tmp_path))


@pytest.mark.parametrize("kind", TINY)
@torch.no_grad()
def test_tiny_is_that_of_diffusers(tmp_path: Path, kind: str) -> None:
    theirs = AutoencoderTiny(**TINY[kind])
    folder = folder_of(theirs, tmp_path)
    encoder, decoder = load_encoder(folder, CPU), load_decoder(locate(folder), CPU)
    x = torch.rand(1, 3, 48, 40) * 2 - 1
    z = theirs.encode(x).latents
    assert close(encoder.encoder(x), z)
    assert close(decoder.decoder(3 * z, torch.ones(1)), theirs.decode(3 * z).sample)


@pytest.mark.slow
def test_the_full_widths_are_those_of_diffusers(tmp_path: Path) -> None:
    """SD-VAE's and vq-f8's, once."""
    four = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
    four |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    sd = AutoencoderKL(**four, latent_channels=4)
    assert sum(p.numel() for p in sd.parameters()) == 83_653_863  # as published
    check_kl(sd, folder_of(sd, tmp_path / "sd"), (64, 64))
    f8 = VQModel(
        block_out_channels=[128, 128, 256, 512],
        layers_per_block=2,
        latent_channels=4,
        num_vq_embeddings=16384,
        down_block_types=["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
    )
    check_vq(f8, folder_of(f8, tmp_path / "f8"), (64, 64))


def compvis_keys(config: LdmConfig) -> list[str]:
    """The keys of latent-diffusion's Encoder, Decoder and the layers between, by its modules' structure."""

    def with_kinds(names: list[str]) -> list[str]:
        return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]

    def block(name: str, wider: bool) -> list[str]:
        layers = ["norm1", "conv1", "norm2", "conv2"] + (["nin_shortcut"] if wider else [])
        return [f"{name}.{layer}" for layer in layers]

    def attention(name: str) -> list[str]:
        return [f"{name}.{layer}" for layer in ("norm", "q", "k", "v", "proj_out")]

    def middle(part: str) -> list[str]:
        among = attention(f"{part}.mid.attn_1") if config.middle_attention else []
        return block(f"{part}.mid.block_1", False) + among + block(f"{part}.mid.block_2", False)

    last = len(config.widths) - 1
    names = ["encoder.conv_in", "decoder.conv_in", "encoder.norm_out", "decoder.norm_out"]
    names += ["encoder.conv_out", "decoder.conv_out", *middle("encoder"), *middle("decoder")]
    width = config.widths[0]
    for i, wanted in enumerate(config.widths):
        for j in range(config.blocks):
            names += block(f"encoder.down.{i}.block.{j}", width != wanted)
            width = wanted
            names += attention(f"encoder.down.{i}.attn.{j}") if i in config.attention_levels else []
        names += [f"encoder.down.{i}.downsample.conv"] if i < last else []
    for i, wanted in reversed(list(enumerate(config.widths))):
        for j in range(config.blocks + 1):
            names += block(f"decoder.up.{i}.block.{j}", width != wanted)
            width = wanted
            names += attention(f"decoder.up.{i}.attn.{j}") if i in config.attention_levels else []
        names += [f"decoder.up.{i}.upsample.conv"] if i > 0 else []
    names += ["quant_conv", "post_quant_conv"] if config.quant_conv else []
    return with_kinds(names) + (["quantize.embedding.weight"] if config.regularizer == "vq" else [])


def to_compvis(tensors: dict[str, Tensor], config: LdmConfig) -> dict[str, Tensor]:
    """Our tensors as latent-diffusion would have saved them, by what each module does."""
    names = {
        **{"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
        **{"conv_shortcut": "nin_shortcut"},
    }
    out = {}
    for key, tensor in tensors.items():
        if key in ("latent.mean", "latent.std"):
            continue
        if key == "latent.quantizer.codebooks":
            out["quantize.embedding.weight"] = tensor[0]
            continue
        part, rest = key.split(".", 1)
        rest = rest.replace("conv_norm_out", "norm_out")
        for ours, other in names.items():
            rest = rest.replace(f".{ours}.", f".{other}.")
        if rest.startswith("mid_block"):
            rest = rest.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
            rest = rest.replace("mid_block.attentions.0", "mid.attn_1")
        found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", rest)
        if found:
            level = int(found[2]) if found[1] == "down" else len(config.widths) - 1 - int(found[2])
            kind = {"resnets": f"block.{found[4]}", "attentions": f"attn.{found[4]}"}.get(found[3], found[3][:-2])
            rest = f"{found[1]}.{level}.{kind}.{found[5]}"
        if tensor.ndim == 2 and re.search(r"\.(q|k|v|proj_out)\.weight$", rest):
            tensor = tensor[:, :, None, None]
        out[rest if "quant_conv" in rest else f"{part}.{rest}"] = tensor
    return out


@pytest.mark.parametrize(("kind", "vq"), [(k, False) for k in KL] + [(k, True) for k in VQ])
def test_compvis_checkpoints_are_the_same_models(tmp_path: Path, kind: str, vq: bool) -> None:
    theirs = VQModel(**VQ[kind]) if vq else AutoencoderKL(**KL[kind])
    config, tensors = read_public(locate(folder_of(theirs, tmp_path / "folder")))
    assert isinstance(config, LdmConfig)
    state = to_compvis(tensors, config)
    assert sorted(state) == sorted(compvis_keys(config))
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {**state, "loss.logvar": torch.zeros(1)}, "global_step": 3}, path)
    again, others = read_public(path)
    # what the tensors do not tell
    assert again == LdmConfig(**{**vars(config), "scaling": again.scaling, "shift": 0.0})  # type: ignore[union-attr]
    assert others.keys() == tensors.keys()
    assert all(torch.equal(others[key], tensor) for key, tensor in tensors.items())
    inside = tmp_path / "sd.safetensors"
    save_file(
        {**{f"first_stage_model.{k}": t.contiguous() for k, t in state.items()}, "model.x": torch.ones(1)}, inside
    )
    assert read_public(inside)[1].keys() == tensors.keys()


# What diffusers' pipelines do with an AutoencoderKL's latents, by its config: SDXL's and its like where there are
# statistics of each channel (pipeline_stable_diffusion_xl_img2img.py, prepare_latents; the same backwards in __call__),
# FLUX's and SD3's where there is a shift (pipeline_flux_img2img.py, _encode_vae_image), else Stable Diffusion's.
STATISTICS = {"latents_mean": [0.5, -1.25, 3.0, 0.0], "latents_std": [2.0, 0.75, 5.5, 1.0]}
PIPELINES: dict[str, tuple[dict[str, object], bool]] = {
    "scaling": ({"scaling_factor": 0.18215}, False),
    "shift": ({"scaling_factor": 0.3611, "shift_factor": 0.1159}, False),
    "statistics": ({"scaling_factor": 0.5, **STATISTICS}, True),
    "statistics alone": ({"scaling_factor": 1.0, **STATISTICS}, True),
    "statistics, no shift": ({"scaling_factor": 0.5, "shift_factor": 0.0, **STATISTICS}, True),
    "a mean alone counts for nothing": ({"scaling_factor": 0.5, "latents_mean": STATISTICS["latents_mean"]}, False),
    "a deviation alone too": ({"scaling_factor": 0.5, "latents_std": STATISTICS["latents_std"]}, False),
}


def to_pipeline(vae: AutoencoderKL, mean: Tensor) -> Tensor:
    config = vae.config
    if config.latents_mean is not None and config.latents_std is not None:
        latents_mean = torch.tensor(config.latents_mean).view(1, 4, 1, 1)
        return (mean - latents_mean) * config.scaling_factor / torch.tensor(config.latents_std).view(1, 4, 1, 1)
    return (mean - (config.shift_factor or 0.0)) * config.scaling_factor


def from_pipeline(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    config = vae.config
    if config.latents_mean is not None and config.latents_std is not None:
        latents_mean = torch.tensor(config.latents_mean).view(1, 4, 1, 1)
        return latents * torch.tensor(config.latents_std).view(1, 4, 1, 1) / config.scaling_factor + latents_mean
    return latents / config.scaling_factor + (config.shift_factor or 0.0)


THIN = {**SD, "block_out_channels": [8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1}


@pytest.mark.parametrize("kind", PIPELINES)
@torch.no_grad()
def test_latents_are_what_pipelines_feed_their_models(tmp_path: Path, kind: str) -> None:
    """From the file, from a converted model too, and painted as the pipeline paints them."""
    changes, has_statistics = PIPELINES[kind]
    theirs = AutoencoderKL(**{**THIN, "latent_channels": 4, **changes})
    folder = folder_of(theirs, tmp_path / "vae")
    config, tensors = read_public(Path(folder))
    assert bool(config.latents_mean) == has_statistics
    save_as_is(tmp_path / "converted.safetensors", config, tensors, {}, overwrite=False)
    picture = noise_picture(24, 16)
    x = to_tensor(picture.pixels, 4)
    moments = theirs.encode(x).latent_dist
    wanted = to_pipeline(theirs, moments.mode())
    for source in (folder, str(tmp_path / "converted.safetensors")):
        encoder, decoder = load_encoder(source, CPU), load_decoder(locate(source), CPU)
        path = tmp_path / "a.lz"
        path.write_bytes(write_latent(analyse(picture, encoder), encoder, 0, coding="fp16"))
        latents = load_latents(path, source)
        assert torch.allclose(latents.float(), wanted, rtol=2**-10, atol=1e-4)  # half precision's rounding
        mean, log_variance = encoder.encoder(x).chunk(2, dim=1)
        assert close(mean, wanted)
        deviation = to_pipeline(theirs, moments.mode() + moments.std) - wanted
        assert torch.allclose((log_variance / 2).exp(), deviation, rtol=1e-3, atol=1e-5)
        assert close(decoder.decoder(wanted, torch.ones(1)), theirs.decode(from_pipeline(theirs, wanted)).sample)


def test_other_statistics_are_another_latent_space(tmp_path: Path) -> None:
    """Those without keep the fingerprint that they had before there were any."""
    folder = Path(folder_of(AutoencoderKL(**{**THIN, **STATISTICS}), tmp_path))
    fields = json.loads((folder / "config.json").read_text())
    prints = []
    for changes in ({}, {"latents_std": [2.0, 0.75, 5.5, 1.5]}, {"latents_mean": None}):
        (folder / "config.json").write_text(json.dumps({**fields, **changes}))
        prints.append(load_encoder(str(folder), CPU).latent_fingerprint)
    assert len(set(prints)) == 3


def sharded(folder: Path, index: str, suffix: str = "safetensors") -> Path:
    """The only file of a folder's weights in two, with an index as diffusers names it."""
    whole = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    places = {}
    for number, keys in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        name = f"diffusion_pytorch_model-{number:05}-of-00002.{suffix}"
        part = {key: tensors[key] for key in keys}
        save_file(part, folder / name) if suffix == "safetensors" else torch.save(part, folder / name)
        places |= dict.fromkeys(keys, name)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder / index


STEM = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("index", "suffix"),
    [
        (f"{STEM}.safetensors.index.json", "safetensors"),
        (f"{STEM}.safetensors.index.fp16.json", "safetensors"),
        (f"{STEM}.bin.index.json", "bin"),
    ],
)
def test_shards_are_put_together(tmp_path: Path, index: str, suffix: str) -> None:
    theirs = AutoencoderKL(**THIN)
    folder = Path(folder_of(theirs, tmp_path))
    sharded(folder, index, suffix)
    check_kl(theirs, str(folder))


@pytest.mark.parametrize("how", ["missing", "outside", "strange key", "no map", "wrong map"])
def test_shards_that_do_not_fit_are_refused(tmp_path: Path, how: str) -> None:
    folder = Path(folder_of(AutoencoderKL(**THIN), tmp_path / "vae"))
    path = sharded(folder, f"{STEM}.safetensors.index.json")
    index = json.loads(path.read_text())
    places = index["weight_map"]
    if how == "missing":
        (folder / f"{STEM}-00001-of-00002.safetensors").unlink()
    elif how == "outside":
        (folder / f"{STEM}-00001-of-00002.safetensors").rename(tmp_path / "x.safetensors")
        index["weight_map"] = {k: "../x.safetensors" if "00001" in name else name for k, name in places.items()}
    elif how == "strange key":
        places["encoder.surprise"] = next(iter(places.values()))
    elif how == "no map":
        index = [1]
    else:
        index["weight_map"] = {key: [name] for key, name in places.items()}
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError) as caught:
        load_encoder(str(folder), CPU)
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize(
    "names",
    [
        [f"{STEM}.bf16.safetensors"],
        [f"{STEM}.fp16.safetensors", f"{STEM}.bf16.safetensors"],
        [f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"],
        [f"{STEM}.bf16.safetensors", f"{STEM}.bin"],
        [f"{STEM}.bf16.bin"],
    ],
    ids="+".join,
)
def test_weights_of_every_precision_are_found_the_best_first(tmp_path: Path, names: list[str]) -> None:
    """Safetensors before pickles, which are read where there is nothing else; another variant is another model."""
    folder = Path(folder_of(AutoencoderKL(**THIN), tmp_path))
    whole = folder / f"{STEM}.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    for number, name in enumerate([*names, f"{STEM}.non_ema.safetensors"]):
        dtype = torch.bfloat16 if "bf16" in name else torch.float16 if "fp16" in name else torch.float32
        part = {key: (tensor + number).to(dtype) for key, tensor in tensors.items()}
        torch.save(part, folder / name) if name.endswith("bin") else save_file(part, folder / name)
    found = read_public(folder)[1]["encoder.conv_in.weight"]
    dtype = torch.bfloat16 if "bf16" in names[0] else torch.float16 if "fp16" in names[0] else torch.float32
    assert torch.equal(found, tensors["encoder.conv_in.weight"].to(dtype))


def test_bfloat16_is_converted_and_codes(cli: Callable[..., Result], tmp_path: Path) -> None:
    """As FLUX's weights are stored."""
    folder = Path(folder_of(AutoencoderKL(**THIN).to(torch.bfloat16), tmp_path / "vae"))
    converted = tmp_path / "flux.safetensors"
    Image.fromarray(noise_picture(24, 16).pixels).save(tmp_path / "a.png")
    assert cli("models", "convert", folder, "-o", converted).code == 0
    assert load_file(converted)["encoder.conv_in.weight"].dtype == torch.bfloat16
    for model in (folder, converted):
        lz = tmp_path / f"{model.stem}.lz"
        assert cli("encode", tmp_path / "a.png", "-m", model, "--coding", "fp16", "-o", lz).code == 0
        assert cli("decode", lz, "-m", converted, "-o", lz.with_suffix(".png")).code == 0
    assert (tmp_path / "vae.png").read_bytes() == (tmp_path / "flux.png").read_bytes()


def test_older_names_of_diffusers_fit(tmp_path: Path) -> None:
    theirs = AutoencoderKL(**KL["sd"])
    folder = Path(folder_of(theirs, tmp_path))
    weights = folder / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(weights)
    for new, old in older.items():
        tensors = {key.replace(f".{new}.", f".{old}."): tensor for key, tensor in tensors.items()}
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, weights)
    check_kl(theirs, str(folder))


def taesd_pair(folder: Path, config: TinyConfig, suffix: str = ".pth") -> Path:
    """A TAESD's two files, with random tensors."""
    torch.manual_seed(0)
    for part, make in (("encoder", make_encoder), ("decoder", make_decoder)):
        state = {}
        for key, tensor in make(config).state_dict().items():
            _, number, rest = key.split(".", 2)
            state[f"{int(number) + (part == 'decoder')}.{rest}"] = torch.randn(tensor.shape) * 0.1
        torch.save(state, folder / f"tae_{part}{suffix}")
    return folder / f"tae_encoder{suffix}"


@pytest.mark.parametrize("inner_norm", [False, True])
def test_taesd_pairs_tell_their_config(tmp_path: Path, inner_norm: bool) -> None:
    config = TinyConfig(6, 8, (1, 2, 3), (2, 1, 3), inner_norm=inner_norm)
    encoder = taesd_pair(tmp_path, config)
    for path in (encoder, tmp_path / "tae_decoder.pth"):
        assert read_public(path)[0] == config
    model = load_encoder(str(encoder), CPU)
    assert torch.equal(analyse(noise_picture(30, 20), model).latent, model.encoder(_padded(noise_picture(30, 20))))


def _padded(picture: Picture) -> Tensor:
    return to_tensor(picture.pixels, 4)


@pytest.mark.parametrize("config", [config_of_diffusers({"_class_name": "AutoencoderKL", **KL["flux"]}), TinyConfig(7)])
def test_configs_round_trip(config: LdmConfig | TinyConfig) -> None:
    assert config_from_json(config_to_json(config)) == config


def test_files_round_trip_and_name_their_model(tmp_path: Path) -> None:
    """Half precision to the bit; quantised within a step; another encoder's latents are refused."""
    theirs = AutoencoderKL(**KL["sd"])
    folder = folder_of(theirs, tmp_path / "one")
    encoder, decoder = load_encoder(folder, CPU), load_decoder(locate(folder), CPU)
    analysed = analyse(noise_picture(45, 30), encoder)
    data = write_latent(analysed, encoder, 0, coding="fp16")
    assert decode_image(data, lambda container: decoder).pixels.shape == (30, 45, 3)
    other = load_decoder(locate(folder_of(AutoencoderKL(**KL["sd"]), tmp_path / "two")), CPU)
    assert parse(data).header.latent_fingerprint != other.latent_fingerprint
    with pytest.raises(ModelError, match="another model"):
        decode_image(data, lambda container: other)


def test_the_decoder_does_not_change_the_latent_space(tmp_path: Path) -> None:
    """As with SD-VAE's ft-mse and ft-ema, which have one encoder."""
    folder = Path(folder_of(AutoencoderKL(**KL["sd"]), tmp_path))
    before = load_encoder(str(folder), CPU)
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({key: t + 1 if key.startswith("decoder.") else t for key, t in tensors.items()}, weights)
    after = load_encoder(str(folder), CPU)
    assert before.latent_fingerprint == after.latent_fingerprint
    assert before.decoder_fingerprint != after.decoder_fingerprint
    scaled = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**scaled, "scaling_factor": 1.0}))
    assert load_encoder(str(folder), CPU).latent_fingerprint != before.latent_fingerprint


class Harmful:
    """What a checkpoint must never be able to do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def spoil(folder: Path, how: str) -> Path:
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    config = json.loads((folder / "config.json").read_text())
    if how == "missing":
        del tensors["encoder.conv_in.bias"]
    elif how == "extra":
        tensors["encoder.surprise"] = torch.zeros(1)
    elif how == "shape":
        tensors["encoder.conv_in.bias"] = torch.zeros(3)
    save_file(tensors, weights)
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "class":
        (folder / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DModel"}))
    elif how == "blocks":
        (folder / "config.json").write_text(json.dumps({**config, "down_block_types": ["Other"] * 3}))
    elif how == "json":
        (folder / "config.json").write_text("{")
    elif how == "no weights":
        weights.unlink()
    elif how == "pickle":
        (folder / "x.ckpt").write_bytes(pickle.dumps({"state_dict": Harmful()}))
        return folder / "x.ckpt"
    elif how == "half a pair":
        taesd_pair(folder, TinyConfig(4, 8))
        (folder / "tae_decoder.pth").unlink()
        return folder / "tae_encoder.pth"
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "conv_in.bias"),
        ("extra", "surprise"),
        ("shape", "conv_in.bias"),
        ("cut", "not a readable checkpoint"),
        ("class", "is a 'UNet2DModel'"),
        ("blocks", "blocks that latentzip does not build"),
        ("json", "config.json: cannot be read"),
        ("no weights", "has no weights beside"),
        ("pickle", "can run any program"),
        ("half a pair", "tae_decoder.pth is not beside it"),
    ],
)
def test_bad_checkpoints_are_refused(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = spoil(Path(folder_of(AutoencoderKL(**KL["sd"]), tmp_path / "model")), how)
    Image.new("RGB", (20, 20)).save("a.png")
    result = cli("encode", "a.png", "-m", model)
    assert result.code == 1
    assert message in result.err
    assert result.err.startswith(f"latentzip: {model}")
    assert not (tmp_path / "a.lz").exists()
    assert not (tmp_path / "harmed").exists()
