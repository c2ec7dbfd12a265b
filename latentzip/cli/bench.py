"""`latentzip bench`"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentzip.cli.console import complain, inform
from latentzip.cli.options import Device, DeviceOption, Force, Json, Quiet, output_file, torch_device
from latentzip.errors import UsageError
from latentzip.files import check_output, write_bytes

if TYPE_CHECKING:
    from latentzip.bench.compare import Plan
    from latentzip.bench.pairs import Wanted

OUTPUTS, EXTENT, PAIRS = "Reports", "Extent", "Blind pairs"
OUT = Path("latentzip-bench")
AGAINST = "avif,jxl,webp,jpeg,jp2"


def bench(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES...", help="Pictures, or folders of them.", show_default="the two of latentzip's tests"
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="A model, as encode takes it; again for more.", show_default="all built in"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Codecs to compare with, or none.", show_default=AGAINST, rich_help_panel=EXTENT
        ),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(
            "--anchor",
            help="Codec whose bytes others are held against.",
            show_default="the first of --against",
            rich_help_panel=EXTENT,
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates",
            help="Bits per pixel that every codec is to meet (0.1,0.2,0.4), instead of its usual settings.",
            rich_help_panel=EXTENT,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A first impression: three settings each, at most four pictures.", rich_help_panel=EXTENT
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many pictures.", rich_help_panel=EXTENT)
    ] = None,
    perceptual_weights: Annotated[
        Path | None,
        typer.Option(
            "--perceptual-weights",
            help="Weights (safetensors) for LPIPS, DISTS and the VGG16 distance, see docs/bench.md.",
            rich_help_panel=EXTENT,
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed", help="Measure speed by size of picture, threads and device instead.", rich_help_panel=EXTENT
        ),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            help="Instead of measuring, crops to judge blindly: a page (.html), or a folder of pictures and their key.",
            rich_help_panel=PAIRS,
        ),
    ] = None,
    share: Annotated[
        float,
        typer.Option("--share", help="Bytes of the first model's files over the anchor's.", rich_help_panel=PAIRS),
    ] = 1.0,
    pairs_count: Annotated[
        int, typer.Option("--pairs-count", min=1, help="How many pairs.", rich_help_panel=PAIRS)
    ] = 24,
    pairs_crop: Annotated[
        int, typer.Option("--pairs-crop", min=16, help="Pixels a side of the crops.", rich_help_panel=PAIRS)
    ] = 192,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the lots: pictures, crops, order and sides.", rich_help_panel=PAIRS)
    ] = 0,
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder that keeps results: what is in it is not measured again."),
    ] = OUT,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            parser=output_file,
            help="A page with pictures to compare.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    html_pictures: Annotated[
        int, typer.Option("--html-pictures", min=1, help="How many pictures it shows.", rich_help_panel=OUTPUTS)
    ] = 6,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", parser=output_file, help="Curves, as .png, .svg or .pdf.", rich_help_panel=OUTPUTS
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", parser=output_file, help="A line for each measurement.", rich_help_panel=OUTPUTS
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            parser=output_file,
            help="The tables, for a document.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    force: Force = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes that code and measure.", show_default="one a core")
    ] = None,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare models with other codecs on your pictures, by the bytes of real files."""
    for path in (html, plot, csv, markdown):
        if path is not None:
            check_output(path, overwrite=force)
    wanted_rates = _rates(rates)
    if speed and (html or plot or csv or rates):
        raise typer.BadParameter(
            "--speed gives tables, also as --json and --markdown: leave --html, --plot, --csv and --rates out"
        )
    if pairs is not None:
        if speed or quick or html or plot or csv or markdown or as_json or perceptual_weights:
            raise typer.BadParameter("--pairs measures nothing: leave --speed, --quick and all reports out")
        if _is_page(pairs):
            check_output(pairs, overwrite=force)
    if not 0.01 <= share <= 100:
        raise UsageError(f"--share {share:g}: give a ratio such as 0.6")
    from latentzip.bench.compare import Plan, default_processes
    from latentzip.bench.plots import check_plot

    if plot is not None:
        check_plot(plot)
    plan = Plan(
        images=images or [],
        models=models or [],
        against=[] if against == "none" else [name.strip() for name in (against or AGAINST).split(",")],
        insists=against is not None,
        rates=wanted_rates,
        quick=quick,
        limit=limit,
        perceptual_weights=perceptual_weights,
        anchor=anchor,
        out=out,
        processes=jobs or default_processes(),
        gallery=html_pictures if html is not None else 0,
        device=torch_device(device),
    )
    if pairs is not None:
        from latentzip.bench.pairs import Wanted

        _pairs(plan, Wanted(pairs_count, share, pairs_crop, seed), pairs, quiet, force)
    elif speed:
        _speed(plan, markdown, as_json=as_json, quiet=quiet, force=force)
    else:
        _compare(plan, {"html": html, "plot": plot, "csv": csv, "markdown": markdown}, as_json, quiet, force)


