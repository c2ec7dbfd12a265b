"""What is loaded is checked before it is used, and what is saved can be loaded: dtypes, values, devices."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_KL, TINY_NORMAL, TINY_VQ_PRIOR, tiny_model
from safetensors.torch import save
from torch import Tensor

from latentzip.errors import ModelError
from latentzip.models.autoencoder import Autoencoder
from latentzip.models.config import AutoencoderConfig
from latentzip.models.families import config_to_json
from latentzip.training.data import Pictures
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start
from latentzip.zoo.checkpoints import (
    FINGERPRINT_BYTES,
    fingerprint,
    read_metadata,
    read_tensors,
    save_as_is,
    save_weights,
)
from latentzip.zoo.loading import load_autoencoder, load_decoder, load_encoder

CPU = torch.device("cpu")
PARTS = ["encoder", "analysis", "latent", "decoder"]


def write_unchecked(path: Path, config: AutoencoderConfig, tensors: dict[str, Tensor]) -> None:
    """A weights file whose metadata is true, whatever it holds."""
    prints = {f"{part}_fingerprint": fingerprint(config, tensors, part).hex() for part in FINGERPRINT_BYTES}
    path.write_bytes(save(tensors, {"config": config_to_json(config), **prints}))


def with_one(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


SPOILED: dict[str, tuple[AutoencoderConfig, str, Callable[[Tensor], Tensor], str]] = {
    "NaN in the encoder": (TINY_KL, "encoder.linear.bias", lambda t: with_one(t, float("nan")), "not finite"),
    "NaN in the decoder": (TINY_KL, "decoder.linear.weight", lambda t: with_one(t, float("nan")), "not finite"),
    "infinity in the prior": (TINY_KL, "latent.prior.rate.0.bias", lambda t: with_one(t, float("inf")), "not finite"),
    "NaN in the analysis": (TINY_KL, "analysis.layers.0.bias", lambda t: with_one(t, float("nan")), "not finite"),
    "NaN in a codebook": (TINY_VQ_PRIOR, "latent.quantizer.codebooks", lambda t: t * float("nan"), "not finite"),
    "beyond float32": (TINY_KL, "encoder.linear.bias", lambda t: t.double() * 1e300 + 1e300, "not finite"),
    "integers for floats": (TINY_KL, "encoder.linear.bias", lambda t: t.int(), "kind of numbers"),
    "complex numbers": (TINY_KL, "decoder.linear.bias", lambda t: t.to(torch.complex64), "kind of numbers"),
    "floats of a byte": (TINY_KL, "decoder.linear.bias", lambda t: t.to(torch.float8_e4m3fn), "kind of numbers"),
    "truth values": (TINY_KL, "latent.log_gain", lambda t: t > 0, "kind of numbers"),
    "floats for integers": (TINY_KL, "latent.scale_table", lambda t: t.float(), "kind of numbers"),
    "wide integers": (TINY_KL, "latent.scale_table", lambda t: t.long(), "kind of numbers"),
    "another shape": (TINY_KL, "latent.log_gain", lambda t: t[:1], "shape"),
    "gains beyond any": (TINY_KL, "latent.log_gain", lambda t: with_one(t, 1000.0), "nothing can be coded"),
    "a table of zeros": (TINY_KL, "latent.scale_table", lambda t: t * 0, "nothing can be coded"),
    "a table with gaps": (TINY_KL, "latent.scale_table", lambda t: t.roll(1, 1), "nothing can be coded"),
    "negative counts": (TINY_KL, "latent.scale_table", lambda t: -t, "nothing can be coded"),
    "no deviation": (TINY_NORMAL, "latent.std", lambda t: t * 0, "nothing can be coded"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, what: str) -> None:
    """By whichever part of the model asks for them, and by the whole."""
    config, name, spoil, message = SPOILED[what]
    tensors = tiny_model(config).state_dict()
    tensors[name] = spoil(tensors[name]).contiguous()
    path = tmp_path / "spoiled.safetensors"
    write_unchecked(path, config, tensors)
    part = name.split(".")[0]
    loads = [lambda: load_autoencoder(str(path), CPU)]
    loads += [lambda: load_decoder(path, CPU)] if part in ("latent", "decoder") else []
    loads += [lambda: load_encoder(str(path), CPU)] if part != "decoder" else []
    for load in loads:
        with pytest.raises(ModelError, match=message) as caught:
            load()
        assert str(caught.value).startswith(f"{path}: ")
        assert name in str(caught.value)


def test_a_training_starts_from_nothing_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "spoiled.safetensors"
    tensors = tiny_model(TINY_KL).state_dict()
    tensors["analysis.layers.0.bias"] = with_one(tensors["analysis.layers.0.bias"], float("nan"))
    write_unchecked(path, TINY_KL, tensors)
    with pytest.raises(ModelError, match=r"not finite in analysis\.layers\.0\.bias"):
        start(Autoencoder(TINY_KL), Pictures(), TrainSettings(max_steps=1, init=str(path)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tiny_model(TINY_KL).state_dict().items()}
    save_as_is(path, TINY_KL, tensors, {}, overwrite=False)
    stored = read_tensors(path, PARTS)
    assert all(torch.equal(stored[name], t) and stored[name].dtype == t.dtype for name, t in tensors.items())
    loaded = load_autoencoder(str(path), CPU).state_dict()
    assert all(torch.equal(loaded[name], t.to(loaded[name].dtype)) for name, t in tensors.items())


def test_the_fingerprint_tells_all_dtypes_apart() -> None:
    """Also where a tensor has no dimension, and whatever its strides are."""
    values = {"latent.a": torch.tensor(1.0), "latent.b": torch.arange(6.0).view(2, 3)}
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    prints = {fingerprint(TINY_KL, {n: t.to(d) for n, t in values.items()}, "latent") for d in dtypes}
    assert len(prints) == len(dtypes)
    strided = {**values, "latent.b": values["latent.b"].T.contiguous().T}
    assert not strided["latent.b"].is_contiguous()
    assert fingerprint(TINY_KL, strided, "latent") == fingerprint(TINY_KL, values, "latent")
    assert fingerprint(TINY_KL, values, "latent").hex() == "3f59100ab6075169"  # of before there was bfloat16


class Elsewhere(Tensor):
    """Behaves as a tensor on a GPU does: its numbers can be had on the CPU alone, and only by asking for that."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name in ("numpy", "data_ptr", "untyped_storage", "__array__", "tolist"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out.as_subclass(Tensor) if name == "cpu" else out


