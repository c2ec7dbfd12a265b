"""The `latentzip` command: its subcommands, and what becomes of errors and interrupts."""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from latentzip import __version__
from latentzip.cli import bench, decode, encode, info, models, train, verify
from latentzip.cli.console import ExitCode, complain, emit
from latentzip.errors import LatentzipError, UsageError

app = typer.Typer(
    help="Pictures into small .lz files and back, with a neural autoencoder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        emit(f"latentzip {__version__}")
        raise typer.Exit


app.command()(encode.encode)
app.command()(decode.decode)
app.command()(info.info)
app.command()(verify.verify)
app.add_typer(models.app, name="models")
app.command()(train.train)
app.command()(bench.bench)


def main() -> None:
    """Entry point. Exits with 0, 1 (something failed), 2 (wrong usage) or 130 (interrupted)."""
    _prepare_process()
    try:
        _run()
    except LatentzipError as error:
        for message in error.args:
            complain(message)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.FAILED)
    except OSError as error:  # of standard output, or what nobody below expected: a disk that is gone
        if not isinstance(error, BrokenPipeError):
            complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        if not error.filename:
            sys.stdout = None  # takes no more, and closing it would fail once more
        sys.exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(ExitCode.INTERRUPTED)


def _run() -> None:
    if "" in sys.argv[1:]:
        raise UsageError("one of the arguments is empty, as a variable without a value would make it")
    try:
        if sys.argv[1:] == ["--version"]:
            emit(f"latentzip {__version__}")
        else:
            app()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here what it says can still be told


def _prepare_process() -> None:
    warnings.filterwarnings("ignore", module="PIL")  # of odd files; what matters of them is said in our words
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be asked to end is to be interrupted
    if sys.stderr is None:  # print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
