"""`latentzip verify`"""

from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.batch import Batch, Outcome
from latentzip.cli.options import Json, MaxPixels, Quiet, Recursive, inputs_argument
from latentzip.container import check_signature, parse
from latentzip.extras import parse_metadata, parse_transparency
from latentzip.files import read_bytes
from latentzip.jobs import LZ_SUFFIXES, Job, find_sources, plan_readings
from latentzip.tiling import MAX_PIXELS


def verify(
    files: Annotated[list[Path], inputs_argument("FILE...", ".lz files, folders with -r, or -.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", "--weights", help="Weights that decode them, where not built in.")
    ] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    recursive: Recursive = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check .lz files: structure, checksums, and that all they hold can be read, latents to the last symbol.

    What it cannot prove: that a file shows the picture it was made from (the picture itself is needed for that), and
    that the decoder paints it as the one did that its author saw, where that is another (it says so then).
    """

    def work(job: Job) -> Outcome:
        path = job.source
        data = read_bytes(path, check_signature)
        container = parse(data)
        # only a file that is whole is worth loading torch and a model for
        from latentzip.codec import read_symbols
        from latentzip.zoo.loading import load_latent, weights_for

        latent = load_latent(weights_for(container, model))
        read_symbols(container, latent, max_pixels=max_pixels)  # the picture's size is checked first of all
        parse_metadata(container)
        parse_transparency(container)
        same = latent.decoder_fingerprint == container.header.decoder_fingerprint
        remark = "" if same else ", but was made with another decoder: the picture may look different"
        record = {
            "file": str(path),
            "ok": True,
            "same_decoder": same,
            "width": container.header.width,
            "height": container.header.height,
            "input_bytes": len(data),
        }
        return Outcome(record, f"{path}: ok{remark}")

    plan = plan_readings(find_sources(files, LZ_SUFFIXES, recursive=recursive))
    Batch("verified", plan, as_json=as_json, quiet=quiet).run(work)
