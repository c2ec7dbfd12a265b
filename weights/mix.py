"""Mix two states of a model: python weights/mix.py BEFORE AFTER SHARE OUT

Weights of a short training are noisy, and those between them and the ones that it began with are better than both
(docs/training.md; Wortsman et al. 2022, arXiv 2109.01903). SHARE is that of AFTER. OUT is a folder for update.py.
"""

import argparse
from pathlib import Path

import torch

from latentzip.zoo.checkpoints import MODEL_NAME, read_config, read_metadata, read_tensors, save_weights

PARTS = ["encoder", "analysis", "latent", "decoder"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    config, metadata = read_config(arguments.after), read_metadata(arguments.after)
    if read_config(arguments.before) != config:
        parser.error("the two have different architectures")
    before, after = (read_tensors(path, PARTS) for path in (arguments.before, arguments.after))
    mixed = dict(after)
    for name, tensor in after.items():
        if tensor.is_floating_point():
            mixed[name] = torch.lerp(before[name].float(), tensor.float(), arguments.share)
    arguments.out.mkdir(parents=True, exist_ok=True)
    notes = {name: metadata[name] for name in ("steps", "minutes", "settings")}
    save_weights(arguments.out / MODEL_NAME, config, mixed, notes)


if __name__ == "__main__":
    main()
