"""The README's examples run, in the order in which they stand there."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from conftest import IMAGES

ROOT = Path(__file__).parent.parent


def commands() -> list[str]:
    lines = re.findall(r"^    ((?:latentzip|cat) .*?)(?:  +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [line for line in lines if " train " not in line]


def test_the_readme_s_examples_run(tmp_path: Path) -> None:
    """`latentzip train` is left out: it takes as long as it is told to, and has tests of its own."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "latentzip"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m latentzip "$@"\n')
    command.chmod(0o755)
    shutil.copy(IMAGES / "chelsea.png", tmp_path / "photo.png")
    shutil.copy(IMAGES / "chelsea.png", tmp_path / "a.png")
    subprocess.run(
        [sys.executable, "-c", "from PIL import Image; Image.open('a.png').convert('RGB').save('b.jpg')"],
        cwd=tmp_path,
        check=True,
    )
    (tmp_path / "photos" / "more").mkdir(parents=True)
    shutil.copy(tmp_path / "b.jpg", tmp_path / "photos" / "more" / "c.jpg")
    assert len(commands()) >= 10
    for line in commands():
        # each example stands alone: what an earlier one wrote is not in its way
        for name in ("photo.lz", "photo-back.png", "photo.webp"):
            if re.search(rf"encode photo\.png(?!.* -f)|-o {name}", line):
                (tmp_path / name).unlink(missing_ok=True)
        if line == "latentzip decode photo.lz":
            (tmp_path / "photo.png").unlink()
        run = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, env=path_with(command))
        assert run.returncode == 0, f"{line}\n{run.stderr}"
    assert (tmp_path / "photo.png").exists()
    assert (tmp_path / "small" / "b.lz").exists()
    assert (tmp_path / "b.png").exists()
    assert (tmp_path / "back" / "more" / "c.png").exists()


def test_the_python_examples_run(tmp_path: Path) -> None:
    """Those of docs/python.md, one after the other, as they stand there."""
    shutil.copy(IMAGES / "chelsea.png", tmp_path / "photo.png")
    blocks = re.findall(r"(?:^    .*\n|^\n)+", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE)
    code = textwrap.dedent("".join(block for block in blocks if block.strip()))
    assert "latentzip.decode" in code
    assert "latentzip.register" in code
    code = code.replace("latentzip.register()", "open('photo.lz', 'wb').write(data); latentzip.register()")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "(451, 300)\n"
    assert (tmp_path / "small.lz").exists()


def path_with(command: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
