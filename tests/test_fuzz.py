"""Mutated payloads and files: read, or one of our errors. tests/fuzz.py and fuzz_guided.py do it in large numbers."""

import io
from collections.abc import Iterator

import pytest
from conftest import noise_picture
from fuzz import SMALL_TILES, forced, fuzz, models, read_all, repaired, samples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from latentzip.container import pack
from latentzip.images import Metadata, Picture, image_bytes
from latentzip.zoo.loading import LoadedDecoder

Models = dict[bytes, LoadedDecoder]


@pytest.fixture(scope="module", autouse=True)
def small_tiles() -> Iterator[None]:
    with SMALL_TILES:
        yield


@pytest.fixture(scope="module")
def decoders() -> Models:
    return models()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [pack(container) for _, container in samples() if container.header.width <= 512]


def test_mutated_payloads_are_read_or_refused() -> None:
    outcomes = list(fuzz(1500, seed=1))
    assert 10 < outcomes.count("read") < 1000
    assert len(set(outcomes)) > 8


def test_repairing_and_forcing_leave_whole_files_as_they_are(files: list[bytes], decoders: Models) -> None:
    """Or what they are used for below would try nothing."""
    for data in files:
        assert repaired(data) == data
        assert repaired(data[:30] + b"\0\0" + data[32:-2] + b"\0\0") == data
        assert read_all(forced(data, list(decoders)), decoders) == "read"


@given(st.binary(max_size=600))
@example(b"")
@settings(max_examples=150, deadline=None)
def test_any_bytes_behind_the_container_s_checks(decoders: Models, data: bytes) -> None:
    read_all(forced(data, list(decoders)), decoders)


Edit = tuple[int, int, bytes]  # place, how many bytes go there, what comes instead


@given(st.data(), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9), st.binary(max_size=9)), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_edited_files(decoders: Models, files: list[bytes], data: st.DataObject, edits: list[Edit]) -> None:
    """Headers, chunks' heads and payloads' beginnings changed, with checksums as they were, right, and forced."""
    file = data.draw(st.sampled_from(files))
    for place, gone, instead in edits:
        file = file[:place] + instead + file[place + gone :]
    for variant in (file, repaired(file), forced(file, list(decoders))):
        read_all(variant, decoders)


raw = st.none() | st.binary(max_size=300)


@given(st.builds(Metadata, raw, raw, raw), st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "AVIF"]))
@settings(max_examples=150, deadline=None)
def test_any_metadata_goes_into_pictures_that_open(metadata: Metadata, image_format: str) -> None:
    picture = Picture(noise_picture(5, 3).pixels, False, None, metadata)
    data, _ = image_bytes(picture, image_format)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == (image_format, (5, 3))
