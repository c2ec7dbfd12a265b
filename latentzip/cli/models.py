"""`latentzip models`"""

import json

import typer

from latentzip.cli.console import human_size
from latentzip.cli.options import Json
from latentzip.zoo.registry import built_in

app = typer.Typer(help="The models that are here.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """The models that are here."""


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the built-in models, the default first."""
    entries = built_in()
    if as_json:
        records = [
            {
                "name": entry.name,
                "default": entry is entries[0],
                "regularizer": entry.regularizer,
                "factor": entry.factor,
                "bytes": entry.size,
                "license": entry.license,
                "summary": entry.summary,
                "latent_fingerprint": entry.latent_fingerprint.hex(),
                "decoder_fingerprint": entry.decoder_fingerprint.hex(),
            }
            for entry in entries
        ]
        print(json.dumps({"models": records}, indent=2))
        return
    for entry in entries:
        mark = "*" if entry is entries[0] else " "
        print(f"{mark} {entry.name:10} {human_size(entry.size):>9}  {entry.license:12} {entry.summary}")
    print("\n* the default")
