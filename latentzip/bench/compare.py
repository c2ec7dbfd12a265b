"""A whole comparison, from what was asked for to its summary."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentzip.bench.baselines import choose_baselines
from latentzip.bench.commands import Command, measure_command
from latentzip.bench.metrics import choose_metrics
from latentzip.bench.networks import Model
from latentzip.bench.pictures import Source, find_pictures
from latentzip.bench.report import Gallery, choose_sources, gallery_wishes, leading_settings
from latentzip.bench.runner import Codec, Progress, Runner, Wish
from latentzip.bench.store import Store
from latentzip.bench.summary import Summary, summarise
from latentzip.errors import BenchError, LatentzipError, UsageError
from latentzip.zoo.registry import built_in

QUICK_PICTURES = 4


@dataclass(frozen=True)
class Plan:
    """models: as `encode -m` takes them, without any all built-in ones; against: names of baselines; insists:
    whether one that is not installed is a failure; rates: bits per
    pixel for every codec to meet, without any its usual settings; anchor: the name of the codec that others are held
    against; gallery: how many pictures the page is to show, 0 for no page."""

    images: Sequence[Path]
    models: Sequence[str]
    against: Sequence[str]
    insists: bool
    rates: Sequence[float]
    quick: bool
    limit: int | None
    perceptual_weights: Path | None
    anchor: str | None
    out: Path
    processes: int
    gallery: int
    device: torch.device


@dataclass(frozen=True)
class Result:
    summary: Summary
    gallery: Gallery | None
    store: Store
    failures: list[tuple[str, str]]


def compare_codecs(plan: Plan, progress: Progress) -> Result:
    """Measure all that is not in plan.out already. Raises LatentzipError where nothing can be measured."""
    choice = choose_metrics(plan.perceptual_weights)
    baselines, missing = choose_baselines(plan.against)
    paths = find_pictures(plan.images, min(plan.limit or QUICK_PICTURES, QUICK_PICTURES) if plan.quick else plan.limit)
    codecs: list[Codec] = [*models(plan), *baselines]
    if not codecs:
        raise UsageError("there is no codec to measure: give --against, or a model with -m")
    anchor = find_anchor(codecs, plan.anchor)
    runner = Runner(Store(plan.out), choice, plan.processes, progress)
    try:
        if plan.insists:
            for line in missing:
                runner.fail("--against", BenchError(line))
        sources = runner.inspect(paths)
        points = runner.run("pictures", sources, lambda source: _wishes(codecs, source, plan)) if sources else []
        if not points:
            raise BenchError("nothing could be measured")
        gallery = _measure_gallery(runner, sources, codecs, plan) if plan.gallery else None
        commands = {} if plan.quick else _measure_commands(runner, codecs, sources[0], progress)
        summary = summarise(points, codecs, anchor, choice, runner.store, commands, missing)
        return Result(summary, gallery, runner.store, runner.failures)
    finally:
        runner.close()


def default_processes() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def models(plan: Plan) -> list[Model]:
    """Raises LatentzipError for one that cannot be loaded, or two of one name."""
    found: dict[str, Model] = {}
    for source in plan.models or [entry.name for entry in built_in()]:
        model = Model(source, plan.device)
        if model.name in found:
            raise UsageError(f"{source}: another model of this comparison is called {model.name} too: rename one")
        found[model.name] = model
    return list(found.values())


def find_anchor(codecs: Sequence[Codec], wanted: str | None) -> Codec:
    """The wanted one; else the first baseline, or where there is none the first model. Raises UsageError."""
    if wanted is None:
        return next((codec for codec in codecs if not isinstance(codec, Model)), codecs[0])
    for codec in codecs:
        if codec.name == wanted:
            return codec
    raise UsageError(f"--anchor {wanted}: not measured here: choose from {', '.join(codec.name for codec in codecs)}")


def _wishes(codecs: Sequence[Codec], source: Source, plan: Plan) -> list[Wish]:
    if plan.rates:
        return [Wish(codec, target=max(1, round(rate * source.pixels / 8))) for codec in codecs for rate in plan.rates]
    return [Wish(codec, setting) for codec in codecs for setting in codec.chosen(plan.quick)]


def _measure_gallery(runner: Runner, sources: Sequence[Source], codecs: Sequence[Codec], plan: Plan) -> Gallery:
    shown = choose_sources(sources, plan.gallery)
    leading, others = codecs[0], codecs[1:]
    settings = leading_settings(leading, plan.quick)
    first = runner.run("page", shown, lambda _: [Wish(leading, setting) for setting in settings])
    points = {(p.source.digest, settings.index(p.setting), leading.name): p for p in first}
    sizes = {place: point.entry.bytes for place, point in points.items()}

    def wishes(source: Source) -> list[Wish]:
        known = [sizes.get((source.digest, size, leading.name)) for size in range(len(settings))]
        return gallery_wishes(others, [size for size in known if size is not None])

    for point in runner.run("page", shown, wishes):
        for (digest, size, _), target in sizes.items():
            if digest == point.source.digest and target == point.target:
                points[digest, size, point.codec.name] = point
    return Gallery(leading, shown, points)


def _measure_commands(
    runner: Runner, codecs: Sequence[Codec], source: Source, progress: Progress
) -> dict[str, Command]:
    found = {}
    progress.begin("whole commands", len(codecs))
    for codec in codecs:
        try:
            found[codec.name] = measure_command(codec, source, runner.store)
        except LatentzipError as error:
            runner.fail(f"{codec.title} as a command", error)
        progress.step()
    return found
