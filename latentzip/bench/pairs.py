"""Pairs of crops for blind judgement: what two codecs made of the same part of a picture, on sides drawn by lot."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from latentzip.bench.baselines import Baseline, choose_baselines
from latentzip.bench.compare import Plan, find_anchor, models
from latentzip.bench.metrics import Choice
from latentzip.bench.pictures import Source, find_pictures, load
from latentzip.bench.runner import Codec, Point, Progress, Runner, Wish
from latentzip.bench.store import Store
from latentzip.errors import BenchError
from latentzip.images import Pixels

RATES = (0.08, 0.15, 0.3)  # bits per pixel, where none are asked for
NEAR = 0.1  # how far a file's bytes may be from what was asked for, as a ratio
DETAILED = 0.5  # the share of a picture's crops that has most detail: of the others nothing can be told


@dataclass(frozen=True)
class Wanted:
    """share: the bytes of the codec that is tested over the anchor's; side: of the crops, in pixels."""

    count: int
    share: float
    side: int
    seed: int


@dataclass(frozen=True)
class Pair:
    """x, y: the crop's left upper corner; rate: bits per pixel that the anchor was asked for; tested_left: whether the
    tested codec's crop lies on the left."""

    tested: Point
    anchor: Point
    x: int
    y: int
    rate: float
    tested_left: bool

    @property
    def source(self) -> Source:
        return self.anchor.source


@dataclass(frozen=True)
class Pairs:
    """In the order in which they are shown. failures: (what, message) of pictures and files that could not be made."""

    tested: Codec
    anchor: Codec
    wanted: Wanted
    pairs: tuple[Pair, ...]
    store: Store
    failures: list[tuple[str, str]]

    def crops(self, pair: Pair) -> tuple[Pixels, Pixels, Pixels]:
        """-> left, the original, right, each (H, W, 3) uint8."""
        original = load(pair.source.path).pixels
        tested, anchor = (self._decoded(point) for point in (pair.tested, pair.anchor))
        sides = (tested, anchor) if pair.tested_left else (anchor, tested)
        rows = slice(pair.y, pair.y + self.wanted.side)
        columns = slice(pair.x, pair.x + self.wanted.side)
        left, middle, right = (pixels[rows, columns] for pixels in (sides[0], original, sides[1]))
        return left, middle, right

    def _decoded(self, point: Point) -> Pixels:
        data = self.store.file(point.entry)
        if data is None:
            raise BenchError(f"{self.store.folder / point.entry.file}: was removed meanwhile: try again")
        return point.codec.decode(data) if isinstance(point.codec, Baseline) else point.codec.read(data)[0]


def choose_pairs(plan: Plan, wanted: Wanted, progress: Progress) -> Pairs:
    """The first codec that is not the anchor against the anchor, at the plan's rates. Equal seeds make equal pairs.

    Raises LatentzipError where there are none.
    """
    baselines, missing = choose_baselines(plan.against)
    if missing and plan.insists:
        raise BenchError(missing[0])
    codecs: list[Codec] = [*models(plan), *baselines]
    anchor = find_anchor(codecs, plan.anchor)
    tested = next((codec for codec in codecs if codec is not anchor), None)
    if tested is None:
        raise BenchError(f"there is nothing to hold against {anchor.title}: give two models with -m, or --against")
    runner = Runner(Store(plan.out), Choice((), (), None), plan.processes, progress)
    try:
        sources = runner.inspect(find_pictures(plan.images, plan.limit))
        rng = np.random.default_rng(wanted.seed)
        combinations = _combinations([sources[i] for i in rng.permutation(len(sources))], plan.rates or RATES)
        points: list[tuple[Point, Point, float]] = []
        while len(points) < wanted.count:
            batch = list(islice(combinations, wanted.count - len(points)))
            if not batch:
                break
            points += _points(runner, batch, tested, anchor, wanted.share)
    finally:
        runner.close()
    if not points:
        raise BenchError(
            f"{tested.title} and {anchor.title} have no files of these sizes: give other --rates, or another --share"
        )
    pairs = []
    for number in rng.permutation(len(points)):
        one, other, rate = points[number]
        x, y = choose_crop(load(one.source.path).pixels, wanted.side, rng)
        pairs.append(Pair(one, other, x, y, rate, tested_left=bool(rng.integers(2))))
    return Pairs(tested, anchor, wanted, tuple(pairs), runner.store, runner.failures)


def _combinations(sources: Sequence[Source], rates: Sequence[float]) -> Iterator[tuple[Source, float]]:
    """All pictures at one rate or another before any picture comes again, and all rates as often."""
    for turn in range(len(rates)):
        for i, source in enumerate(sources):
            yield source, rates[(i + turn) % len(rates)]


def _points(
    runner: Runner, batch: Sequence[tuple[Source, float]], tested: Codec, anchor: Codec, share: float
) -> list[tuple[Point, Point, float]]:
    """Of those whose files come near enough to what was asked for: other pairs would not be fair."""
    rates: dict[Source, list[float]] = defaultdict(list)
    for source, rate in batch:
        rates[source].append(rate)
    targets = {(source, round(rate * source.pixels / 8)): rate for source, rate in batch}
    anchors = runner.run(
        "pairs", list(rates), lambda s: [Wish(anchor, target=size) for source, size in targets if source == s]
    )
    usable = [p for p in anchors if p.target is not None and _is_near(p.entry.bytes, p.target)]
    sizes = {(p.source, round(share * p.entry.bytes)): p for p in usable}
    sources = [source for source in rates if any(source == s for s, _ in sizes)]
    others = runner.run(
        "pairs", sources, lambda s: [Wish(tested, target=size) for source, size in sizes if source == s]
    )
    found = []
    for point in others:
        if point.target is not None and _is_near(point.entry.bytes, point.target):
            partner = sizes[point.source, point.target]
            assert partner.target is not None
            found.append((point, partner, targets[partner.source, partner.target]))
    return found


def _is_near(size: int, target: int) -> bool:
    return abs(size / target - 1) <= NEAR


def choose_crop(pixels: Pixels, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """-> x, y of a square of `side` pixels, drawn from those of the original that have more detail than most.

    No codec has a say in it: only the original is looked at.
    """
    height, width = pixels.shape[:2]
    luma = pixels.astype(np.float64).mean(2)
    corners = [(x, y) for y in _starts(height, side) for x in _starts(width, side)]
    detail = [_detail(luma[y : y + side, x : x + side]) for x, y in corners]
    order = np.argsort(detail, kind="stable")[::-1]
    return corners[int(order[rng.integers(max(1, round(DETAILED * len(corners))))])]


def _starts(length: int, side: int) -> list[int]:
    """Half a side apart, the last at the end."""
    last = max(0, length - side)
    return [*range(0, last, max(1, side // 2)), last]


def _detail(luma: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """The mean difference of neighbours."""
    return float(sum(np.abs(np.diff(luma, axis=axis)).sum() for axis in (0, 1)) / luma.size)
