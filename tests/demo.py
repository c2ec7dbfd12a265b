"""`make demo`: a real photograph through the commands that a user would type, and what came of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH = Path(__file__).parent / "images" / "coffee.png"
FOLDER = Path(__file__).parent.parent / "demo"


def latentzip(*arguments: str | Path) -> None:
    command = ["latentzip", *map(str, arguments)]
    print("$", " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    encoded, decoded = FOLDER / "coffee.lz", FOLDER / "coffee.png"
    latentzip("encode", PHOTOGRAPH, "-o", encoded, "--force")
    latentzip("info", encoded)
    latentzip("decode", encoded, "-o", decoded, "--force")

    before, after = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (PHOTOGRAPH, decoded))
    psnr = 10 * np.log10(255**2 / np.square(before - after).mean())
    height, width = before.shape[:2]
    size = encoded.stat().st_size
    print(f"\noriginal  {PHOTOGRAPH}  {PHOTOGRAPH.stat().st_size} bytes, {width}x{height}")
    print(f"encoded   {encoded}  {size} bytes, {size * 8 / (width * height):.3f} bpp")
    print(f"decoded   {decoded}  PSNR {psnr:.2f} dB")


if __name__ == "__main__":
    main()
