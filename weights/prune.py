"""Cut silent residual blocks off a trained model: python weights/prune.py PICTURES MODEL OUT

A block whose hidden channels are all but silent (latentzip/training/silence.py) adds a constant, and takes its whole
time for it. The constant goes into the layer before, so that pictures stay the same. OUT is a folder for update.py.
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from latentzip.models.autoencoder import Autoencoder
from latentzip.models.blocks import ResidualBlock
from latentzip.models.config import AutoencoderConfig
from latentzip.training.data import batch_at, load_pictures
from latentzip.training.silence import listening
from latentzip.zoo.checkpoints import MODEL_NAME, read_config, read_metadata, read_tensors, save_weights

HEARD = 0.001  # of all hidden values of a block that stays
BATCHES, CROPS, SIDE = 16, 16, 192  # that are listened to, their rates spread over the model's range


@torch.no_grad()
def prune(model: Autoencoder, shares: dict[str, Tensor]) -> tuple[AutoencoderConfig, dict[str, Tensor]]:
    """The config and the tensors of the same model without its silent blocks. shares: as of a Listener."""
    counts: dict[str, list[int]] = {}
    for part in ("encoder", "decoder"):
        deep = model.get_submodule(f"{part}.deep")
        assert isinstance(deep, nn.Sequential)
        counts[part] = []
        for place, level in enumerate(deep):
            if not isinstance(level, nn.Sequential):
                continue
            kept: list[nn.Module] = []
            for number, block in enumerate(level):
                assert isinstance(block, ResidualBlock)
                if shares[f"{part}.deep.{place}.{number}"].mean() >= HEARD:
                    kept.append(block)
                else:
                    _add_constant(kept[-1] if kept else None, deep, place, block)
            counts[part].append(len(kept))
            deep[place] = nn.Sequential(*kept)
    encoder, decoder = tuple(counts["encoder"]), tuple(reversed(counts["decoder"]))  # finest first
    return dataclasses.replace(model.config, encoder_blocks=encoder, decoder_blocks=decoder), model.state_dict()


def _add_constant(before: nn.Module | None, deep: nn.Sequential, place: int, block: ResidualBlock) -> None:
    """To what goes into the block: the output of the block before it in its level, or of the layer before the level."""
    constant = block.second.bias
    assert constant is not None
    layer = before.second if isinstance(before, ResidualBlock) else deep[place - 1]
    if isinstance(layer, nn.PixelShuffle):
        constant, layer = constant.repeat_interleave(layer.upscale_factor**2), deep[place - 2]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    layer.bias += constant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    config, metadata = read_config(arguments.model), read_metadata(arguments.model)
    assert isinstance(config, AutoencoderConfig)
    model = Autoencoder(config)
    model.load_state_dict(read_tensors(arguments.model, ["encoder", "analysis", "latent", "decoder"]))
    pictures = load_pictures(arguments.pictures, SIDE, 1 << 32).train
    with torch.no_grad(), listening(model) as listener:
        for step in range(BATCHES):
            model(batch_at(pictures, step, CROPS, SIDE, seed=6) / 127.5 - 1, torch.linspace(0, 1, CROPS))
    pruned, tensors = prune(model, listener.shares)
    print(f"blocks: {config.encoder_blocks}, {config.decoder_blocks} ->", pruned.encoder_blocks, pruned.decoder_blocks)
    arguments.out.mkdir(parents=True, exist_ok=True)
    notes = {name: metadata[name] for name in ("steps", "minutes", "settings")}
    save_weights(arguments.out / MODEL_NAME, pruned, tensors, notes)


if __name__ == "__main__":
    main()
