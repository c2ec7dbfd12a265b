"""Rewrite the golden files: python tests/golden/regenerate.py. Only when docs/format.md changes, and CHANGELOG with it.

golden.json holds, for each .lz file, the SHA-256 of the latent that it holds, in quantisation steps or code indices:
integers and sixteenths, which every machine must read alike.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

GOLDEN = Path(__file__).parent
sys.path.insert(0, str(GOLDEN.parent))

from conftest import TINY_KL, TINY_VQ, TINY_VQ_PRIOR, noise_picture, tiny_model  # noqa: E402

from latentzip.codec import encode_image, read_symbols  # noqa: E402
from latentzip.container import parse  # noqa: E402
from latentzip.zoo.checkpoints import save_weights  # noqa: E402
from latentzip.zoo.loading import load_encoder, load_latent  # noqa: E402

SIZE = (75, 50)


def hash_of_symbols(lz: Path, weights: Path) -> str:
    """SHA-256 of the values that a golden file's payload stands for."""
    symbols = read_symbols(parse(lz.read_bytes()), load_latent(weights)).symbols
    values = symbols if symbols.dtype == torch.int64 else (symbols * 16).long()
    return hashlib.sha256(values.contiguous().numpy().astype("<i8").tobytes()).hexdigest()


def main() -> None:
    hashes = {}
    for name, config in (("kl", TINY_KL), ("vq", TINY_VQ), ("vq-prior", TINY_VQ_PRIOR)):
        weights = GOLDEN / f"tiny-{name}.safetensors"
        save_weights(weights, config, tiny_model(config).state_dict(), {})
        for quality in (10, 90):
            lz = GOLDEN / f"tiny-{name}-q{quality}.lz"
            lz.write_bytes(encode_image(noise_picture(*SIZE), load_encoder(str(weights), torch.device("cpu")), quality))
            hashes[lz.name] = {"weights": weights.name, "symbols": hash_of_symbols(lz, weights)}
    (GOLDEN / "golden.json").write_text(json.dumps(hashes, indent=2) + "\n")


if __name__ == "__main__":
    main()
