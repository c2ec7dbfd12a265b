"""Type on crops: where it is, that the batch has it there, and that errors count more there."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_KL, tiny_model

from latentzip.models.autoencoder import Autoencoder
from latentzip.training.data import batch_at
from latentzip.training.losses import Objective
from latentzip.training.settings import TrainSettings
from latentzip.training.typeset import masks_of, typeset_at
from latentzip.training.vgg import VggDistance

NOISE = [np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)]


def test_type_is_a_function_of_the_step_and_comes_as_often_as_asked() -> None:
    found = [typeset_at(step, 10, 64, 5, 0.3) for step in range(30)]
    again = typeset_at(7, 10, 64, 5, 0.3)
    assert [t.crop for t in again] == [t.crop for t in found[7]]
    assert all(np.array_equal(a.colours, b.colours) for a, b in zip(again, found[7], strict=True))
    assert 0.2 < sum(map(len, found)) / 300 < 0.4
    assert typeset_at(7, 10, 64, 5, 0.0) == []
    assert masks_of([], 10, 64) is None


def test_a_batch_has_type_where_the_mask_says() -> None:
    """Outside of the masks' crops nothing changes, and on crops without a panel nothing outside of the mask."""
    step, seed = 3, 5
    plain, typed = (batch_at(NOISE, step, 12, 64, seed, share) for share in (0.0, 0.8))
    type_on = typeset_at(step, 12, 64, seed, 0.8)
    masks = masks_of(type_on, 12, 64)
    assert masks is not None
    crops = {typeset.crop for typeset in type_on}
    overlays = 0
    for crop in range(12):
        changed = (plain[crop] != typed[crop]).any(0)
        if crop not in crops:
            assert not changed.any()
            assert not masks[crop].any()
        elif changed.float().mean() < 0.9:  # no panel
            overlays += 1
            assert not (changed & (masks[crop, 0] == 0)).any()
    assert len(crops) > overlays > 0


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_errors_count_more_where_there_is_type(vgg_file: Path, weight: float) -> None:
    settings = TrainSettings(max_steps=1, precision="fp32", disc_weight=0.0, type_weight=weight, perceptual_weight=0.0)
    objective = Objective(settings, TINY_KL.lambdas, VggDistance(vgg_file))
    model: Autoencoder = tiny_model(TINY_KL)
    torch.manual_seed(0)
    x, rate, mask = torch.rand(2, 3, 64, 64) * 2 - 1, torch.tensor([0.2, 0.7]), torch.zeros(2, 1, 64, 64)
    mask[0, :, 5:20, 9:40] = 1

    def total(type_mask: torch.Tensor | None) -> float:
        torch.manual_seed(1)
        out = model(x, rate)
        return objective.backward(x, out, rate, model.decoder.last_layer, 0.5, 0, type_mask).total.item()

    torch.manual_seed(1)
    error = (model(x, rate).x_hat - x)[0, :, 5:20, 9:40].abs().sum().item() * 127.5 / (3 * 64 * 64)
    low, high = TINY_KL.lambdas
    lagrangian = low * (high / low) ** 0.2
    balance = (lagrangian / (low * high) ** 0.5) ** -0.4
    assert total(mask) - total(None) == pytest.approx(weight * balance * lagrangian * error / 2, rel=1e-2, abs=1e-5)


def test_settings_of_runs_before_type_still_load() -> None:
    stored = dataclasses.asdict(TrainSettings(max_steps=1))
    del stored["type_share"], stored["type_weight"], stored["wasserstein_weight"], stored["means_weights"]
    assert TrainSettings.from_json(json.dumps(stored)).type_share == 0.0
