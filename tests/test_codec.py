"""The main path, with tiny models: any size, any damage, always the same."""

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_KL, TINY_VQ, noise_picture, tiny_model

from latentzip import codec
from latentzip.codec import analyse, decode_image, encode_image, levels, paint, read_symbols, write_latent
from latentzip.container import ChunkType, Container, Header, PayloadKind, pack, parse
from latentzip.errors import FormatError, ModelError
from latentzip.images import Picture
from latentzip.models.autoencoder import KlLatent, VqLatent
from latentzip.payload import parse_payload
from latentzip.payload.scans import level_of_quality, rate_of_level, stages_of_quality
from latentzip.zoo.loading import LoadedDecoder, LoadedEncoder, load_decoder, load_encoder

CPU = torch.device("cpu")
SIZES = [(1, 1), (7, 5), (8, 8), (16, 16), (17, 16), (257, 252)]


def pair(path: Path) -> tuple[LoadedEncoder, LoadedDecoder]:
    return load_encoder(str(path), CPU), load_decoder(path, CPU)


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_comes_back_at_its_size(tiny_weights: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    encoder, decoder = pair(tiny_weights[kind])
    picture = noise_picture(*size)
    decoded = decode_image(encode_image(picture, encoder), lambda container: decoder)
    assert decoded.pixels.shape == picture.pixels.shape
    assert decoded.pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_the_file_holds_exactly_the_quantised_latent(tiny_weights: dict[str, Path], kind: str, quality: int) -> None:
    """What is read is what the encoder quantised: within half a step for KL, the chosen codes for VQ."""
    encoder, decoder = pair(tiny_weights[kind])
    picture = noise_picture(48, 32)
    x = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    y = encoder.encoder(x)
    parsed = read_symbols(parse(encode_image(picture, encoder, quality)), decoder)
    latent, rate = parsed.latent, parsed.rate
    if isinstance(decoder.latent, KlLatent):
        assert rate.item() == pytest.approx((quality - 1) / 99, abs=1 / 510)
        steps = (latent - y) * decoder.latent.gain(rate)
        assert steps.abs().max() <= 0.5 + 1e-3  # means of a sixteenth shift nothing: they are added back
        assert steps.abs().mean() > 0.1
    else:
        quantizer = decoder.latent.quantizer
        if quantizer.ends:
            indices = quantizer.search(y, price=decoder.latent.bit_price(rate_of_level(level_of_quality(quality))))
        else:
            indices = quantizer.search(y, stages_of_quality(quality, quantizer.stages))
        assert torch.equal(parsed.symbols, indices)
        assert torch.allclose(latent, quantizer.decode(indices))


def test_quality_buys_bytes(tiny_weights: dict[str, Path]) -> None:
    for path in tiny_weights.values():
        encoder = load_encoder(str(path), CPU)
        sizes = [len(encode_image(noise_picture(64, 64), encoder, quality)) for quality in (1, 34, 67, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_encoding_twice_gives_the_same_bytes(tiny_weights: dict[str, Path], kind: str) -> None:
    encoder, again = load_encoder(str(tiny_weights[kind]), CPU), load_encoder(str(tiny_weights[kind]), CPU)
    picture = noise_picture(100, 60)
    assert encode_image(picture, encoder) == encode_image(picture, encoder) == encode_image(picture, again)


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_symbols_do_not_depend_on_threads(tiny_weights: dict[str, Path], kind: str) -> None:
    encoder, decoder = pair(tiny_weights[kind])
    container = parse(encode_image(noise_picture(300, 200), encoder))
    threads = torch.get_num_threads()
    latents = []
    for count in (1, 2):
        torch.set_num_threads(count)
        latents.append(read_symbols(container, decoder).symbols)
    torch.set_num_threads(threads)
    assert torch.equal(*latents)


def test_a_greyscale_picture_stays_greyscale(tiny_weights: dict[str, Path]) -> None:
    encoder, decoder = pair(tiny_weights["kl"])
    picture = Picture(noise_picture(20, 20).pixels, greyscale=True)
    assert decode_image(encode_image(picture, encoder), lambda container: decoder).greyscale


def test_the_wrong_model_is_refused(tiny_weights: dict[str, Path]) -> None:
    data = encode_image(noise_picture(32, 32), load_encoder(str(tiny_weights["kl"]), CPU))
    with pytest.raises(ModelError, match="encoded with another model"):
        decode_image(data, lambda container: load_decoder(tiny_weights["vq"], CPU))


def scan_of(container: Container) -> bytes:
    (scan,) = (chunk.payload for chunk in container.chunks if chunk.type == ChunkType.SCAN)
    return scan


def with_payload(container: Container, payload: bytes, **changes: object) -> bytes:
    header = dataclasses.replace(container.header, **changes)
    return pack(Container(header, (dataclasses.replace(container.chunks[0], payload=payload),)))


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_payloads_with_fitting_checksums_but_wrong_contents(tiny_weights: dict[str, Path], kind: str) -> None:
    """What only a hostile or faulty writer makes: our error, or some picture, and never anything else."""
    encoder, decoder = pair(tiny_weights[kind])
    original = parse(encode_image(noise_picture(40, 40), encoder))
    payload = scan_of(original)
    rng = np.random.default_rng(0)
    refused = 0
    for attempt in range(150):
        mutated = bytearray(payload)
        mutated[rng.integers(len(mutated))] ^= int(rng.integers(1, 256))
        length = rng.integers(len(mutated)) if attempt % 3 == 0 else len(mutated)
        try:
            decode_image(with_payload(original, bytes(mutated[:length])), lambda container: decoder)
        except FormatError:
            refused += 1
    assert refused > 0
    for hostile in (b"", b"\0", b"\xff" + payload[1:], payload + bytes(4 * len(payload) + 40)):
        with pytest.raises(FormatError):
            decode_image(with_payload(original, hostile), lambda container: decoder)


def test_a_payload_of_the_other_kind_is_refused(tiny_weights: dict[str, Path]) -> None:
    encoder, decoder = pair(tiny_weights["vq"])
    original = parse(encode_image(noise_picture(40, 40), encoder))
    data = with_payload(original, scan_of(original), kind=PayloadKind.KL_PRIOR)
    with pytest.raises(ModelError, match="KL_PRIOR"):
        decode_image(data, lambda container: decoder)


def test_absurd_sizes_are_refused_before_memory_is_taken(tiny_weights: dict[str, Path]) -> None:
    encoder, decoder = pair(tiny_weights["kl"])
    original = parse(encode_image(noise_picture(16, 16), encoder))
    bomb = with_payload(original, scan_of(original), width=65535, height=65535)
    with pytest.raises(FormatError, match="65535x65535"):
        decode_image(bomb, lambda container: decoder)


def test_vq_indices_outside_the_codebook_are_refused() -> None:
    latent = tiny_model(TINY_VQ).latent
    assert isinstance(latent, VqLatent)

    def symbols(last: int) -> list[object]:
        scans = [bytes([1, 1, last])]
        return parse_payload(PayloadKind.VQ_FIXED, latent, scans, (1, 1)).symbols.tolist()

    assert symbols(19 << 3) == [[[[19]]]]  # 20 codes, 5 bits
    with pytest.raises(FormatError, match="outside the codebook"):
        symbols(20 << 3)
    with pytest.raises(FormatError, match="after its last index"):
        symbols(19 << 3 | 1)


def test_every_truncation_of_a_payload_is_noticed_or_decodes(tiny_weights: dict[str, Path]) -> None:
    latent = load_decoder(tiny_weights["kl"], CPU).latent
    encoder = load_encoder(str(tiny_weights["kl"]), CPU)
    payload = scan_of(parse(encode_image(noise_picture(48, 48), encoder)))
    assert isinstance(latent, KlLatent)
    for length in range(1, len(payload)):
        if (length - 2) % 4:
            with pytest.raises(FormatError, match=r"whole number of words|head of its payload"):
                parse_payload(PayloadKind.KL_PRIOR, latent, [payload[:length]], (3, 3))


def test_header_names_the_model(tiny_weights: dict[str, Path]) -> None:
    encoder, decoder = pair(tiny_weights["kl"])
    header: Header = parse(encode_image(noise_picture(9, 9), encoder)).header
    assert header.latent_fingerprint == decoder.latent_fingerprint
    assert header.decoder_fingerprint == decoder.decoder_fingerprint
    assert (header.width, header.height) == (9, 9)


def test_latents_with_quantised_weights_are_close_to_training(tiny_weights: dict[str, Path]) -> None:
    """The file's size is what training estimated: the objective optimises the real thing."""
    model = tiny_model(TINY_KL).eval()
    encoder = load_encoder(str(tiny_weights["kl"]), CPU)
    picture = noise_picture(256, 256)
    x = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        estimate = torch.stack([model(x, torch.tensor([49 / 99])).bpp[0] for _ in range(4)]).mean().item()
    real = (len(encode_image(picture, encoder, 50)) - 40) * 8 / 256**2
    assert real == pytest.approx(estimate, rel=0.03)  # noise stands for rounding in the estimate


@pytest.fixture
def split_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures large enough to be split into scans would be slow here."""
    monkeypatch.setattr("latentzip.payload.scans.SPLIT_FROM", 1)


@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_scans_hold_the_same_latent_in_parts(
    tiny_weights: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split or in one scan: the same symbols; and of both the first parts alone can be had."""
    encoder, decoder = pair(tiny_weights[kind])
    analysed = analyse(noise_picture(90, 70), encoder)
    level = levels(encoder)[-1]
    whole = parse(write_latent(analysed, encoder, level))
    monkeypatch.setattr("latentzip.payload.scans.SPLIT_FROM", 1)
    split = parse(write_latent(analysed, encoder, level))
    parts = len(split.chunks)
    assert (len(whole.chunks), parts) == (1, 3 if kind == "vq" else 2)
    assert torch.equal(read_symbols(whole, decoder).symbols, read_symbols(split, decoder).symbols)
    for wanted in range(1, parts + 1):
        here = [read_symbols(container, decoder, most_parts=wanted) for container in (whole, split)]
        assert torch.equal(here[0].symbols, here[1].symbols)
        assert here[0].parts == (wanted, parts)


@pytest.mark.usefixtures("split_everything")
@pytest.mark.parametrize("kind", ["kl", "vq", "vq-prior"])
def test_what_has_arrived_of_a_file_decodes(tiny_weights: dict[str, Path], kind: str) -> None:
    """Cut anywhere, a file is refused; on request the scans that are whole are decoded, ever nearer to the latent."""
    encoder, decoder = pair(tiny_weights[kind])
    analysed = analyse(noise_picture(90, 70), encoder)
    data = write_latent(analysed, encoder, levels(encoder)[-1])
    container = parse(data)
    errors, seen = [], set()
    for length in range(32, len(data)):
        with pytest.raises(FormatError):
            parse(data[:length])
        cut = parse(data[:length], partial=True)
        if not cut.chunks:
            with pytest.raises(FormatError, match="nothing of the picture has arrived"):
                read_symbols(cut, decoder, partial=True)
            continue
        parsed = read_symbols(cut, decoder, partial=True)
        if parsed.parts not in seen:
            seen.add(parsed.parts)
            errors.append((parsed.latent - analysed.latent).square().mean().item())
            assert paint(container, parsed, decoder).pixels.shape == (70, 90, 3)
    total = len(container.chunks)
    assert sorted(seen) == [(number, total) for number in range(1, total)]
    errors.append((read_symbols(container, decoder).latent - analysed.latent).square().mean().item())
    assert errors == sorted(errors, reverse=True)


def test_a_latent_that_is_read_otherwise_than_written_never_leaves(
    tiny_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(tiny_weights["kl"]), CPU)
    analysed = analyse(noise_picture(40, 40), encoder)
    honest = codec.parse_payload

    def faulty(*arguments: object, **options: object) -> object:
        parsed = honest(*arguments, **options)  # type: ignore[arg-type]
        return dataclasses.replace(parsed, symbols=parsed.symbols + 1)

    monkeypatch.setattr(codec, "parse_payload", faulty)
    with pytest.raises(FormatError, match="not the one that is read again"):
        write_latent(analysed, encoder, 100)
    assert write_latent(analysed, encoder, 100, verify=False)


def test_latents_without_a_prior_are_coded_to_the_step(tiny_weights: dict[str, Path]) -> None:
    encoder, decoder = pair(tiny_weights["normal"])
    analysed = analyse(noise_picture(130, 70), encoder)
    sizes, errors = [], []
    for level in (0, 64, 128, 192, 255):
        data = write_latent(analysed, encoder, level)
        container = parse(data)
        assert container.header.kind == PayloadKind.KL_ADAPTIVE
        error = (read_symbols(container, decoder).latent - analysed.latent).abs().amax((0, 2, 3))
        step = decoder.latent.std * 2.0 ** (2 - level / 32)
        assert (error <= step * 0.5001).all()
        sizes.append(len(data))
        errors.append(error.sum().item())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("kind", ["kl", "normal"])
def test_half_precision_is_kept_to_the_bit(tiny_weights: dict[str, Path], kind: str) -> None:
    path = tiny_weights[kind]
    encoder, decoder = pair(path)
    analysed = analyse(noise_picture(640, 480), encoder)
    data = write_latent(analysed, encoder, 0, coding="fp16")
    latent = read_symbols(parse(data), decoder).latent
    assert torch.equal(latent, analysed.latent.half().float())
    assert len(data) < 0.95 * 2 * latent.numel()  # packed
    original = parse(data)
    payload = scan_of(original)
    for hostile in (b"", payload[:-3], payload + b"x", bytes(len(payload)), zlib.compress(bytes(10**7))):
        with pytest.raises(FormatError):
            decode_image(with_payload(original, hostile), lambda container: decoder)


def test_codes_have_no_half_precision(tiny_weights: dict[str, Path]) -> None:
    with pytest.raises(FormatError, match="needs a KL model"):
        encode_image(noise_picture(20, 20), load_encoder(str(tiny_weights["vq"]), CPU), coding="fp16")
