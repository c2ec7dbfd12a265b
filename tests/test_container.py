"""The container: what goes in comes out, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentzip.container import (
    HEADER,
    MAX_SIDE,
    Chunk,
    ChunkType,
    Container,
    Flag,
    Header,
    PayloadKind,
    pack,
    parse,
)
from latentzip.errors import FormatError, TruncatedError


def container(payload: bytes = b"payload", *more: Chunk, width: int = 768, height: int = 512) -> Container:
    header = Header(PayloadKind.KL_PRIOR, Flag(0), width, height, b"8 bytes!", b"four")
    return Container(header, (Chunk(ChunkType.SCAN, payload), *more))


@given(
    st.binary(max_size=300),
    st.lists(st.builds(Chunk, st.integers(128, 255), st.binary(max_size=200)), max_size=4),
    st.integers(1, MAX_SIDE),
    st.integers(1, MAX_SIDE),
)
def test_what_goes_in_comes_out(payload: bytes, more: list[Chunk], width: int, height: int) -> None:
    original = container(payload, *more, width=width, height=height)
    assert parse(pack(original)) == original


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 100_000])
def test_overhead_is_at_most_40_bytes(size: int) -> None:
    data = pack(container(bytes(size)))
    assert len(data) - size <= 40
    assert parse(data).chunks[0].payload == bytes(size)


def test_layout_is_the_documented_one() -> None:
    data = pack(container(b"abc", width=0x0102, height=0x0304))
    assert data[:16].hex() == "894c545a0d0a1a0a" + "01" + "03" + "00" + "01" + "0201" + "0403"
    assert data[16:28] == b"8 bytes!four"
    assert data[32:37] == b"\x01\x03abc"
    assert len(data) == HEADER.size + 2 + 3 + 4


def test_a_file_cut_short_anywhere_is_refused() -> None:
    data = pack(container(b"some payload", Chunk(ChunkType.ICC, b"profile")))
    for length in range(len(data)):
        with pytest.raises(TruncatedError if length else FormatError):
            parse(data[:length])


def test_what_has_arrived_of_a_file_can_be_had() -> None:
    data = pack(container(b"some payload", Chunk(ChunkType.SCAN, b"more"), Chunk(ChunkType.ICC, b"profile")))
    found = [len(parse(data[:length], partial=True).chunks) for length in range(HEADER.size, len(data) + 1)]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3}
    damaged = bytearray(data[:-1])
    damaged[40] ^= 1
    with pytest.raises(FormatError, match="checksum"):  # cut short is not damaged
        parse(bytes(damaged), partial=True)


def test_any_changed_byte_is_noticed() -> None:
    data = pack(container(b"some payload", Chunk(ChunkType.ICC, b"profile")))
    for place in range(len(data)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= change
            with pytest.raises(FormatError):
                parse(bytes(damaged))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(FormatError, match="after its end"):
        parse(pack(container()) + b"\0")


def test_an_lzip_archive_is_called_by_its_name() -> None:
    with pytest.raises(FormatError, match="lzip archive"):
        parse(b"LZIP\x01" + bytes(100))


def test_chunks_of_the_future() -> None:
    unknown_optional = container(b"x", Chunk(200, b"whatever"))
    assert parse(pack(unknown_optional)) == unknown_optional
    with pytest.raises(FormatError, match="type 77"):
        parse(pack(container(b"x", Chunk(77, b"needed"))))


def test_features_of_the_future_are_refused() -> None:
    header = Header(PayloadKind.KL_PRIOR, Flag.DEEP, 1, 1, b"8 bytes!", b"four")
    with pytest.raises(FormatError, match="install a newer one"):
        parse(pack(Container(header, (Chunk(ChunkType.SCAN, b""),))))


def test_what_the_format_cannot_hold_is_refused() -> None:
    with pytest.raises(FormatError, match="65536x1"):
        pack(container(width=65536, height=1))


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse(data)
