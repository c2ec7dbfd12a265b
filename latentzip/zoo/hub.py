"""Public models by name: where each lies on the Hugging Face Hub, and what of them the local cache holds. No torch.

Nothing here is ever downloaded but by `pull`, which a user asks for.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latentzip.errors import ModelError

MOVING = "main"  # what it names today may be other weights tomorrow
DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class PublicModel:
    """An autoencoder that others have trained and published."""

    name: str
    repository: str
    files: tuple[str, ...]  # `zoo.public` reads the folder of config and weights, or the only file
    license: str  # as the repository states it
    factor: int
    channels: int  # of the latent
    regularizer: str
    scaling: float = 1.0
    shift: float = 0.0
    gated: bool = False  # to be agreed to on the Hub before it is pulled

    @property
    def revision(self) -> str:
        """The commit that is pulled, where one is known to us: so that a name always means the same weights."""
        return _COMMITS.get(self.repository, MOVING)


_COMMITS = {
    "stabilityai/sd-vae-ft-mse": "31f26fdeee1355a5c34592e401dd41e45d25a493",
    "stabilityai/sd-vae-ft-ema": "f04b2c4b98319346dad8c65879f680b1997b204a",
    "stabilityai/sdxl-vae": "6f5909a7e596173e25d4e97b07fd19cdf9611c76",
    "madebyollin/sdxl-vae-fp16-fix": "207b116dae70ace3637169f1ddd2434b91b3a8cd",
    "stabilityai/stable-diffusion-3-medium-diffusers": "ea42f8cef0f178587cf766dc8129abd379c90671",
    "black-forest-labs/FLUX.1-schnell": "741f7c3ce8b383c54771c7003378a50191e9efe9",
    "madebyollin/taesd": "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
    "madebyollin/taesdxl": "b20258aaef75ef61e659c1e0f14f251cf0ad153e",
    "madebyollin/taesd3": "d58dcaccd2b36fcb7a6b9e93c1cc507acab5a778",
    "madebyollin/taef1": "b1b2d00e9e440cfbf3dedb34266864da86016ceb",
    "madebyollin/taef2": "bd244ebfe4398c84fbf312a2f1c868c676b500e3",
}


def _diffusers(folder: str = "") -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" if folder else name for name in DIFFUSERS)


# Scaling and shift as each model's config.json has them (arXiv 2112.10752 and 2307.01952 for the first).
PUBLIC_MODELS = (
    PublicModel("sd-vae-ft-mse", "stabilityai/sd-vae-ft-mse", _diffusers(), "MIT", 8, 4, "kl", 0.18215),
    PublicModel("sd-vae-ft-ema", "stabilityai/sd-vae-ft-ema", _diffusers(), "MIT", 8, 4, "kl", 0.18215),
    PublicModel("sdxl-vae", "stabilityai/sdxl-vae", _diffusers(), "MIT", 8, 4, "kl", 0.13025),
    PublicModel("sdxl-vae-fp16-fix", "madebyollin/sdxl-vae-fp16-fix", _diffusers(), "MIT", 8, 4, "kl", 0.13025),
    PublicModel(
        name="sd3-vae",
        repository="stabilityai/stable-diffusion-3-medium-diffusers",
        files=_diffusers("vae"),
        license="Stability Community",
        factor=8,
        channels=16,
        regularizer="kl",
        scaling=1.5305,
        shift=0.0609,
        gated=True,
    ),
    PublicModel(
        name="flux-vae",
        repository="black-forest-labs/FLUX.1-schnell",
        files=_diffusers("vae"),
        license="Apache-2.0",
        factor=8,
        channels=16,
        regularizer="kl",
        scaling=0.3611,
        shift=0.1159,
        gated=True,
    ),
    PublicModel("vq-f4", "CompVis/ldm-super-resolution-4x-openimages", _diffusers("vqvae"), "Apache-2.0", 4, 3, "vq"),
    PublicModel("taesd", "madebyollin/taesd", _diffusers(), "MIT", 8, 4, "kl"),
    PublicModel("taesdxl", "madebyollin/taesdxl", _diffusers(), "MIT", 8, 4, "kl"),
    PublicModel("taesd3", "madebyollin/taesd3", _diffusers(), "MIT", 8, 16, "kl"),
    PublicModel("taef1", "madebyollin/taef1", _diffusers(), "MIT", 8, 16, "kl"),
    PublicModel("taef2", "madebyollin/taef2", ("taef2.safetensors",), "MIT", 8, 32, "kl"),
)


@dataclass(frozen=True)
class Archive:
    """A first stage that its authors publish as an archive, not on the Hub: to be fetched and converted by hand."""

    name: str
    url: str
    factor: int
    channels: int
    regularizer: str


_LDM = "https://ommer-lab.com/files/latent-diffusion"
_VQGAN = "https://heibox.uni-heidelberg.de/d"
ARCHIVES = (
    *(Archive(f"kl-f{f}", f"{_LDM}/kl-f{f}.zip", f, c, "kl") for f, c in ((4, 3), (8, 4), (16, 16), (32, 64))),
    *(Archive(f"vq-f{f}", f"{_LDM}/vq-f{f}.zip", f, c, "vq") for f, c in ((4, 3), (8, 4), (16, 8))),
    Archive("vqgan-f16-1024", f"{_VQGAN}/8088892a516d4e3baf92/", 16, 256, "vq"),
    Archive("vqgan-f16-16384", f"{_VQGAN}/a7530b09fed84f80a887/", 16, 256, "vq"),
)


def find_public(name: str) -> PublicModel | None:
    """By name, or by repository (`stabilityai/sd-vae-ft-mse`)."""
    return next((model for model in PUBLIC_MODELS if name in (model.name, model.repository)), None)


def cached(model: PublicModel) -> Path | None:
    """What of a model's is to be read, if all of it is in the local cache (HF_HOME); its revision decides which."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(model.repository, name, revision=model.revision) for name in model.files]
    paths = [Path(path) for path in found if isinstance(path, str) and Path(path).exists()]
    if len(paths) < len(model.files):
        return None
    return paths[0].parent if len(paths) > 1 else paths[0]


