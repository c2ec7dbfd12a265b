"""The weights of LPIPS and DISTS: a safetensors file that the user gives, which docs/bench.md describes; or, of LPIPS's
shift-tolerant form alone, those that the package stlpips-pytorch brings. No torch: other codecs' commands are timed
without it."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError, safe_open

from latentzip.errors import BenchError

Shapes = Mapping[str, tuple[int, ...]]  # of tensors, by their names

KERNELS = {"alex": (11, 5, 3, 3, 3), "vgg": (3,) * 13}  # pixels a side of each convolution, by the trunk
TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}  # convolutions whose outputs are compared, after their ReLU
DISTS_NAMES = ("dists.alpha", "dists.beta")

ST_PACKAGE = "stlpips_pytorch"
ST_FILE = Path("weights", "vST0.0", "alex_shift_tolerant.pth")


def trunk_names(trunk: str) -> list[str]:
    return [f"{trunk}.conv_{i}.{part}" for i in range(len(KERNELS[trunk])) for part in ("weight", "bias")]


def head_names(trunk: str) -> list[str]:
    return [f"{trunk}.lin{i}" for i in range(len(TAPS[trunk]))]


def check_weights(path: Path) -> frozenset[str]:
    """The names of a file's tensors. Raises BenchError where it is none, or what is in it does not fit together."""
    shapes: Shapes = {}
    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        fault = fault_of(shapes)
    except OSError as error:
        fault = f"cannot be read ({error.strerror or error})"
    except SafetensorError as error:
        fault = f"not a safetensors file ({error})"
    if fault is not None:
        raise BenchError(f"{path}: {fault}: give the file that docs/bench.md describes")
    return frozenset(shapes)


def fault_of(shapes: Shapes) -> str | None:
    """Each trunk, its heads and DISTS's pair must be there whole or not at all, in shapes that fit together."""
    for group in (*map(trunk_names, KERNELS), *map(head_names, KERNELS), DISTS_NAMES):
        absent = [name for name in group if name not in shapes]
        if absent and len(absent) < len(group):
            return f"{absent[0]} is missing"
    for name, right in _right_shapes(shapes).items():
        if shapes.get(name, right) != right:
            return f"{name} is of shape {shapes[name]} instead of {right}"
    return None


def _right_shapes(shapes: Shapes) -> Shapes:
    """By the widths of the convolutions that are there."""
    right: dict[str, tuple[int, ...]] = {}
    for trunk, kernels in KERNELS.items():
        if f"{trunk}.conv_0.weight" not in shapes:
            continue
        widths = [(*shapes[f"{trunk}.conv_{i}.weight"], 0)[0] for i in range(len(kernels))]
        for i, (side, before) in enumerate(zip(kernels, [3, *widths], strict=False)):
            right[f"{trunk}.conv_{i}.weight"] = (widths[i], before, side, side)
            right[f"{trunk}.conv_{i}.bias"] = (widths[i],)
        right |= {f"{trunk}.lin{i}": (widths[tap],) for i, tap in enumerate(TAPS[trunk])}
        if trunk == "vgg":
            right |= dict.fromkeys(DISTS_NAMES, (1, 3 + sum(widths[tap] for tap in TAPS[trunk]), 1, 1))
    return right


def shift_tolerant_file() -> Path | None:
    """Where the package keeps it; the package is not imported, as it imports more than is needed for this."""
    found = find_spec(ST_PACKAGE)
    path = Path(found.origin).parent / ST_FILE if found is not None and found.origin else None
    return path if path is not None and path.is_file() else None
