"""Public models by name, against a stand-in for the Hub on loopback and a cache laid out as huggingface_hub lays it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import Result, noise_picture
from PIL import Image
from safetensors.torch import save

from latentzip import load_latents
from latentzip.codec import analyse, write_latent
from latentzip.models.tiny import TinyConfig
from latentzip.zoo.hub import PUBLIC_MODELS, find_public
from latentzip.zoo.loading import load_encoder, make_decoder, make_encoder

REPOSITORY = "madebyollin/taesdxl"  # any will do for a stand-in
COMMIT = "b20258aaef75ef61e659c1e0f14f251cf0ad153e"
CONFIG = {
    "_class_name": "AutoencoderTiny",
    "latent_channels": 4,
    "encoder_block_out_channels": [8] * 4,
    "decoder_block_out_channels": [8] * 4,
}


def taesd_files() -> dict[str, bytes]:
    """config.json and weights of a thin, random TAESD, as diffusers saves them."""
    torch.manual_seed(0)
    config = TinyConfig(4, 8)
    tensors = {}
    for part, make in (("encoder", make_encoder), ("decoder", make_decoder)):
        for key, tensor in make(config).state_dict().items():
            tensors[f"{part}.{key}"] = torch.randn(tensor.shape) * 0.2
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "diffusion_pytorch_model.safetensors": save(tensors),
    }


def etag_of(name: str, data: bytes) -> str:
    """As the Hub has them: SHA-256 of large files, git's SHA-1 of small ones."""
    if name.endswith(".json"):
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return hashlib.sha256(data).hexdigest()


@dataclass
class Hub:
    """What the stand-in serves, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=taesd_files)
    status: int = 200
    error: str = ""  # the Hub's X-Error-Code
    break_after: int | None = None  # bytes of a weights file, after which the connection is closed, once
    damaged: int = 0  # downloads of weights that arrive with a wrong byte
    tokens: list[str | None] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            state.tokens.append(self.headers.get("Authorization"))
            name = self.path.rsplit("/", 1)[-1]
            if state.status != 200 or name not in state.files or f"/{REPOSITORY}/resolve/" not in self.path:
                self.send_response(state.status if state.status != 200 else 404)
                if state.error or state.status == 200:
                    self.send_header("X-Error-Code", state.error or "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = state.files[name]
            start = 0
            if asked := self.headers.get("Range"):
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if asked else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag_of(name, data)}"')
            self.send_header("Content-Length", str(len(data) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not with_body:
                return
            state.downloads.append(name)
            body = data[start:]
            if not name.endswith(".json"):
                if state.damaged:
                    state.damaged -= 1
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if state.break_after is not None:
                    body, state.break_after = body[: state.break_after], None
                    self.close_connection = True
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def run(home: Path, *arguments: object, hub: Hub | None = None, **more: str) -> Result:
    """The command in a process of its own: huggingface_hub reads the environment when it is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_ENDPOINT": hub.url} if hub else {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "latentzip", *map(str, arguments)],
        env=environment | more,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def fill_cache(home: Path, files: dict[str, bytes]) -> Path:
    """A repository as it lies in the cache after a download; returns the snapshot's folder."""
    folder = home / "hub" / ("models--" + REPOSITORY.replace("/", "--"))
    snapshot = folder / "snapshots" / COMMIT
    for place in (folder / "blobs", snapshot):
        place.mkdir(parents=True)
    for name, data in files.items():
        blob = folder / "blobs" / etag_of(name, data)
        blob.write_bytes(data)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(noise_picture(40, 24).pixels).save(path)
    return path


def test_pulled_encoded_decoded(hub: Hub, tmp_path: Path, photo: Path) -> None:
    """By its repository's name too; what is in the cache needs no network, and a file says what to pull."""
    home = tmp_path / "home"
    missing = run(home, "encode", photo, "-m", REPOSITORY)
    assert missing.code == 1
    assert "latentzip models pull taesdxl" in missing.err
    pulled = run(home, "models", "pull", "taesdxl", hub=hub, HF_TOKEN="hf_secret")
    assert pulled.code == 0, pulled.err
    assert sorted(hub.downloads) == sorted(hub.files)
    assert "Bearer hf_secret" in hub.tokens
    assert run(home, "models", "path", REPOSITORY).out.strip().endswith(COMMIT)
    assert run(home, "encode", photo, "-m", REPOSITORY).code == 0
    listed = json.loads(run(home, "models", "list", "--json").out)["models"]
    states = {model["name"]: model["state"] for model in listed}
    assert states["taesdxl"] == "cached"
    assert states["taesd"] == "available"
    lz = photo.with_suffix(".lz")
    assert run(home, "decode", lz, "-o", tmp_path / "back.png").code == 0
    with Image.open(tmp_path / "back.png") as back:
        assert back.size == (40, 24)
    elsewhere = run(tmp_path / "empty", "decode", lz, "-o", tmp_path / "no.png")
    assert elsewhere.code == 1
    assert "latentzip models pull taesdxl" in elsewhere.err
    assert not (tmp_path / "no.png").exists()


def test_pulling_twice_downloads_once(hub: Hub, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "models", "pull", "taesdxl", hub=hub).code == 0
    assert len(hub.downloads) == len(hub.files)


