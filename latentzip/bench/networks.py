"""Neural models as codecs of a comparison: one encoder's pass, then files at every level."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from latentzip import __version__
from latentzip.bench.baselines import thinned
from latentzip.bench.metrics import LPIPS_VGG, trained_on
from latentzip.codec import Analysed, analyse, fixed_stages, level_for, levels, paint, read_symbols, write_latent
from latentzip.container import MAX_LEVEL, MAX_QUALITY, parse
from latentzip.images import Picture, Pixels
from latentzip.zoo.checkpoints import read_metadata
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, is_public, load_decoder, load_encoder, locate
from latentzip.zoo.registry import built_in

QUALITIES = (1, 20, 40, 60, 80, 100)
SUFFIX = ".lz"


class Model:
    """A neural model. A setting is a level, as `encode --json` names it, see `codec.levels`."""

    suffix = SUFFIX

    def __init__(self, source: str | None, device: torch.device) -> None:
        """source: as `encode -m` takes it. Raises ModelError."""
        self.source = source
        self.device = device
        path = locate(source)
        self._encoder: LoadedEncoder = load_encoder(source, device)
        self._decoder: LoadedDecoder = load_decoder(path, device)
        self.name = self._encoder.public_name or self._encoder.name
        self.title = self.name
        self.settings = f"latentzip {__version__}, effort 0, weights {_digest(path)}"
        self.trained_on = _trained_on(path, self._encoder.config.family)

    @property
    def key(self) -> str:
        return f"{self.name}: {self.settings}, {self.device.type}"

    @property
    def library_version(self) -> str:
        return f"torch {torch.__version__} on {self.device.type}"

    @property
    def choices(self) -> Sequence[int]:
        return levels(self._encoder)

    def chosen(self, quick: bool) -> list[int]:
        """Levels of a comparison: all stages where they are fixed, those of QUALITIES otherwise."""
        usual = list(dict.fromkeys(level_for(self._encoder, quality) for quality in QUALITIES))
        if fixed_stages(self._encoder):
            usual = list(self.choices)
        return thinned(usual) if quick else usual

    def label(self, setting: int) -> str:
        """What to ask `encode` for: -q Q, where a whole quality is that level."""
        quality = self.quality(setting)
        return f"-q {quality}" if level_for(self._encoder, quality) == setting else f"level {setting}"

    def quality(self, setting: int) -> int:
        """The quality that is this level, or nearly."""
        if stages := fixed_stages(self._encoder):
            return max(1, setting * MAX_QUALITY // stages)
        return round(setting / MAX_LEVEL * (MAX_QUALITY - 1)) + 1

    def analyse(self, picture: Picture) -> tuple[Analysed, float]:
        """The encoder's pass, the same for all levels, and its seconds. Raises FormatError."""
        start = time.perf_counter()
        analysed = analyse(picture, self._encoder)
        self._wait()
        return analysed, time.perf_counter() - start

    def write(self, analysed: Analysed, setting: int) -> tuple[bytes, float]:
        """The bytes of a .lz file, and the seconds of the prior and the range coder. Raises FormatError."""
        start = time.perf_counter()
        data = write_latent(analysed, self._encoder, setting, verify=False)
        return data, time.perf_counter() - start

    def read(self, data: bytes) -> tuple[Pixels, dict[str, float]]:
        """The picture, and the seconds of the whole, of coding and of the network. Raises FormatError."""
        start = time.perf_counter()
        container = parse(data)
        parsed = read_symbols(container, self._decoder)
        between = time.perf_counter()
        picture = paint(container, parsed, self._decoder)
        end = time.perf_counter()
        return picture.pixels, {
            "decode": end - start,
            "decode_coding": between - start,
            "decode_network": end - between,
        }

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _digest(path: Path) -> str:
    """Leading digits of the SHA-256 of the weights, of a folder those of all its files."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _trained_on(path: Path, family: str) -> frozenset[str]:
    """Which metrics were in its loss, as far as the manifest or its metadata tell."""
    if is_public(path):  # the first stages of latent diffusion, arXiv 2112.10752; of others nothing is known here
        return trained_on({}, [LPIPS_VGG.key] if family == "ldm" else ())
    declared = next((entry.trained_on for entry in built_in() if entry.path == path), ())
    settings = read_metadata(path).get("settings")
    return trained_on(json.loads(settings) if settings else {}, declared)
