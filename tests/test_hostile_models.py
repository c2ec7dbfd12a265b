"""Models of strangers: whatever their configs and files hold, the end is a ModelError, soon and at little cost."""

import dataclasses
import io
import json
import os
import pickle
import random
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_KL, TINY_VQ, TINY_VQ_PRIOR, Result
from safetensors.torch import load_file, save_file

from latentzip.errors import ModelError
from latentzip.models.autoencoder import make_latent
from latentzip.models.config import MAX_TERMS, AutoencoderConfig
from latentzip.models.exact_index_prior import ExactIndexPrior
from latentzip.models.exact_prior import ExactHyperPrior
from latentzip.models.families import ModelConfig, config_from_json, config_to_json, make_decoder, make_encoder
from latentzip.models.index_prior import IndexPrior
from latentzip.models.ldm import LdmConfig
from latentzip.models.prior import HyperPrior
from latentzip.models.tiny import TinyConfig
from latentzip.zoo.loading import load_decoder, locate
from latentzip.zoo.public import config_of_diffusers, read_public
from latentzip.zoo.reading import read_state
from latentzip.zoo.registry import built_in

CPU = torch.device("cpu")
LDM = LdmConfig("kl", 4, 4, (8, 8), blocks=1, norm_groups=4, latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4)
CONFIGS: dict[str, ModelConfig] = {
    "kl": TINY_KL,
    "vq": TINY_VQ,
    "vq-prior": TINY_VQ_PRIOR,
    "ldm": LDM,
    "tiny": TinyConfig(4, 8),
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# Of no type that a field has, or of no size that it can have.
WRONG: list[Any] = [
    *("x", "", None, {}, {"a": 1}, [["x"]], ["kl"], [None], [{}], nested(50), nested(300)),
    *(float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 1e9, 2**31, -(2**31), 2**63, -(2**63), 10**400),
    *([1e30], [float("nan")], [10**400], [2**31] * 3, [1] * 5000),
]
# Right for some fields, and wrong for others.
STRANGE: list[Any] = [0, 1e-300, -1, 1, 1.5, True, [], [-1], [1, 1], 7, 300, [4096, 9]]


def refusal(make: Callable[[Any], object], of: Any) -> str | None:
    """What a ModelError says; None where there is none."""
    try:
        make(of)
    except ModelError as error:
        return str(error)
    return None


def make_on_meta(config: ModelConfig) -> int:
    """What a config is good for: modules, without memory; how many numbers they have."""
    modules = [make_encoder(config), make_decoder(config)]
    with torch.device("meta"):
        modules.append(make_latent(config))
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_field_takes_what_it_cannot_be(kind: str) -> None:
    config = CONFIGS[kind]
    fields = json.loads(config_to_json(config))
    assert config_from_json(json.dumps(fields)) == config
    for name in fields:
        for value in WRONG:
            with pytest.raises(ModelError) as caught:
                config_from_json(json.dumps({**fields, name: value}))
            assert len(str(caught.value)) < 500, (name, value)
        for value in STRANGE:
            text = json.dumps({**fields, name: value})
            assert refusal(config_from_json, text) or make_on_meta(config_from_json(text)) > 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "1", "null", '"x"', "\x00", "[" * 100_000, '{"a":' * 100_000),
        '{"config_version": [], "family": {}}',
        '{"config_version": 1, "family": ["lite"]}',
        '{"config_version": 1, "family": "lite"}',
        '{"config_version": 1, "family": "lite", "regularizer": "kl", "class": 1}',
        '{"config_version": 1, "family": "lite", "regularizer": "kl", "": 1}',
        '{"config_version": 1, "family": "lite", "regularizer": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:40],
)
def test_text_that_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        config_from_json(text)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (TINY_KL, {"hyper_channels": 192}),
        (TINY_KL, {"prior_width": 512}),
        (TINY_KL, {"prior_width": 1}),
        (TINY_KL, {"latent_channels": 600, "prior_groups": (300, 300)}),
        (TINY_KL, {"latent_channels": 241, "prior_groups": (1,) * 241}),
        (TINY_KL, {"gain_knots": 0}),
        (TINY_KL, {"widths": ()}),
        (TINY_KL, {"widths": (8, 0)}),
        (TINY_KL, {"lambdas": (0.0, 0.1)}),
        (TINY_KL, {"lambdas": (0.1, 0.0)}),
        (TINY_KL, {"lambdas": (0.1, 0.01)}),
        (TINY_KL, {"encoder_blocks": 10**9}),
        (TINY_VQ, {"stages": 300}),
        (TINY_VQ, {"codebook_size": 1}),
        (TINY_VQ_PRIOR, {"index_width": 1}),
        (TINY_VQ_PRIOR, {"index_width": 512}),
        (TINY_VQ_PRIOR, {"latent_channels": 4096}),
        (LDM, {"norm_groups": 0}),
        (LDM, {"latents_mean": (0.0,) * 3}),
        (LDM, {"latents_std": ()}),
        (LDM, {"latents_std": (1.0, 1.0, 1.0, 0.0)}),
        (LDM, {"shift": 0.1}),
        (LDM, {"attention_levels": (2,)}),
        (LDM, {"blocks": 0}),
        (CONFIGS["tiny"], {"encoder_blocks": (), "decoder_blocks": ()}),
        (CONFIGS["tiny"], {"encoder_blocks": (1,) * 30, "decoder_blocks": (1,) * 30}),
    ],
    ids=str,
)
def test_what_coding_cannot_do_is_refused_when_the_config_is_made(config: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        dataclasses.replace(config, **changes)


def largest(config: AutoencoderConfig, **changes: Callable[[int], Any]) -> AutoencoderConfig:
    """The last config that is made when a number grows."""
    made = config
    for number in range(2, MAX_TERMS):
        try:
            made = dataclasses.replace(config, **{name: of(number) for name, of in changes.items()})
        except ModelError:
            return made
    raise AssertionError("nothing is too much")


@pytest.mark.parametrize(
    "changes",
    [
        {"hyper_channels": lambda n: n},
        {"prior_width": lambda n: n},
        {"latent_channels": lambda n: n, "prior_groups": lambda n: (n,)},
        {"latent_channels": lambda n: n + 2, "prior_groups": lambda n: (2, n)},
        {"latent_channels": lambda n: 50 * n, "prior_groups": lambda n: (50,) * n},
    ],
    ids=["hyper", "width", "first group", "last group", "groups"],
)
def test_the_largest_kl_prior_can_be_made_exact(changes: dict[str, Callable[[int], Any]]) -> None:
    config = largest(TINY_KL, **changes)
    assert config != TINY_KL
    ExactHyperPrior(HyperPrior(config))


def test_the_largest_index_prior_can_be_made_exact() -> None:
    config = dataclasses.replace(largest(TINY_VQ_PRIOR, index_width=lambda n: n), stages=1)
    ExactIndexPrior(IndexPrior(config), torch.zeros(1, config.codebook_size, config.latent_channels))


def test_what_is_shipped_is_within_all_bounds() -> None:
    golden = Path(__file__).parent / "golden"
    for path in [*(entry.path for entry in built_in()), *golden.glob("*.safetensors")]:
        load_decoder(path, CPU)


HOSTILE_FIELDS = [("widths", "x"), ("hyper_channels", 2_000_000), ("encoder_blocks", 10**9), ("factor", float("nan"))]


@pytest.mark.parametrize(("name", "value"), HOSTILE_FIELDS)
def test_a_hostile_config_in_a_file_is_an_error_of_that_file(
    cli: Callable[..., Result], tmp_path: Path, tiny_weights: dict[str, Path], name: str, value: Any
) -> None:
    path = tmp_path / "hostile.safetensors"
    config = {**json.loads(config_to_json(TINY_KL)), name: value}
    save_file(load_file(tiny_weights["kl"]), path, {"config": json.dumps(config)})
    result = cli("encode", Path(__file__).parent / "images" / "coffee.png", "-m", path, "-o", tmp_path / "a.lz")
    assert result.code == 1
    assert result.err.startswith(f"latentzip: {path}: ")
    assert name in result.err
    assert not (tmp_path / "a.lz").exists()


DIFFUSERS = {
    "AutoencoderKL": {
        "latent_channels": 4,
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "scaling_factor": 0.5,
        "shift_factor": None,
        "latents_mean": [0.1] * 4,
        "latents_std": [2.0] * 4,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    },
    "VQModel": {
        "block_out_channels": [8],
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "norm_num_groups": 4,
        "num_vq_embeddings": 16,
        "vq_embed_dim": 3,
    },
    "AutoencoderTiny": {
        "latent_channels": 4,
        "encoder_block_out_channels": [8] * 4,
        "decoder_block_out_channels": [8] * 4,
        "num_encoder_blocks": [1, 1, 1, 1],
        "num_decoder_blocks": [1, 1, 1, 1],
        "use_midblock_gn": False,
    },
}


@pytest.mark.parametrize("kind", DIFFUSERS)
def test_configs_of_diffusers_are_checked_too(kind: str) -> None:
    fields = {"_class_name": kind, **DIFFUSERS[kind]}
    make_on_meta(config_of_diffusers(fields))
    for name in fields:
        for value in [*WRONG, *STRANGE]:
            changed = {**fields, name: value}
            said = refusal(config_of_diffusers, changed)
            if said is None:
                assert 0 < make_on_meta(config_of_diffusers(changed)) < 1e9, (name, value)
            else:
                assert len(said) < 500, (name, value)


@pytest.mark.parametrize(
    "fields", [[1], [], None, 1, "x", {}, {"_class_name": ["AutoencoderKL"]}, nested(500)], ids=repr
)
def test_what_is_no_config_of_diffusers_is_refused(fields: Any) -> None:
    with pytest.raises(ModelError):
        config_of_diffusers(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm_num_groups", 0),
        ("scaling_factor", 0),
        ("scaling_factor", "0.5"),
        ("latents_std", [1.0] * 3),
        ("shift_factor", 0.1),
    ],
)
def test_what_would_be_read_in_another_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ModelError):
        config_of_diffusers({"_class_name": "AutoencoderKL", **DIFFUSERS["AutoencoderKL"], name: value})


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", " " * (2**20 + 1), "\udcff"], ids=["deep", "list", "long", "bytes"]
)
def test_a_folder_with_a_hostile_config_is_an_error_of_that_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError) as caught:
        read_public(locate(str(tmp_path)))
    assert str(caught.value).startswith(str(tmp_path))


