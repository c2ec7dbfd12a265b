"""A comparison as one self-contained page: pictures to look at, curves, tables. Nothing in it comes from elsewhere."""

import base64
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from PIL import Image

from latentzip.bench.baselines import Baseline
from latentzip.bench.describe import codec_text, headline, metric_text, trained_text
from latentzip.bench.networks import Model
from latentzip.bench.pictures import Source, load
from latentzip.bench.runner import Codec, Point, Wish
from latentzip.bench.store import Store
from latentzip.bench.summary import Summary
from latentzip.bench.tables import TRAINED, Table, equal_bytes_table, equal_quality_table, means_table, time_table
from latentzip.images import Pixels

SIZES = (0.2, 0.5, 0.8)  # where in the leading codec's settings: a small, a middle and a large file
SIZE_NAMES = ("small", "medium", "large")
SIDE = 1024  # of what is shown of a picture
THUMBNAIL = 128
# What a browser shows itself is embedded as it was measured; all else as AVIF that the eye cannot tell from it.
NATIVE = {".jpg": "image/jpeg", ".webp": "image/webp", ".avif": "image/avif"}
SHOWN: dict[str, Any] = {"quality": 90, "subsampling": "4:4:4", "speed": 6}


@dataclass(frozen=True)
class Gallery:
    """points: of each picture, those nearest in bytes to the leading codec's, by size and codec."""

    leading: Codec
    sources: Sequence[Source]
    points: dict[tuple[str, int, str], Point]


def choose_sources(sources: Sequence[Source], count: int) -> list[Source]:
    """So many of the pictures, evenly spread."""
    count = min(count, len(sources))
    return [sources[i * len(sources) // count] for i in range(count)]


def leading_settings(codec: Codec, quick: bool) -> list[int]:
    settings = codec.chosen(quick)
    return [settings[round(share * (len(settings) - 1))] for share in SIZES]


def gallery_wishes(codecs: Sequence[Codec], sizes: Sequence[int]) -> list[Wish]:
    """Of the other codecs, the files nearest to the leading one's."""
    return [Wish(codec, target=size) for size in sizes for codec in codecs]


def to_page(summary: Summary, gallery: Gallery, store: Store) -> bytes:
    """The whole page as HTML."""
    folder = files("latentzip.bench") / "page"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    data = json.dumps(_data(summary, gallery, store), ensure_ascii=False).replace("</", "<\\/")
    script = "".join(read(name) for name in ("viewer.js", "plot.js", "page.js"))
    page = read("page.html").replace("/*STYLE*/", read("style.css")).replace("/*SCRIPT*/", script)
    return page.replace("/*DATA*/", data).encode()


def _data(summary: Summary, gallery: Gallery, store: Store) -> dict[str, Any]:
    codecs = [
        {
            "name": codec.name,
            "title": codec.title,
            "trained": sorted(codec.trained_on) if isinstance(codec, Model) else [],
        }
        for codec in summary.codecs
    ]
    metrics = [
        {
            "key": metric.key,
            "title": metric.title,
            "unit": metric.unit,
            "higher": metric.higher_is_better,
            "digits": metric.digits,
            "source": metric.source,
        }
        for metric in summary.metrics
    ]
    interval = ""
    if any(comparison.low is not None for comparison in summary.at_equal_quality.values()):
        interval = "Below each, the 95 % interval by bootstrap over pictures. "
    return {
        "headline": headline(summary),
        "lead": f"{len(summary.sources)} pictures, {len(summary.codecs)} codecs, {len(summary.points)} files. All rates"
        " are those of whole files, headers included.",
        "codecs": codecs,
        "metrics": metrics,
        "names": [{"id": source.digest, "name": source.name} for source in summary.sources],
        "rows": [
            {"codec": row.codec.name, "label": row.label, "bpp": row.bpp, "values": row.values} for row in summary.rows
        ],
        "curves": _curves(summary),
        "tables": {
            "equal": _table(equal_quality_table(summary)),
            "gain": _table(equal_bytes_table(summary)),
            "means": _table(means_table(summary)),
            "commands": _table(time_table(summary)),
        },
        "equalLead": f"How many more or fewer bytes than {summary.anchor.title}, the mean over the pictures of the"
        f" Bjøntegaard rate. {interval}{_sentence(trained_text(summary))}",
        "gainLead": f"Each figure less {summary.anchor.title}'s, the mean over the rates that both reach, and over the"
        f" pictures. {interval}",
        "timeLead": f"{time_table(summary).title}: a process from its start to its end. Baselines run in Python too.",
        "method": [
            *((codec.title, codec_text(codec)) for codec in summary.codecs),
            ("bpp", "8 × bytes of the file ÷ pixels of the picture"),
            *((metric.title, metric_text(metric)) for metric in summary.metrics),
        ],
        "remarks": list(summary.remarks),
        "sizes": list(SIZE_NAMES),
        "leading": gallery.leading.name,
        "anchor": summary.anchor.name,
        "sizeNote": f"Every codec was asked for the file nearest in bytes to {gallery.leading.title}'s; where it"
        " differs by more than a few per cent, it has none nearer. JPEG, WebP and AVIF are the very files that were"
        f" measured, the others and the originals AVIF of quality {SHOWN['quality']}."
        + (f" {TRAINED}: the model was trained on it, see below." if trained_text(summary) else ""),
        "pictures": [_picture(source, summary, gallery, store) for source in gallery.sources],
    }


def _sentence(text: str) -> str:
    return f"{text}." if text else ""


def _table(table: Table) -> dict[str, Any]:
    return {"head": table.head, "rows": table.rows}


def _values(summary: Summary, point: Point) -> dict[str, float | None]:
    return {m.key: point.entry.metrics.get(m.cache_key) for m in summary.metrics}


def _curves(summary: Summary) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By codec and picture."""
    curves: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for p in summary.points:
        curves[p.codec.name][p.source.digest].append(
            {"label": p.codec.label(p.setting), "bpp": p.bpp, "values": _values(summary, p)}
        )
    return curves


def _picture(source: Source, summary: Summary, gallery: Gallery, store: Store) -> dict[str, Any]:
    pixels = load(source.path).pixels
    crop = _central(pixels)
    small = Image.fromarray(crop)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    out: list[dict[str, Any]] = []
    for size in range(len(SIZES)):
        shown = {}
        for codec in summary.codecs:
            point = gallery.points.get((source.digest, size, codec.name))
            data = store.file(point.entry) if point is not None else None
            if point is not None and data is not None:
                shown[codec.name] = {
                    "image": _shown(codec, data, whole=crop.shape == pixels.shape),
                    "bytes": point.entry.bytes,
                    "bpp": point.bpp,
                    "label": codec.label(point.setting),
                    "values": _values(summary, point),
                }
        out.append(shown)
    return {
        "name": source.name,
        "width": crop.shape[1],
        "height": crop.shape[0],
        "crop": crop.shape != pixels.shape,
        "original": _as_avif(Image.fromarray(crop)),
        "thumbnail": _as_avif(small),
        "files": out,
    }


def _central(pixels: Pixels) -> Pixels:
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def _shown(codec: Codec, data: bytes, *, whole: bool) -> str:
    if whole and codec.suffix in NATIVE:
        return _data_uri(NATIVE[codec.suffix], data)
    pixels = codec.decode(data) if isinstance(codec, Baseline) else codec.read(data)[0]
    return _as_avif(Image.fromarray(_central(pixels)))


def _as_avif(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "AVIF", **SHOWN)
    return _data_uri("image/avif", out.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
