"""A comparison as tables: for a terminal, for Markdown and for the page alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from latentzip.bench.curves import Comparison
from latentzip.bench.metrics import Metric
from latentzip.bench.networks import Model
from latentzip.bench.summary import Summary

TRAINED = "†"
NO_OVERLAP = "no overlap"

Cell = str | tuple[str, str]  # a text, or one with a smaller remark


@dataclass(frozen=True)
class Table:
    title: str
    head: list[str]
    rows: list[list[Cell]]


def means_table(summary: Summary) -> Table:
    """A row for each codec and setting."""
    head = ["codec", "setting", "bpp", *(column(metric) for metric in summary.metrics), "encode s", "decode s"]
    rows: list[list[Cell]] = []
    for row in summary.rows:
        cells: list[Cell] = [row.codec.title, row.label, f"{row.bpp:.3f}"]
        for metric in summary.metrics:
            value = row.values.get(metric.key)
            mark = TRAINED if summary.is_trained_on(row.codec, metric) else ""
            cells.append("" if value is None else f"{value:.{metric.digits}f}{mark}")
        rows.append([*cells, *(f"{row.seconds.get(name, 0):.2f}" for name in ("encode", "decode"))])
    return Table(f"Means over {_pictures(len(summary.sources))}", head, rows)


def column(metric: Metric) -> str:
    return " ".join(part for part in (metric.title, metric.unit, metric.arrow) if part)


def equal_quality_table(summary: Summary) -> Table:
    """Bytes for equal quality against the anchor's, a row for each other codec."""
    title = f"Bytes for equal quality, against {summary.anchor.title}"
    return _equal_table(summary, title, summary.at_equal_quality, lambda metric: metric.title, lambda metric: (0, " %"))


def equal_bytes_table(summary: Summary) -> Table:
    """Every figure at equal bytes less the anchor's, a row for each other codec."""
    title = f"Difference at equal bytes, to {summary.anchor.title}"
    return _equal_table(summary, title, summary.at_equal_bytes, column, lambda metric: (metric.digits, ""))


def _equal_table(
    summary: Summary,
    title: str,
    comparisons: Mapping[tuple[str, str], Comparison],
    heading: Callable[[Metric], str],
    form: Callable[[Metric], tuple[int, str]],
) -> Table:
    """form: of a change by a metric, its digits and its unit."""
    metrics = [m for m in summary.metrics if any(key == m.key for _, key in comparisons)]
    rows: list[list[Cell]] = []
    for codec in summary.codecs if metrics else ():
        if codec is not summary.anchor:
            cells = []
            for metric in metrics:
                trained = any(summary.is_trained_on(one, metric) for one in (codec, summary.anchor))
                mark = TRAINED if trained else ""
                cells.append(change_cell(comparisons[codec.name, metric.key], *form(metric), mark))
            rows.append([codec.title, *cells])
    return Table(title, ["codec", *map(heading, metrics)], rows)


def change_cell(comparison: Comparison, digits: int, unit: str, mark: str) -> Cell:
    """ "+12 %" and its interval "8 to 17", and in how many pictures where not in all."""
    if comparison.change is None:
        return NO_OVERLAP
    remarks = []
    if comparison.low is not None and comparison.high is not None:
        remarks.append(f"{_signed(comparison.low, digits)} to {_signed(comparison.high, digits)}")
    if comparison.overlapping < comparison.pictures:
        remarks.append(f"{comparison.overlapping} of {comparison.pictures}")
    return f"{_signed(comparison.change, digits)}{unit}{mark}", ", ".join(remarks)


def _signed(number: float, digits: int) -> str:
    text = f"{abs(number):.{digits}f}"
    if not float(text):
        return text
    return f"{'+' if number > 0 else '−'}{text}"


def time_table(summary: Summary) -> Table:
    """Whole commands on one picture, and what of them is the network and entropy coding."""
    head = ["codec", "setting"]
    for verb in ("encode", "decode"):
        head += [f"{verb} s", "network", "coding", "rest", f"{verb} memory"]
    rows: list[list[Cell]] = []
    for codec in summary.codecs:
        command = summary.commands.get(codec.name)
        if command is None:
            continue
        here = [p for p in summary.points if p.codec is codec and p.source == command.source]
        point = next((p for p in here if p.setting == command.setting), None)
        cells: list[Cell] = [codec.title, codec.label(command.setting)]
        for verb, run in (("encode", command.encode), ("decode", command.decode)):
            known = point.entry.seconds if point is not None else {}
            network, coding = known.get(f"{verb}_network"), known.get(f"{verb}_coding")
            parts = ["", "", ""]
            if isinstance(codec, Model) and network is not None and coding is not None:
                parts = [f"{s:.2f}" for s in (network, coding, max(0.0, run.seconds - network - coding))]
            memory = "" if run.memory is None else f"{run.memory / 2**20:.0f} MiB"
            cells += [f"{run.seconds:.2f}", *parts, memory]
        rows.append(cells)
    picture = next((command.source.name for command in summary.commands.values()), "")
    return Table(f"Whole commands, {picture}", head, rows)


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''}"


def markdown(table: Table) -> str:
    """A heading and the table."""

    def text(cell: Cell) -> str:
        return cell if isinstance(cell, str) else f"{cell[0]} ({cell[1]})" if cell[1] else cell[0]

    lines = [table.head, ["---"] * len(table.head), *([text(cell) for cell in row] for row in table.rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {table.title}\n\n{body}\n"