@pytest.mark.parametrize("config", [TINY_KL, TINY_VQ_PRIOR, TINY_NORMAL], ids=["kl", "vq-prior", "normal"])
def test_what_lies_on_another_device_is_saved_alike(tmp_path: Path, config: AutoencoderConfig) -> None:
    tensors = tiny_model(config).state_dict()
    elsewhere = {name: t.as_subclass(Elsewhere) for name, t in tensors.items()}
    with pytest.raises(TypeError, match="device type"):
        elsewhere["encoder.linear.bias"].numpy()
    save_weights(tmp_path / "here.safetensors", config, tensors, {"a": "b"})
    save_weights(tmp_path / "there.safetensors", config, elsewhere, {"a": "b"})
    here, there = (read_tensors(tmp_path / f"{name}.safetensors", PARTS) for name in ("here", "there"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], tensor) for name, tensor in there.items())
    assert read_metadata(tmp_path / "here.safetensors") == read_metadata(tmp_path / "there.safetensors")


def test_tied_tensors_are_saved_each(tmp_path: Path) -> None:
    tensors = tiny_model(TINY_KL).state_dict()
    tensors["decoder.deep.1.0.first.bias"] = tensors["decoder.deep.0.bias"]
    save_as_is(tmp_path / "tied.safetensors", TINY_KL, tensors, {}, overwrite=False)
    load_decoder(tmp_path / "tied.safetensors", CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: float) -> None:
    """1e5 is a number, but not in half precision. What was there stays."""
    tensors = tiny_model(TINY_KL).state_dict()
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"what was there")
    tensors["decoder.linear.bias"] = with_one(tensors["decoder.linear.bias"], value)
    with pytest.raises(ModelError, match=r"not written, for decoder\.linear\.bias"):
        save_weights(path, TINY_KL, tensors, {})
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]
