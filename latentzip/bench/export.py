"""A comparison as data: JSON, CSV and Markdown."""

import csv
import io
from typing import Any

from latentzip.bench.curves import Comparison
from latentzip.bench.describe import codec_text, metric_text, notes
from latentzip.bench.metrics import Metric
from latentzip.bench.networks import Model
from latentzip.bench.summary import Summary
from latentzip.bench.tables import equal_bytes_table, equal_quality_table, markdown, means_table, time_table


def to_json(summary: Summary) -> dict[str, Any]:
    """Everything that was measured, by picture and as means, with what it means."""
    by_name = {codec.name: codec for codec in summary.codecs}
    return {
        "pictures": [
            {"name": s.name, "path": str(s.path), "digest": s.digest, "width": s.width, "height": s.height}
            for s in summary.sources
        ],
        "codecs": [
            {
                "name": codec.name,
                "settings": codec_text(codec),
                "trained_on": sorted(codec.trained_on) if isinstance(codec, Model) else [],
            }
            for codec in summary.codecs
        ],
        "metrics": [
            {
                "name": metric.key,
                "title": metric.title,
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
                "source": metric.source,
            }
            for metric in summary.metrics
        ],
        "measurements": [
            {
                "picture": point.source.name,
                "digest": point.source.digest,
                "codec": point.codec.name,
                "setting": point.codec.label(point.setting),
                "bytes": point.entry.bytes,
                "bpp": point.bpp,
                **{m.key: point.entry.metrics.get(m.cache_key) for m in _of_pictures(summary)},
                "seconds": point.entry.seconds,
            }
            for point in summary.points
        ],
        "means": [
            {"codec": row.codec.name, "setting": row.label, "bpp": row.bpp, **row.values, "seconds": row.seconds}
            for row in summary.rows
        ],
        "anchor": summary.anchor.name,
        "equal_quality": _comparisons(summary.at_equal_quality, "change_percent"),
        "equal_bytes": _comparisons(summary.at_equal_bytes, "change"),
        "commands": {
            name: {
                "picture": command.source.name,
                "setting": by_name[name].label(command.setting),
                "encode": vars(command.encode),
                "decode": vars(command.decode),
            }
            for name, command in summary.commands.items()
        },
        "remarks": list(summary.remarks),
    }


def _comparisons(found: dict[tuple[str, str], Comparison], change: str) -> list[dict[str, Any]]:
    return [
        {
            "codec": codec,
            "metric": metric,
            change: comparison.change,
            "interval_95": [comparison.low, comparison.high],
            "overlapping": comparison.overlapping,
            "pictures": comparison.pictures,
            "by_picture": comparison.single,
        }
        for (codec, metric), comparison in found.items()
    ]


def _of_pictures(summary: Summary) -> list[Metric]:
    """Without those of whole sets."""
    return [metric for metric in summary.metrics if metric.key != "frechet"]


def to_csv(summary: Summary) -> bytes:
    """A line for each measurement."""
    out = io.StringIO()
    metrics = _of_pictures(summary)
    times = sorted({name for point in summary.points for name in point.entry.seconds})
    writer = csv.writer(out, lineterminator="\n")
    head = ["picture", "width", "height", "codec", "setting", "bytes", "bpp", *(m.key for m in metrics)]
    writer.writerow([*head, *(f"{name}_seconds" for name in times)])
    for point in summary.points:
        source, entry = point.source, point.entry
        place = [source.name, source.width, source.height, point.codec.name, point.codec.label(point.setting)]
        values = [_plain(entry.metrics.get(m.cache_key)) for m in metrics]
        seconds = [_plain(entry.seconds.get(name)) for name in times]
        writer.writerow([*place, entry.bytes, f"{point.bpp:.5f}", *values, *seconds])
    return out.getvalue().encode()


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def to_markdown(summary: Summary) -> bytes:
    """The tables, and what the codecs and metrics are."""
    makers = (equal_quality_table, equal_bytes_table, means_table, time_table)
    parts = [markdown(table) for table in (make(summary) for make in makers) if table.rows]
    metrics = "".join(f"- {metric.title}: {metric_text(metric)}\n" for metric in summary.metrics)
    return ("\n".join([*parts, "".join(f"- {line}\n" for line in notes(summary)), metrics])).encode()
