"""`latentzip info`: what a file says of itself. No torch."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

from latentzip.cli.batch import Batch, Outcome
from latentzip.cli.console import Record, human_size, printable
from latentzip.cli.options import Json, Recursive, inputs_argument
from latentzip.container import MAX_LEVEL, MAX_QUALITY, ChunkType, Flag, PayloadKind, check_signature, parse
from latentzip.extras import name_of_profile
from latentzip.files import read_bytes
from latentzip.jobs import LZ_SUFFIXES, Job, find_sources, plan_readings
from latentzip.zoo.registry import find_by_fingerprint

KIND_NAMES = {
    PayloadKind.VQ_FIXED: "VQ indices, fixed length",
    PayloadKind.VQ_PRIOR: "VQ indices, prior-coded",
    PayloadKind.VQ_COUNTED: "VQ indices, adaptively coded",
    PayloadKind.KL_PRIOR: "KL latent, prior-coded",
    PayloadKind.KL_ADAPTIVE: "KL latent, adaptively coded",
    PayloadKind.KL_HALF: "KL latent, half precision",
}
MOST_LISTED = 4  # chunks of a type, by themselves
CHUNK_NAMES: dict[int, str] = {member.value: member.name for member in ChunkType}


def info(
    files: Annotated[list[Path], inputs_argument("FILE...", ".lz files, folders with -r, or -.")],
    recursive: Recursive = False,
    as_json: Json = False,
) -> None:
    """Show what .lz files hold: size, model, rate, chunks."""

    def work(job: Job) -> Outcome:
        record = describe(read_bytes(job.source, check_signature))
        record["file"] = str(job.source)
        return Outcome(record, text=_for_people(record))

    plan = plan_readings(find_sources(files, LZ_SUFFIXES, recursive=recursive))
    Batch("read", plan, as_json=as_json, quiet=True).run(work)


def describe(data: bytes) -> Record:
    """Everything that can be said without decoding. Raises FormatError."""
    container = parse(data)
    header = container.header
    kinds = [chunk.type for chunk in container.chunks]
    entry = find_by_fingerprint(header.latent_fingerprint, header.decoder_fingerprint)
    head = next((chunk.payload[:2] for chunk in container.chunks if chunk.type == ChunkType.SCAN), b"")
    setting: Record = {}
    if header.kind in (PayloadKind.VQ_FIXED, PayloadKind.VQ_COUNTED) and len(head) == 2:
        setting = {"stages": head[1]}
    elif header.kind in (PayloadKind.KL_PRIOR, PayloadKind.KL_ADAPTIVE, PayloadKind.VQ_PRIOR) and len(head) == 2:
        setting = {"quality": round(1 + head[1] * (MAX_QUALITY - 1) / MAX_LEVEL)}
    return {
        "width": header.width,
        "height": header.height,
        "bytes": len(data),
        "bpp": len(data) * 8 / (header.width * header.height),
        "model": entry.name if entry else container.model_name,
        "kind": KIND_NAMES[header.kind],
        **setting,
        "mode": header.mode,
        "greyscale": bool(header.flags & Flag.GREYSCALE),
        "alpha": bool(header.flags & Flag.ALPHA),
        "profile": name_of_profile(container),
        "exif": ChunkType.EXIF in kinds,
        "xmp": ChunkType.XMP in kinds,
        "latent_fingerprint": header.latent_fingerprint.hex(),
        "decoder_fingerprint": header.decoder_fingerprint.hex(),
        "built_in": entry is not None,
        "same_decoder": bool(entry and entry.decoder_fingerprint == header.decoder_fingerprint),
        "chunks": [
            {"type": CHUNK_NAMES.get(chunk.type, str(chunk.type)), "bytes": len(chunk.payload)}
            for chunk in container.chunks
        ],
    }


def _several(name: str, sizes: list[int]) -> str:
    """Chunks of a type: each, or of many, as the scans of a tiled latent are, all together."""
    if len(sizes) > MOST_LISTED:
        return f"{len(sizes)} {name} {human_size(sum(sizes))}"
    return ", ".join(f"{name} {human_size(size)}" for size in sizes)


def _for_people(record: Record) -> str:
    model = record["model"] or "unknown"
    if not record["built_in"]:
        model += f", not built in (latent space {record['latent_fingerprint']})"
    elif not record["same_decoder"]:
        model += ", with another decoder than the one here"
    alike = groupby(record["chunks"], key=lambda chunk: chunk["type"])
    chunks = ", ".join(_several(name, [chunk["bytes"] for chunk in group]) for name, group in alike)
    setting = next((f", {name} {record[name]}" for name in ("stages", "quality") if name in record), "")
    picture = [f"{record['width']}x{record['height']}", "greyscale" if record["greyscale"] else "RGB"]
    picture += [name for name in ("alpha", "exif", "xmp") if record[name]]
    picture += [f"profile {record['profile']}"] if record["profile"] else []
    return "\n".join(
        (
            printable(record["file"]),
            f"  picture  {', '.join(picture)}",
            f"  size     {human_size(record['bytes'])}, {record['bpp']:.3f} bpp",
            f"  model    {model}",
            f"  payload  {record['kind']}{setting}",
            f"  chunks   {chunks}",
        )
    )