# Pickles


class Harmful:
    """What a checkpoint must never be able to do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def saved(state: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **how)
    return file.getvalue()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_mutated_pickles_end_in_one_kind_of_error(tmp_path: Path, zipped: bool) -> None:
    """Seeded: one to eight bytes changed, or the end cut off. What is still read is plain tensors."""
    state = {"state_dict": {"a": torch.ones(2, 3), "b": torch.zeros(4).half(), "c": torch.ones(2, dtype=torch.int64)}}
    good = saved(state, _use_new_zipfile_serialization=zipped)
    rng = random.Random(0)
    path = tmp_path / "model.ckpt"
    refused = 0
    for _ in range(250):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 255, rng.randrange(256), *b"Rcbq.}("])
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)
        said = refusal(read_state, path)
        refused += said is not None
        assert said is None or (said.startswith(f"{path}: ") and "weights_only" not in said)
    assert refused > 60


def harmful_files() -> dict[str, bytes]:
    overlap = torch.zeros(1).expand(10_000, 10_000)
    with warnings.catch_warnings():  # of a kind that is to go
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    return {
        "a program": saved({"state_dict": Harmful()}),
        "a program in a bare pickle": pickle.dumps({"state_dict": Harmful()}),
        "a whole module": saved(torch.nn.Linear(2, 2)),
        "strides of 0": saved({"encoder.layers.0.weight": overlap}),
        "a sparse tensor": saved({"a": torch.eye(3).to_sparse()}),
        "a tensor on meta": saved({"a": torch.empty(10**9, 10**3, device="meta")}),
        "a quantized tensor": saved({"a": quantized}),
        "no names": saved([torch.ones(1)]),
        "a number": saved(1),
        "nothing": b"",
        "no pickle": b"nonsense",
        "a page": b"<!DOCTYPE html>",
        "a pointer": b"version https://git-lfs.github.com/spec/v1\n",
    }


@pytest.mark.parametrize("what", harmful_files())
def test_checkpoints_that_are_no_plain_tensors_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(harmful_files()[what])
    with pytest.raises(ModelError) as caught:
        read_public(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "weights_only" not in str(caught.value)


def test_a_program_of_torchscript_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():  # of a kind that is to go
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError) as caught:
        read_public(path)
    assert "weights_only" not in str(caught.value)


def test_of_what_a_trainer_keeps_beside_the_tensors_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's callbacks are keyed by their classes, and options are objects. Those that are here stay unused."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    made: list[object] = []

    class ModelCheckpoint:
        def __init__(self) -> None:
            made.append(self)

        def __setstate__(self, state: object) -> None:
            made.append(state)

    def make(*arguments: object) -> ModelCheckpoint:
        made.append(arguments)
        return ModelCheckpoint()

    class Made:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return make, ("harmed",)

    for name, thing in (("ModelCheckpoint", ModelCheckpoint), ("make", make)):
        thing.__module__, thing.__qualname__ = module.__name__, name
        setattr(module, name, thing)
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    options = ModelCheckpoint()
    options.__dict__["monitor"] = "val/rec_loss"
    tensors = {"encoder.x": torch.ones(2)}
    lightning = {"callbacks": {ModelCheckpoint: {"best": torch.ones(1)}}, "options": [options, Made()]}
    path = tmp_path / "model.ckpt"
    path.write_bytes(saved({"epoch": 1, **lightning, "state_dict": tensors}))
    made.clear()
    state = read_state(path)
    assert state.keys() == tensors.keys()
    assert torch.equal(state["encoder.x"], tensors["encoder.x"])
    assert not made
    path.write_bytes(saved({**lightning, "state_dict": {"harm": Harmful(), **tensors}}))
    with pytest.raises(ModelError, match="can run any program"):
        read_state(path)


# Files that are none


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name here")
@pytest.mark.parametrize(
    "place", ["model.safetensors", "a.ckpt", "a", "config.json", "diffusion_pytorch_model.safetensors"]
)
def test_pipes_are_not_waited_for(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / place)
    if place.startswith("diffusion"):
        (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **DIFFUSERS["AutoencoderKL"]}))
    ends: list[object] = []

    def load() -> None:
        try:
            load_decoder(locate(str(folder / place if place.startswith("a") else folder)), CPU)
        except ModelError as error:
            ends.append(str(error))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(60)
    assert len(ends) == 1
    assert str(ends[0]).startswith(str(folder))


def test_names_that_cannot_be_looked_for_are_errors() -> None:
    for name in ("x" * 5000, "a/" * 3000, "with\x00zero"):
        with pytest.raises(ModelError):
            locate(name)


def test_a_missing_built_in_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = dataclasses.replace(built_in()[0], path=tmp_path / "gone.safetensors")
    monkeypatch.setattr("latentzip.zoo.loading.built_in", lambda: (gone,))
    with pytest.raises(ModelError, match="install latentzip again"):
        load_decoder(gone.path, CPU)
