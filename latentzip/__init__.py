"""latentzip: a neural image codec around a perceptual autoencoder. docs/python.md shows how it is used."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from latentzip.api import decode, encode, load_model
    from latentzip.arguments import read_header
    from latentzip.errors import LatentzipError
    from latentzip.interop import load_latents
    from latentzip.LzImagePlugin import register

__all__ = [
    "LatentzipError",
    "__version__",
    "decode",
    "encode",
    "load_latents",
    "load_model",
    "read_header",
    "register",
]

# Threads of torch's that wait for each other are to sleep, unless the user says otherwise: awake they keep cores busy,
# and where other programs share these, decoding takes five times as long. OpenMP looks once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What needs torch is imported when it is asked for, so that `latentzip --help` need not wait for it.
_HOMES = {
    "LatentzipError": "errors",
    "decode": "api",
    "encode": "api",
    "load_latents": "interop",
    "load_model": "api",
    "read_header": "arguments",
    "register": "LzImagePlugin",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"latentzip.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'latentzip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
