"""What a comparison comes to: means of every codec and setting, and rates for equal quality."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from latentzip.bench.commands import Command
from latentzip.bench.curves import Comparison, Curve, compare_bytes, compare_quality
from latentzip.bench.frechet import FEWEST_PATCHES, frechet_distance
from latentzip.bench.metrics import EXTRA, FRECHET, Choice, Metric
from latentzip.bench.networks import Model
from latentzip.bench.pictures import Source
from latentzip.bench.runner import Codec, Point
from latentzip.bench.store import Key, Store


@dataclass(frozen=True)
class Row:
    """A codec at a setting, or at a rate that was asked for: means over the pictures. values, seconds: by key."""

    codec: Codec
    label: str
    bpp: float
    values: dict[str, float | None]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """rows: by codec, the lowest rate first; at_equal_quality: changes of the bytes, at_equal_bytes: of the figures,
    both by the codec's name and the metric's key, against the anchor."""

    sources: tuple[Source, ...]
    codecs: tuple[Codec, ...]
    metrics: tuple[Metric, ...]  # of rows: those of pictures, then the Fréchet distance where the set is large enough
    points: tuple[Point, ...]
    rows: tuple[Row, ...]
    anchor: Codec
    at_equal_quality: dict[tuple[str, str], Comparison]
    at_equal_bytes: dict[tuple[str, str], Comparison]
    commands: dict[str, Command]  # by the codec's name
    remarks: tuple[str, ...]

    def is_trained_on(self, codec: Codec, metric: Metric) -> bool:
        return isinstance(codec, Model) and metric.key in codec.trained_on


def summarise(
    points: Sequence[Point],
    codecs: Sequence[Codec],
    anchor: Codec,
    choice: Choice,
    store: Store,
    commands: dict[str, Command],
    missing: Sequence[str],
) -> Summary:
    """Means are over the pictures that every codec and setting has, so that all rows speak of the same ones."""
    remarks = [*missing, *choice.missing]
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.codec.name, _label(point)].append(point)
    everywhere = set.intersection(*({p.source.digest for p in group} for group in groups.values()))
    sources = tuple({point.source.digest: point.source for point in points}.values())
    if len(everywhere) < len(sources):
        remarks.append(
            f"means are over the {len(everywhere)} of {len(sources)} pictures that every codec could code at every"
            " setting"
        )
    metrics = choice.metrics
    originals = {s.digest: store.patches(s.digest) for s in sources if s.digest in everywhere}
    count = sum(len(patches) for patches in originals.values() if patches is not None)
    if choice.measures_frechet and count >= FEWEST_PATCHES:
        metrics = (*metrics, FRECHET)
    elif choice.measures_frechet:
        remarks.append(
            f"{FRECHET.title} is left out: it needs {FEWEST_PATCHES} patches of 64 pixels, and there are {count}"
        )
    rows = []
    for (_, label), group in groups.items():
        kept = [point for point in group if point.source.digest in everywhere]
        if kept:
            rows.append(_row(label, kept, choice.metrics, store if FRECHET in metrics else None))
    order = {codec.name: i for i, codec in enumerate(codecs)}
    rows.sort(key=lambda row: (order[row.codec.name], row.bpp))
    at_equal_quality, at_equal_bytes = {}, {}
    if find_spec("scipy") is None:
        remarks.append(f"comparisons at equal quality and equal bytes are left out: scipy is not installed: {EXTRA}")
    else:
        for name, metric, pairs in _pairs(points, codecs, anchor, choice.metrics):
            at_equal_quality[name, metric.key] = compare_bytes(pairs, higher_is_better=metric.higher_is_better)
            at_equal_bytes[name, metric.key] = compare_quality(pairs)
    return Summary(
        sources,
        tuple(codecs),
        metrics,
        tuple(points),
        tuple(rows),
        anchor,
        at_equal_quality,
        at_equal_bytes,
        commands,
        tuple(remarks),
    )


def _label(point: Point) -> str:
    if point.target is None:
        return point.codec.label(point.setting)
    return f"{8 * point.target / point.source.pixels:.3g} bpp"


def _row(label: str, points: Sequence[Point], metrics: Sequence[Metric], store: Store | None) -> Row:
    values: dict[str, float | None] = {}
    for metric in metrics:
        found = [point.entry.metrics.get(metric.cache_key) for point in points]
        known = [value for value in found if value is not None]
        values[metric.key] = float(np.mean(known)) if len(known) == len(found) else None
    if store is not None:
        values[FRECHET.key] = _frechet(points, store)
    names = {name for point in points for name in point.entry.seconds}
    seconds = {name: float(np.mean([point.entry.seconds.get(name, 0.0) for point in points])) for name in sorted(names)}
    return Row(points[0].codec, label, float(np.mean([point.bpp for point in points])), values, seconds)


def _frechet(points: Sequence[Point], store: Store) -> float | None:
    before = [store.patches(point.source.digest) for point in points]
    after = [store.patches(str(Key(point.source.digest, point.codec.key, point.setting))) for point in points]
    if any(patches is None for patches in (*before, *after)):
        return None
    a, b = (np.concatenate([p for p in side if p is not None]) for side in (before, after))
    return frechet_distance(a, b)


def _pairs(
    points: Sequence[Point], codecs: Sequence[Codec], anchor: Codec, metrics: Sequence[Metric]
) -> Iterator[tuple[str, Metric, list[tuple[Curve, Curve]]]]:
    """Each other codec's name, each metric, and (anchor's curve, other's) of every picture that both have."""
    for metric in metrics:
        curves = _curves(points, metric)
        anchors = curves[anchor.name]
        for codec in codecs:
            if codec is not anchor:
                others = curves[codec.name]
                yield codec.name, metric, [(anchors[p], others[p]) for p in anchors if p in others]


def _curves(points: Sequence[Point], metric: Metric) -> dict[str, dict[str, Curve]]:
    """By codec and picture."""
    curves: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        value = point.entry.metrics.get(metric.cache_key)
        if value is not None:
            curves[point.codec.name][point.source.digest].append((point.bpp, value))
    return curves
