"""A comparison: every picture through every codec at every setting, once.

Pictures come one after the other. Of each, the models code and decode first, alone and with all threads; then the pool
codes with the baselines and measures all that was decoded. What is in the store already is not done again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from latentzip.bench.baselines import Baseline
from latentzip.bench.metrics import Choice
from latentzip.bench.networks import Model
from latentzip.bench.pictures import Source, inspect, load
from latentzip.bench.pool import Pool
from latentzip.bench.store import Entry, Key, Store, file_name
from latentzip.bench.worker import Job, Outcome, nearest_setting
from latentzip.codec import Analysed
from latentzip.errors import LatentzipError

Codec = Baseline | Model


class Progress(Protocol):
    def begin(self, what: str, total: int) -> None: ...
    def step(self) -> None: ...
    def picture(self, number: int, count: int, name: str) -> None: ...
    def fail(self, message: str) -> None: ...


@dataclass(frozen=True)
class Point:
    """A picture by a codec at a setting. target: the bytes that were asked for, where the setting was searched."""

    source: Source
    codec: Codec
    setting: int
    entry: Entry
    target: int | None = None

    @property
    def bpp(self) -> float:
        return 8 * self.entry.bytes / self.source.pixels


@dataclass(frozen=True)
class Wish:
    """What is to be measured of a picture by a codec: at a setting, or nearest to a size."""

    codec: Codec
    setting: int = 0
    target: int | None = None


class Runner:
    """failures: (picture, and codec, message) of what could not be measured."""

    def __init__(self, store: Store, choice: Choice, processes: int, progress: Progress) -> None:
        self.store = store
        self.choice = choice
        self.failures: list[tuple[str, str]] = []
        self._progress = progress
        self._pool = Pool(choice, processes)
        self._warm: set[str] = set()

    def inspect(self, paths: Sequence[Path]) -> list[Source]:
        """Those of the pictures that can be read; the others are failures."""
        sources: dict[str, Source] = {}
        for path in paths:
            try:
                source = inspect(path)
            except LatentzipError as error:
                self.fail(str(path), error)
                continue
            sources.setdefault(source.digest, source)  # the same picture twice would count twice
        return list(sources.values())

    def run(self, what: str, sources: Sequence[Source], wishes: Callable[[Source], Sequence[Wish]]) -> list[Point]:
        """Measure what is wished for and not in the store; -> all of it, but what failed. Can be called again.

        what: a word for the progress. Raises BenchError where it cannot go on.
        """
        self._progress.begin(what, sum(len(wishes(source)) for source in sources))
        points = []
        for number, source in enumerate(sources, 1):
            points += self._run_picture(source, wishes(source))
            self._progress.picture(number, len(sources), source.name)
        return points

    def close(self) -> None:
        self._pool.close()
        self.store.close()

    def _run_picture(self, source: Source, wishes: Sequence[Wish]) -> list[Point]:
        found: dict[Wish, int] = {}
        jobs: dict[Job, Wish] = {}
        coder = _Coder(source)
        for wish in wishes:
            try:
                setting = self._setting(wish, coder)
                job = self._job(wish, setting, coder)
            except LatentzipError as error:
                self.fail(f"{source.path}, {wish.codec.title}", error)
                self._progress.step()
                continue
            if job is not None:
                jobs[job] = wish
            elif setting is not None:
                found[wish] = setting
                self._progress.step()

        def keep(job: Job, outcome: Outcome | LatentzipError) -> None:
            if job not in jobs:
                self._keep_original(source, outcome)
                return
            if isinstance(outcome, LatentzipError):
                self.fail(f"{source.path}, {jobs[job].codec.title}", outcome)
            else:
                self._keep(source, jobs[job], outcome)
                found[jobs[job]] = outcome.setting
            self._progress.step()

        extra = []
        if self.choice.measures_frechet and not self.store.has_patches(source.digest):
            extra.append(Job(source, "", frozenset(), patches=True, decoded=load(source.path).pixels))
        self._pool.run([*jobs, *extra], keep)
        return [
            Point(source, wish.codec, found[wish], self.store.entry(_key(source, wish.codec, found[wish])), wish.target)
            for wish in wishes
            if wish in found
        ]

    def _setting(self, wish: Wish, coder: "_Coder") -> int | None:
        """None where a baseline's is to be searched by the pool."""
        if wish.target is None:
            return wish.setting
        known: int | None = self.store.note(_search_name(coder.source, wish))
        if known is None and isinstance(wish.codec, Model):
            known = coder.search(wish.codec, wish.target, dict(self.store.sizes(coder.source.digest, wish.codec.key)))
            self.store.keep_note(_search_name(coder.source, wish), known)
        return known

    def _job(self, wish: Wish, setting: int | None, coder: "_Coder") -> Job | None:
        """What the pool is to do, a model having coded and decoded; None where all is known. Raises LatentzipError."""
        codec, source = wish.codec, coder.source
        everything = frozenset(metric.key for metric in self.choice.metrics)
        if setting is None:
            known = self.store.sizes(source.digest, codec.key)
            return Job(source, codec.name, everything, self.choice.measures_frechet, target=wish.target, known=known)
        key = _key(source, codec, setting)
        entry = self.store.entry(key)
        data = self.store.file(entry)
        job = Job(source, codec.name, everything, self.choice.measures_frechet, setting, data=data)
        if data is not None:
            missing = frozenset(m.key for m in self.choice.metrics if m.cache_key not in entry.metrics)
            job = replace(job, wanted=missing, patches=job.patches and not self.store.has_patches(str(key)))
            if not job.wanted and not job.patches:
                return None
        return job if isinstance(codec, Baseline) else self._decoded(job, codec, coder)

    def _decoded(self, job: Job, model: Model, coder: "_Coder") -> Job:
        if model.key not in self._warm:  # the first pass of a network is slower than all that follow
            model.read(coder.write(model, job.setting)[0])
            coder.forget()
            self._warm.add(model.key)
        data, seconds = (job.data, {}) if job.data is not None else coder.write(model, job.setting)
        decoded, more = model.read(data)
        return replace(job, data=data, decoded=decoded, seconds={**seconds, **more} if seconds else {})

    def _keep(self, source: Source, wish: Wish, outcome: Outcome) -> None:
        key = _key(source, wish.codec, outcome.setting)
        old = self.store.entry(key)
        file, seconds = old.file, old.seconds
        if self.store.file(old) is None:  # it was coded anew
            seconds = outcome.seconds
            name = file_name(wish.codec.name, wish.codec.label(outcome.setting), wish.codec.suffix)
            file = self.store.keep_file(f"{source.path.stem}-{source.digest[:6]}", name, outcome.data)
        versions = {metric.key: metric.cache_key for metric in self.choice.metrics}
        metrics = {**old.metrics, **{versions[name]: value for name, value in outcome.values.items()}}
        self.store.add(key, Entry(len(outcome.data), file, seconds, metrics))
        if outcome.patches is not None:
            self.store.keep_patches(str(key), outcome.patches)
        if wish.target is not None:
            self.store.keep_note(_search_name(source, wish), outcome.setting)

    def _keep_original(self, source: Source, outcome: Outcome | LatentzipError) -> None:
        if isinstance(outcome, Outcome) and outcome.patches is not None:
            self.store.keep_patches(source.digest, outcome.patches)

    def fail(self, what: str, error: LatentzipError) -> None:
        """Something could not be measured; the rest goes on."""
        message = str(error)
        self.failures.append((what, message if message.startswith(what) else f"{what}: {message}"))
        self._progress.fail(self.failures[-1][1])


@dataclass
class _Coder:
    """A picture's passes through encoders, each made once."""

    source: Source
    _passes: dict[str, tuple[Analysed, float]] = field(default_factory=dict)

    def write(self, model: Model, setting: int) -> tuple[bytes, dict[str, float]]:
        if model.key not in self._passes:
            self._passes[model.key] = model.analyse(load(self.source.path))
        analysed, network = self._passes[model.key]
        data, coding = model.write(analysed, setting)
        return data, {"encode": network + coding, "encode_network": network, "encode_coding": coding}

    def search(self, model: Model, target: int, known: Mapping[int, int]) -> int:
        return nearest_setting(target, model.choices, lambda setting: self.write(model, setting)[0], known)

    def forget(self) -> None:
        self._passes.clear()


def _key(source: Source, codec: Codec, setting: int) -> Key:
    return Key(source.digest, codec.key, setting)


def _search_name(source: Source, wish: Wish) -> str:
    return f"search {source.digest} {wish.codec.key} {wish.target}"
