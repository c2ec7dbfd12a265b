"""A file cut short anywhere, or with any byte changed: an error, exit code 1, no output."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import IMAGES, Result

from latentzip.codec import encode_image
from latentzip.images import Picture, read_image
from latentzip.zoo.loading import load_encoder
from latentzip.zoo.registry import built_in


def damaged_files(data: bytes) -> list[tuple[str, bytes]]:
    """Every place of the head and the tail, and a place every few bytes between; each cut and each changed."""
    head, tail = range(48), range(len(data) - 16, len(data))
    places = sorted({*head, *tail, *range(48, len(data), max(1, len(data) // 150))} & set(range(len(data))))
    cut = [(f"cut at {place}", data[:place]) for place in places]
    changed = [
        (f"changed at {place}", data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]) for place in places
    ]
    return cut + changed


@pytest.mark.parametrize("entry", built_in(), ids=lambda entry: entry.name)
def test_damage_is_always_noticed(cli: Callable[..., Result], tmp_path: Path, entry: object) -> None:
    picture = read_image(IMAGES / "chelsea.png")
    small = Picture(picture.pixels[100:164, 150:246], greyscale=False)
    data = encode_image(small, load_encoder(entry.name, torch.device("cpu")))  # type: ignore[attr-defined]
    path = tmp_path / "damaged.lz"
    path.write_bytes(data)
    assert cli("decode", path).code == 0
    (tmp_path / "damaged.png").unlink()

    for what, damaged in damaged_files(data):
        path.write_bytes(damaged)
        result = cli("decode", path)
        assert result.code == 1, what
        assert result.err.startswith(f"latentzip: {path}: "), what
        assert result.err.count("\n") == 1, what
        assert os.listdir(tmp_path) == ["damaged.lz"], what


def test_another_models_file_is_refused(
    cli: Callable[..., Result], example_lz: Path, tiny_weights: dict[str, Path]
) -> None:
    before = os.listdir(example_lz.parent)
    result = cli("decode", example_lz, "-m", tiny_weights["kl"])
    assert result.code == 1
    assert "was encoded with another model" in result.err
    assert os.listdir(example_lz.parent) == before