def cached_bytes(model: PublicModel) -> int:
    """Bytes that a cached model takes."""
    path = cached(model)
    if path is None:
        return 0
    return (
        sum((path / Path(name).name).stat().st_size for name in model.files) if path.is_dir() else path.stat().st_size
    )


def pull(model: PublicModel, say: Callable[[str], None]) -> Path:
    """Download what is not cached yet, and check it against the Hub's checksums. Raises ModelError.

    A connection that breaks is taken up again where it broke, a few times.
    """
    for name in model.files:
        say(f"{model.repository}/{name}")
        if not _is_as_published(_download(model, name)):
            say(f"{name}: damaged in the cache, once more")
            if not _is_as_published(_download(model, name, again=True)):
                raise ModelError(
                    f"{_where(model)}: {name} arrived with another checksum than the Hub names: pull again, later or"
                    " by another network"
                )
    path = cached(model)
    if path is None:
        raise ModelError(
            f"{_where(model)}: the cache does not hold what was downloaded: remove its folder below HF_HOME"
        )
    return path


def _download(model: PublicModel, name: str, *, again: bool = False) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    where = _where(model)
    try:
        return Path(
            huggingface_hub.hf_hub_download(model.repository, name, revision=model.revision, force_download=again)
        )
    except errors.GatedRepoError:
        raise ModelError(
            f"{where}: its authors want their licence agreed to first: do that at its page on the Hub, then log in"
            " with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{where}: there is no such repository, or it is private: set HF_TOKEN if you may see it"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise ModelError(f"{where}: {_without_network()}") from None
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
        raise ModelError(f"{where}: {name} is not there at {model.revision}: install a newer latentzip") from None
    except errors.HfHubHTTPError as error:
        raise ModelError(f"{where}: the Hub answered with an error ({_first_line(error)}): try again") from None
    except (errors.OfflineModeIsEnabled, ConnectionError):
        raise ModelError(f"{where}: {_without_network()}") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise ModelError(
            f"{where}: could not be kept in the cache ({reason}): make room, or set HF_HOME to another place, and pull"
            " again"
        ) from None
    except Exception as error:  # of whatever the transfer is made with
        raise ModelError(f"{where}: the download broke off ({_first_line(error)}): pull again") from None


def _is_as_published(path: Path) -> bool:
    """Whether a cached file has the checksum that the Hub gave for it, which is its blob's name.

    SHA-256 of large files, git's SHA-1 of small ones. Caches without symbolic links do not keep the name: taken as is.
    """
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        digest = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    else:
        return True
    with blob.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest() == blob.name


def _where(model: PublicModel) -> str:
    return f"{model.name} ({model.repository})"


def _without_network() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: unset it, and pull again"
    return "the Hub cannot be reached: check the network (or HF_ENDPOINT), and pull again"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