def _rates(text: str | None) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        rates = [0.0]
    if any(not 0 < rate < 100 for rate in rates):
        raise UsageError(f"--rates {text}: give bits per pixel, such as 0.1,0.2,0.4")
    return rates


def _compare(plan: "Plan", targets: dict[str, Path | None], as_json: bool, quiet: bool, force: bool) -> None:
    from latentzip.bench.compare import compare_codecs
    from latentzip.bench.describe import notes
    from latentzip.bench.export import to_csv, to_json, to_markdown
    from latentzip.bench.plots import to_plot
    from latentzip.bench.report import to_page
    from latentzip.bench.tables import equal_bytes_table, equal_quality_table, means_table, time_table
    from latentzip.cli.progress import BenchDisplay
    from latentzip.cli.tables import show_table

    try:
        with BenchDisplay(quiet=quiet) as display:
            result = compare_codecs(plan, display)
    except KeyboardInterrupt:
        inform(f"{plan.out}: what was measured is kept there: the same command goes on from it")
        raise
    summary = result.summary
    makers: dict[str, Callable[[], bytes]] = {
        "html": lambda: to_page(summary, result.gallery, result.store) if result.gallery else b"",
        "plot": lambda: to_plot(summary, targets["plot"].suffix if targets["plot"] else ""),
        "csv": lambda: to_csv(summary),
        "markdown": lambda: to_markdown(summary),
    }
    for name, path in targets.items():
        if path is not None:
            write_bytes(path, makers[name](), overwrite=force)
    if as_json:
        errors = [{"input": what, "error": message} for what, message in result.failures]
        print(json.dumps({**to_json(summary), "errors": errors}, indent=2))
    else:
        for make in (means_table, time_table, equal_quality_table, equal_bytes_table):
            show_table(make(summary))
        for line in notes(summary):
            print(line)
    if not quiet:
        inform(f"results are kept in {plan.out}")
    _end(result.failures)


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in (".html", ".htm")


def _pairs(plan: "Plan", wanted: "Wanted", target: Path, quiet: bool, force: bool) -> None:
    from latentzip.bench.pairs import choose_pairs
    from latentzip.bench.pairs_page import check_folder, to_folder, to_page
    from latentzip.cli.progress import BenchDisplay

    if not _is_page(target):
        check_folder(target, overwrite=force)
    with BenchDisplay(quiet=quiet) as display:
        found = choose_pairs(plan, wanted, display)
    if _is_page(target):
        write_bytes(target, to_page(found), overwrite=force)
    else:
        to_folder(found, target, overwrite=force)
    if not quiet:
        inform(f"{target}: {len(found.pairs)} pairs")
        if len(found.pairs) < wanted.count:
            inform(f"{wanted.count} were wanted: other pictures and rates have no files of such sizes, give more")
    _end(found.failures)


def _speed(plan: "Plan", markdown: Path | None, *, as_json: bool, quiet: bool, force: bool) -> None:
    from latentzip.bench.speed import measure_speed
    from latentzip.bench.speed_tables import speed_tables, speed_to_json
    from latentzip.bench.tables import markdown as to_markdown
    from latentzip.cli.progress import BenchDisplay
    from latentzip.cli.tables import show_table

    with BenchDisplay(quiet=quiet) as display:
        speed, failures = measure_speed(plan, display)
    tables = speed_tables(speed)
    if markdown is not None:
        write_bytes(markdown, "\n".join(map(to_markdown, tables)).encode(), overwrite=force)
    if as_json:
        print(json.dumps(speed_to_json(speed), indent=2))
    else:
        for table in tables:
            show_table(table)
        for line in speed.remarks:
            print(line)
    _end(failures)


def _end(failures: list[Any]) -> None:
    if failures:
        complain(f"{len(failures)} measurements failed:")
        for _, message in failures:
            complain(f"  {message}")
        raise typer.Exit(1)
