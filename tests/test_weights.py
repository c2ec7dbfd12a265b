"""The built-in weights are what the manifest and their cards say."""

import hashlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import noise_picture
from safetensors.torch import save_file

from latentzip.codec import encode_image
from latentzip.container import parse
from latentzip.errors import ModelError
from latentzip.training.settings import TrainSettings
from latentzip.zoo import loading
from latentzip.zoo.checkpoints import MODEL_NAME, fingerprint, read_tensors, save_weights
from latentzip.zoo.loading import load_decoder, load_encoder, weights_for
from latentzip.zoo.registry import built_in, find_by_fingerprint


def test_the_manifest_is_true() -> None:
    entries = built_in()
    assert all(entry.size < 30e6 for entry in entries)
    for entry in entries:
        assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256
        assert entry.path.with_suffix(".md").read_text().startswith(f"# {entry.name}")
        decoder = load_decoder(entry.path, torch.device("cpu"))
        assert decoder.latent_fingerprint == entry.latent_fingerprint
        assert decoder.decoder_fingerprint == entry.decoder_fingerprint
        assert (decoder.config.regularizer, decoder.config.factor) == (entry.regularizer, entry.factor)
        assert find_by_fingerprint(entry.latent_fingerprint, b"none") == entry


def test_a_run_becomes_a_built_in_model(
    tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`weights/update.py` as its own help says, and with a run that is none: then nothing is replaced."""
    script = Path(__file__).parents[1] / "weights" / "update.py"
    run, weights = tmp_path / "run", tmp_path / "weights"
    run.mkdir()
    weights.mkdir()
    shutil.copy(script, weights)
    tensors = read_tensors(tiny_weights["vq"], ["encoder", "latent", "decoder"])
    config = load_decoder(tiny_weights["vq"], torch.device("cpu")).config
    notes = {"steps": "1", "minutes": "1", "settings": TrainSettings(max_steps=1).to_public_json()}
    save_weights(run / MODEL_NAME, config, tensors, notes)
    monkeypatch.setattr(sys, "argv", ["update.py", str(run), "tiny", "--summary", "for a test"])
    runpy.run_path(str(weights / "update.py"), run_name="__main__")
    entry = json.loads((weights / "manifest.json").read_text())["models"]["tiny"]
    data = (weights / entry["file"]).read_bytes()
    assert data == (run / MODEL_NAME).read_bytes()
    assert (entry["sha256"], entry["regularizer"]) == (hashlib.sha256(data).hexdigest(), "vq")
    (run / MODEL_NAME).write_bytes(b"no model")
    with pytest.raises(ModelError):
        runpy.run_path(str(weights / "update.py"), run_name="__main__")
    assert (weights / entry["file"]).read_bytes() == data


def test_a_decoder_between_two_keeps_the_latent_space(
    tmp_path: Path, tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`weights/mix.py` of a model and the same with another decoder; models of another architecture are refused."""
    script = Path(__file__).parents[1] / "weights" / "mix.py"
    before = read_tensors(tiny_weights["vq"], ["encoder", "latent", "decoder"])
    after = {name: t + 1 if name.startswith("decoder") else t for name, t in before.items()}
    old = load_decoder(tiny_weights["vq"], torch.device("cpu"))
    notes = {"steps": "1", "minutes": "1", "settings": TrainSettings(max_steps=1).to_public_json()}
    save_weights(tmp_path / "after.safetensors", old.config, after, notes)
    arguments = [tiny_weights["vq"], tmp_path / "after.safetensors", 0.25, tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["mix.py", *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")
    mixed = read_tensors(tmp_path / "out" / MODEL_NAME, ["encoder", "latent", "decoder"])
    for name, tensor in before.items():
        expected = tensor.float() + 0.25 if name.startswith("decoder") else tensor
        assert torch.allclose(mixed[name].to(expected.dtype), expected, atol=2e-3), name
    assert load_decoder(tmp_path / "out" / MODEL_NAME, torch.device("cpu")).latent_fingerprint == old.latent_fingerprint
    monkeypatch.setattr(sys, "argv", ["mix.py", str(tiny_weights["kl"]), *map(str, arguments[1:])])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    assert "different architectures" in capsys.readouterr().err


def test_decoding_reads_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def spy(path: object, parts: list[str]) -> dict[str, torch.Tensor]:
        read.extend(parts)
        return read_tensors(path, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "read_tensors", spy)
    load_decoder(built_in()[0].path, torch.device("cpu"))
    assert read == ["latent", "decoder"]


def test_weights_whose_tensors_were_swapped_are_refused(tmp_path, tiny_weights) -> None:  # type: ignore[no-untyped-def]
    """A file whose metadata names other tensors than it holds must not decode anything."""
    path = tmp_path / "forged.safetensors"
    data = bytearray(tiny_weights["vq"].read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="not those that its metadata names"):
        load_decoder(path, torch.device("cpu"))


def test_a_new_decoder_serves_old_files(tmp_path, tiny_weights) -> None:  # type: ignore[no-untyped-def]
    """The latent space's fingerprint does not move with the decoder."""
    old = load_decoder(tiny_weights["vq"], torch.device("cpu"))
    tensors = read_tensors(tiny_weights["vq"], ["encoder", "latent", "decoder"])
    tensors = {name: t + 1 if name == "decoder.linear.bias" else t for name, t in tensors.items()}
    save_weights(tmp_path / "new.safetensors", old.config, tensors, {})
    new = load_decoder(tmp_path / "new.safetensors", torch.device("cpu"))
    assert new.latent_fingerprint == old.latent_fingerprint
    assert new.decoder_fingerprint != old.decoder_fingerprint
    encoder = load_encoder(str(tiny_weights["vq"]), torch.device("cpu"))
    container = parse(encode_image(noise_picture(40, 30), encoder))
    path = weights_for(container, str(tmp_path / "new.safetensors"))
    assert path == tmp_path / "new.safetensors"


def test_fingerprints_depend_on_names_shapes_and_values() -> None:
    config = load_encoder(None, torch.device("cpu")).config
    base = {"latent.a": torch.zeros(2, 3), "decoder.b": torch.ones(1)}
    prints = [
        fingerprint(config, tensors, "latent")
        for tensors in (
            base,
            {"latent.x": torch.zeros(2, 3)},
            {"latent.a": torch.zeros(3, 2)},
            {"latent.a": torch.zeros(2, 3).half()},
            {"latent.a": torch.zeros(2, 3).index_fill(0, torch.tensor(1), 1.0)},
        )
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(config, {**base, "decoder.b": torch.zeros(1)}, "latent") == prints[0]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x10\0\0\0\0\0\0\0not json at all!"])
def test_files_that_are_no_weights_are_refused(tmp_path, content: bytes) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.safetensors: not a readable weights file"):
        load_encoder(str(path), torch.device("cpu"))


def test_a_model_of_another_family_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "foreign.safetensors"
    save_file({"encoder.a": torch.zeros(1)}, path, {"config": '{"config_version": 1, "family": "fsq"}'})
    with pytest.raises(ModelError, match=r"foreign\.safetensors: .*family 'fsq'"):
        load_encoder(str(path), torch.device("cpu"))
