"""Which models there are and where. No torch: `info` and `models list` ask here."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from latentzip.errors import ModelError


@dataclass(frozen=True)
class ModelEntry:
    """A built-in model, as weights/manifest.json describes it."""

    name: str
    path: Path
    sha256: str
    latent_fingerprint: bytes
    decoder_fingerprint: bytes
    regularizer: str
    factor: int
    license: str
    summary: str
    trained_on: tuple[str, ...]  # figures that its losses were made of, by their keys in `bench`

    @property
    def size(self) -> int:
        """Bytes of the weights file."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def weights(self) -> Path:
        """Where the weights are. Raises ModelError where they should be and are not."""
        if not self.path.is_file():
            raise ModelError(f"{self.path}: the weights of {self.name} are missing: install latentzip again")
        return self.path

    def found_sha256(self) -> str:
        """Of the weights as they are here. Raises ModelError where they cannot be read."""
        try:
            return hashlib.sha256(self.weights.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read ({error.strerror}): install latentzip again") from None


def weights_folder() -> Path:
    """The built-in weights: inside an installed package, beside it in a source tree."""
    inside = Path(str(files("latentzip"))) / "weights"
    return inside if inside.is_dir() else inside.parent.parent / "weights"


@cache
def built_in() -> tuple[ModelEntry, ...]:
    """All built-in models, the default first. Raises ModelError where the installation is damaged."""
    folder = weights_folder()
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        entries = [
            ModelEntry(
                name=name,
                path=folder / entry["file"],
                sha256=entry["sha256"],
                latent_fingerprint=bytes.fromhex(entry["latent_fingerprint"]),
                decoder_fingerprint=bytes.fromhex(entry["decoder_fingerprint"]),
                regularizer=entry["regularizer"],
                factor=entry["factor"],
                license=entry["license"],
                summary=entry["summary"],
                trained_on=tuple(entry.get("trained_on", ())),
            )
            for name, entry in manifest["models"].items()
        ]
        default = manifest["default"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: the built-in weights are damaged ({error!r}): install latentzip again") from None
    return tuple(sorted(entries, key=lambda entry: (entry.name != default, entry.name)))


def find_by_name(name: str) -> ModelEntry:
    """Raises ModelError for a name that is not built in."""
    for entry in built_in():
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in built_in())
    raise ModelError(f"{name}: neither a built-in model ({known}) nor a weights file")


def find_by_fingerprint(latent: bytes, decoder: bytes) -> ModelEntry | None:
    """The built-in model with this latent space, if possible with this decoder; None where there is none."""
    fitting = [entry for entry in built_in() if entry.latent_fingerprint == latent]
    return next((entry for entry in fitting if entry.decoder_fingerprint == decoder), fitting[0] if fitting else None)
