"""Rate against quality as a plot, by matplotlib."""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentzip.bench.metrics import EXTRA
from latentzip.bench.networks import Model
from latentzip.bench.runner import Codec
from latentzip.bench.summary import Summary
from latentzip.bench.tables import TRAINED
from latentzip.errors import BenchError, UsageError

SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 3  # of panels
COLOURS = ("#c2410c", "#a3236f", "#1d66a8", "#0a7d62", "#6d4fc2", "#7d6210", "#59636f", "#2b8fa3")
MARKERS = "os^Dv*Px"
# so that equal figures make equal files
NO_DATE: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def check_plot(path: Path) -> None:
    """Raises LatentzipError where `to_plot` cannot make such a file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: plots are written as {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise BenchError(f"{path}: plots need matplotlib, which is not installed: {EXTRA}")


def to_plot(summary: Summary, suffix: str) -> bytes:
    """Rate against quality, a panel for each metric."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = min(COLUMNS, len(summary.metrics))
    rows = -(-len(summary.metrics) // columns)
    with matplotlib.rc_context({"svg.hashsalt": "latentzip", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.6 * columns, 3.7 * rows), layout="constrained")
        for place, metric in enumerate(summary.metrics, 1):
            panel = figure.add_subplot(rows, columns, place)
            for i, codec in enumerate(summary.codecs):
                found = [(row.bpp, row.values.get(metric.key)) for row in summary.rows if row.codec is codec]
                curve = [(bpp, value) for bpp, value in found if value is not None]
                if curve:
                    panel.plot(*zip(*curve, strict=True), label=codec.title, **_style(i, codec))
            trained = ", ".join(codec.title for codec in summary.codecs if summary.is_trained_on(codec, metric))
            panel.set_title(f"{metric.title} ({TRAINED} {trained})" if trained else metric.title, fontsize="medium")
            panel.set(xlabel="bits per pixel", ylabel=metric.unit, xscale="log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.grid(alpha=0.25)
            if not metric.higher_is_better:
                panel.invert_yaxis()  # better is up
            if place == 1:
                panel.legend(frameon=False, fontsize="small")
        out = io.BytesIO()
        figure.savefig(out, format=suffix.lstrip(".").lower(), dpi=144, metadata=NO_DATE.get(suffix.lower()))
    return out.getvalue()


def _style(number: int, codec: Codec) -> dict[str, Any]:
    width = 2.2 if isinstance(codec, Model) else 1.2
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
        "linewidth": width,
    }
