"""Tensors and JSON from the files of strangers: safetensors in one piece or in shards, and pickles of nothing else.

Nothing in a file is executed, nothing is allocated that the file is too small for, and only ordinary files are opened.
"""

import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from latentzip.errors import ModelError

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
MOST_JSON_BYTES = 2**20
STEM = "diffusion_pytorch_model"  # of diffusers' weights
_WEIGHTS = re.compile(rf"{STEM}(?:\.(\w+))?\.(safetensors|bin)(?:\.index(?:\.(\w+))?\.json)?")
_PRECISIONS = (None, "fp32", "fp16", "bf16")  # the best first; other variants are other models
# What trainers put beside the tensors, of which nothing is needed.
_TRAINERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.")

Tensors = dict[str, Tensor]


def check_file(path: Path) -> None:
    """Raise ModelError unless it is an ordinary file: opening a pipe would wait for ever for somebody to write."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from None
    if not stat.S_ISREG(kind):
        raise ModelError(f"{path}: is no ordinary file, as a model has to be")


def read_json(path: Path) -> Any:
    """Raises ModelError."""
    check_file(path)
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ModelError(f"{path}: has more than {MOST_JSON_BYTES} bytes, which no config has: get it again")
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)}): get it again") from None


def weights_in(folder: Path) -> Path | None:
    """The weights of a folder of diffusers, or the index of their shards: safetensors first, then the best precision.

    None where there are none.
    """
    found = [(path, match) for path in folder.glob(f"{STEM}*") if (match := _WEIGHTS.fullmatch(path.name))]
    usable = [(path, match) for path, match in found if (match[1] or match[3]) in _PRECISIONS]

    def order(entry: tuple[Path, re.Match[str]]) -> tuple[bool, int, bool]:
        path, match = entry
        return match[2] == "bin", _PRECISIONS.index(match[1] or match[3]), path.suffix == ".json"

    return min(usable, key=order)[0] if usable else None


def read_state(path: Path) -> Tensors:
    """The tensors of a file by their names there, or of all shards that an index names. Raises ModelError."""
    if path.suffix != ".json":
        return _read_file(path)
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(places, Mapping) or not places or not all(map(_is_file_name, places.values())):
        raise ModelError(f"{path}: names no files that hold its tensors: get it again")
    tensors: Tensors = {}
    for name in sorted(set(places.values())):
        tensors |= _read_file(path.with_name(name))
    if tensors.keys() != places.keys():
        raise ModelError(f"{path}: names other tensors than its files hold: get all of them again")
    return tensors


def reason_of(error: BaseException) -> str:
    """What an exception says, in a few words. Advice of torch's to read a pickle without its safeguards is left out."""
    said = getattr(error, "strerror", None) or (str(error).strip().splitlines() or [""])[0]
    return type(error).__name__ if not said or "weights_only" in said else said[:200]


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith((".safetensors", *PICKLES)) and Path(name).name == name


def _read_file(path: Path) -> Tensors:
    check_file(path)
    try:
        return _read_pickle(path) if path.suffix in PICKLES else load_file(path)
    except ModelError:
        raise
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path}: is damaged, or holds more than tensors, and such files can run any program: get it again, or"
            " convert it to safetensors with the program that wrote it"
        ) from None
    except Exception as error:  # a damaged file can end in anything, deep inside of torch
        raise ModelError(f"{path}: not a readable checkpoint ({reason_of(error)}): get it again") from None


def _read_pickle(path: Path) -> Tensors:
    """Of what Lightning and its like write beside the tensors, nothing is ever made: `_Inert` stands for it."""
    unknown: list[str] = []
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:
                raise ModelError(f"{path}: is compressed, and could unpack to anything: write it again with torch.save")
        unknown = get_unsafe_globals_in_checkpoint(path)
    inert: list[Any] = [(_Inert, name) for name in unknown if name.startswith(_TRAINERS)]
    with warnings.catch_warnings(), safe_globals(inert):
        warnings.simplefilter("ignore")
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: holds no tensors by name")
    tensors = {str(key): value.detach() for key, value in loaded.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ModelError(f"{path}: holds {name[:80]!r} as something else than plain numbers")
    # Strides of 0 claim a number over and over. Tensors that share theirs are rare, and then two at a time.
    if sum(tensor.nbytes for tensor in tensors.values()) > 2 * size:
        raise ModelError(f"{path}: claims more numbers than it has bytes for: get it again")
    return tensors


class _Inert:
    """Takes whatever a pickle would have made an object of, and keeps nothing of it."""

    def __new__(cls, *_: object) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass
