"""latentzip: a neural image codec around a perceptual autoencoder."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from latentzip.interop import load_latents

__all__ = ["__version__", "load_latents"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for, so that `latentzip --help` need not wait for it."""
    if name == "load_latents":
        from latentzip.interop import load_latents

        return load_latents
    raise AttributeError(f"module 'latentzip' has no attribute {name!r}")