def test_a_broken_connection_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = 1000
    assert run(tmp_path, "models", "pull", "taesdxl", hub=hub).code == 0
    place = Path(run(tmp_path, "models", "path", "taesdxl").out.strip())
    assert {path.name: path.read_bytes() for path in place.iterdir()} == hub.files


@pytest.mark.parametrize(("times", "code"), [(1, 0), (2, 1)])
def test_a_wrong_checksum_is_noticed(hub: Hub, tmp_path: Path, times: int, code: int) -> None:
    """Once: fetched again. Twice: an error, and what is wrong is not taken for the model later."""
    hub.damaged = times
    result = run(tmp_path, "models", "pull", "taesdxl", hub=hub)
    assert result.code == code
    assert ("another checksum" in result.err) == bool(code)
    assert run(tmp_path, "models", "pull", "taesdxl", hub=hub).code == 0


def test_a_damaged_cache_is_mended_by_pulling(hub: Hub, tmp_path: Path, photo: Path) -> None:
    weights = fill_cache(tmp_path, hub.files) / "diffusion_pytorch_model.safetensors"
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:500])
    refused = run(tmp_path, "encode", photo, "-m", "taesdxl")
    assert refused.code == 1
    assert "not a readable checkpoint" in refused.err
    assert run(tmp_path, "models", "pull", "taesdxl", hub=hub).code == 0
    assert run(tmp_path, "encode", photo, "-m", "taesdxl").code == 0


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, "GatedRepo", "licence agreed to"),
        (403, "GatedRepo", "licence agreed to"),
        (404, "RepoNotFound", "no such repository"),
        (404, "RevisionNotFound", "install a newer latentzip"),
        (404, "EntryNotFound", "install a newer latentzip"),
    ],
)
def test_refusals_of_the_hub_are_explained(hub: Hub, tmp_path: Path, status: int, error: str, message: str) -> None:
    hub.status, hub.error = status, error
    result = run(tmp_path, "models", "pull", "taesdxl", hub=hub)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"latentzip: taesdxl ({REPOSITORY}): ")
    assert message in result.err


def test_without_network_it_says_so(tmp_path: Path) -> None:
    offline = run(tmp_path, "models", "pull", "taesdxl")
    assert offline.code == 1
    assert "HF_HUB_OFFLINE" in offline.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("refused"), "cannot be reached"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied"), "HF_HOME"),
        (RuntimeError("connection reset\nby peer"), "broke off (connection reset): pull again"),
    ],
)
def test_what_goes_wrong_on_the_way_is_explained(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result], error: Exception, message: str
) -> None:
    """What would take a real network or a full disk, raised where huggingface_hub raises it."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    result = cli("models", "pull", "taesdxl")
    assert result.code == 1
    assert message in result.err


@pytest.mark.parametrize("name", ["kl-f8", "no-such-model"])
def test_what_cannot_be_pulled_says_why(cli: Callable[..., Result], name: str) -> None:
    result = cli("models", "pull", name)
    assert result.code == 1
    assert ("models convert" if name == "kl-f8" else "models list") in result.err


def test_all_that_was_promised_is_known() -> None:
    names = "sd-vae-ft-mse sd-vae-ft-ema sdxl-vae sdxl-vae-fp16-fix sd3-vae flux-vae taesd taesdxl taesd3 taef1 taef2"
    for name in names.split():
        model = find_public(name)
        assert model is not None
        assert find_public(model.repository) is model
    assert len({model.name for model in PUBLIC_MODELS}) == len(PUBLIC_MODELS)


def test_names_stand_for_one_commit_or_say_that_they_do_not(cli: Callable[..., Result]) -> None:
    """Of one repository no commit is known to us. A file that other weights made is refused by its fingerprint."""
    moving = {model.name for model in PUBLIC_MODELS if not re.fullmatch("[0-9a-f]{40}", model.revision)}
    assert moving == {"vq-f4"}
    lines = cli("models", "list").out.splitlines()
    assert [line.split()[0] for line in lines if "follows main" in line] == ["vq-f4"]


def test_latents_for_other_programs(tmp_path: Path, tiny_weights: dict[str, Path]) -> None:
    """Half precision to the bit, quantised ones within a step, indices as they are."""
    files = taesd_files()
    folder = tmp_path / "taesd"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    encoder = load_encoder(str(folder), torch.device("cpu"))
    analysed = analyse(noise_picture(45, 30), encoder)
    path = tmp_path / "a.lz"
    path.write_bytes(write_latent(analysed, encoder, 0, coding="fp16"))
    latents = load_latents(path, str(folder))
    assert latents.dtype == torch.float16
    assert torch.equal(latents, analysed.latent.half())
    path.write_bytes(write_latent(analysed, encoder, 200))
    step = 2.0 ** (2 - 200 / 32)
    off = (load_latents(path, str(folder)) - analysed.latent).abs()
    assert (off <= step / 2 * 1.001 + 2**-11 * analysed.latent.abs()).all()  # and half precision's rounding
    encoder = load_encoder(str(tiny_weights["vq"]), torch.device("cpu"))
    analysed = analyse(noise_picture(45, 30), encoder)
    path.write_bytes(write_latent(analysed, encoder, 2))
    indices = load_latents(path, str(tiny_weights["vq"]))
    assert indices.shape == (1, 2, 2, 3)
    assert not indices.is_floating_point()
