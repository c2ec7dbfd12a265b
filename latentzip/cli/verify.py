"""`latentzip verify`"""

from pathlib import Path
from typing import Annotated

import typer

from latentzip.cli.console import Batch, Record
from latentzip.cli.options import Json, Quiet
from latentzip.container import parse
from latentzip.extras import parse_metadata, parse_transparency
from latentzip.files import read_bytes


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".lz files, or - for standard input.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", "--weights", help="Weights that decode them, where not built in.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check .lz files: structure, checksums, and that all they hold can be read, latents to the last symbol.

    What it cannot prove: that a file shows the picture it was made from (the picture itself is needed for that), and
    that the decoder paints it as the one did that its author saw, where that is another (it says so then).
    """

    def work(path: Path) -> tuple[Record, str]:
        container = parse(read_bytes(path))
        parse_metadata(container)
        parse_transparency(container)
        # only a file that is whole is worth loading torch and a model for
        from latentzip.codec import read_symbols
        from latentzip.zoo.loading import load_latent, weights_for

        latent = load_latent(weights_for(container, model))
        read_symbols(container, latent)
        same = latent.decoder_fingerprint == container.header.decoder_fingerprint
        remark = "" if same else ", but was made with another decoder: the picture may look different"
        return {"file": str(path), "ok": True, "same_decoder": same}, f"{path}: ok{remark}"

    batch = Batch("verified", as_json, quiet)
    batch.run(files, lambda path: path, work)
    batch.finish()
