"""The house: imports run downhill, and the light commands stay light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import latentzip

ROOT = Path(latentzip.__file__).parent

# docs: design's floors. A module may import from its own package, and from lower floors.
FLOORS = {
    "errors": 0,
    "tiling": 1,
    "locks": 1,
    "container": 2,
    "settings": 3,
    "arguments": 4,
    "surroundings": 3,
    "images": 2,
    "files": 2,
    "jobs": 3,
    "entropy": 2,
    "models": 3,
    "zoo": 4,
    "extras": 3,
    "payload": 4,
    "training": 5,
    "similarity": 3,
    "refinement": 4,
    "codec": 5,
    "bench": 6,
    "rate": 6,
    "interop": 6,
    "api": 7,
    "LzImagePlugin": 8,
    "cli": 8,
    "__main__": 9,
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "latentzip" else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_imports_run_downhill() -> None:
    seen = set()
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        seen.add(place)
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "latentzip" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != place:
                assert FLOORS[parts[1]] < FLOORS[place], f"{path.relative_to(ROOT)} imports {module}"
    assert seen == set(FLOORS)


def test_typer_and_rich_stay_upstairs_and_torch_out_of_the_basement() -> None:
    for path in ROOT.rglob("*.py"):
        top = {module.split(".")[0] for module in imports(path)}
        place = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if place != "cli":
            assert not top & {"typer", "rich"}, path
        if FLOORS.get(place, 9) <= 2:
            assert "torch" not in top, path


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["encode", "--help"], ["bench", "--help"], ["info", "LZ"], ["models", "list"]],
)
def test_light_commands_leave_torch_alone(arguments: list[str], example_lz: Path) -> None:
    arguments = [str(example_lz) if argument == "LZ" else argument for argument in arguments]
    code = (
        "import sys, json; sys.argv = ['latentzip', *json.loads(sys.argv[1])]\n"
        "from latentzip.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], check=True, capture_output=True)


def test_the_codec_never_imports_torchs_compiler(example_lz: Path, tmp_path: Path) -> None:
    """It takes longer to import than most pictures take."""
    golden, source, coded = Path(__file__).parent / "golden", tmp_path / "a.png", tmp_path / "a.lz"
    Image.new("RGB", (40, 30), "teal").save(source)
    commands: list[list[str]] = []
    for kind in ("kl", "vq", "vq-prior"):
        model = ["-m", str(golden / f"tiny-{kind}.safetensors")]
        commands += [
            ["encode", str(source), "-f", *model],
            ["encode", str(source), "-f", "-e", "1", *model],
            ["decode", str(coded), "-f", *model],
            ["verify", str(coded), *model],
        ]
    commands += [["info", str(coded)], ["models", "list"], ["decode", str(example_lz), "-o", str(tmp_path / "b.png")]]
    code = (
        "import sys, json\n"
        "from latentzip.cli.app import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['latentzip', *command]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, command\n"
        "    assert 'torch._dynamo' not in sys.modules, command\n"
        "import latentzip, latentzip.LzImagePlugin\n"
        "latentzip.load_latents(command[1])\n"
        "from PIL import Image\n"
        "Image.open(command[1]).load()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_files_stay_readable() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path
