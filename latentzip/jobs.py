"""Which file becomes which. Whatever would go wrong with names is found before the first file is touched."""

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM, check_output, flaw_of_name, ignores_case

LZ_SUFFIXES = frozenset({".lz"})
MOST_COMPLAINTS = 20


@dataclass(frozen=True)
class Source:
    """An input file, and its path below the folder that was given: the name alone of a file that was given itself."""

    path: Path
    below: Path
    flaw: str = ""  # why nothing can be read from it


@dataclass(frozen=True)
class Job:
    """A file, what it becomes, and what is to be said of that."""

    source: Path
    target: Path = STREAM
    remarks: tuple[str, ...] = ()

    @property
    def becomes_itself(self) -> bool:
        """Whether to write the target would be to replace the source."""
        try:
            return self.target != STREAM and os.path.samefile(self.source, self.target)
        except OSError:
            return False


@dataclass(frozen=True)
class Plan:
    """What is to be done, sources whose outputs are there already, and those that cannot be done, with the error."""

    jobs: list[Job]
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def find_sources(inputs: list[Path], suffixes: Collection[str], *, recursive: bool) -> list[Source]:
    """The files given, and with `recursive` those in the folders given, by their suffixes.

    Hidden files and folders are left out, and so is what is neither a file nor a link to one; links to folders are not
    followed. The order is that of the inputs; of a folder first its files by name, then the folders in it. An input
    that is not there, and a folder that is not to be searched or cannot be, is a source with a flaw. Raises
    LatentzipError where there is no source at all.
    """
    sources: list[Source] = []
    for path in inputs:
        mode, flaw = (0, "") if path == STREAM else _look_at(path)
        if stat.S_ISDIR(mode) and recursive:
            sources += _walk(path, suffixes)
        else:
            if stat.S_ISDIR(mode):
                flaw = "is a folder: -r takes the files in it"
            sources.append(Source(path, Path(path.name), flaw))
    if not sources:
        raise LatentzipError(f"{inputs[0]}: holds no file with a suffix that is known: name the files themselves")
    return sources


def _walk(top: Path, suffixes: Collection[str]) -> Iterator[Source]:
    closed: list[Source] = []

    def pass_over(error: OSError) -> None:
        closed.append(Source(Path(error.filename), Path(), _cannot_be_read(error)))

    for folder, names_below, names in os.walk(top, onerror=pass_over):
        yield from closed
        closed.clear()
        names_below[:] = sorted(name for name in names_below if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                mode, flaw = _look_at(path)
                if stat.S_ISREG(mode) or flaw:  # a broken link is to be reported
                    yield Source(path, path.relative_to(top), flaw)
    yield from closed


def _look_at(path: Path) -> tuple[int, str]:
    """What kind of file it is, as `os.stat` says it, or why that cannot be told."""
    try:
        return path.stat().st_mode, ""
    except FileNotFoundError:
        return 0, "no such file"
    except OSError as error:
        return 0, _cannot_be_read(error)


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def plan_readings(sources: list[Source]) -> Plan:
    """To read each source and write nothing."""
    return Plan([Job(source.path) for source in sources if not source.flaw], failed=_flawed(sources))


def _flawed(sources: list[Source]) -> list[tuple[Path, str]]:
    return [(source.path, f"{source.path}: {source.flaw}") for source in sources if source.flaw]


def plan_outputs(
    sources: list[Source],
    output: Path | None,
    suffix: str,
    *,
    into_folder: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> Plan:
    """Name each source's output. Raises OutputError, with all that is wrong, where two collide or one is in the way.

    Without `output` each lands beside its source with another suffix. `output` is a folder in which the tree is
    mirrored, if there is one or `into_folder` says so, in which case folders are made; or a file for one source.
    Sources that would share an output (`a.jpg`, `a.png`) all keep their suffix in its name (`a.jpg.lz`, `a.png.lz`).
    """
    if into_folder and output is not None and os.path.lexists(output) and not os.path.isdir(output):
        raise OutputError(f"{output}: not a folder, which is wanted: choose another -o")
    into_folder = into_folder or (output is not None and output != STREAM and os.path.isdir(output))
    if len(sources) > 1 and output is not None and not into_folder:
        raise OutputError(
            f"{output}: not a folder, and there are {len(sources)} inputs: give -o {output}{os.sep}, or one input"
        )
    sources = _without_repeats(sources)
    jobs = _name([source for source in sources if not source.flaw], output, suffix, into_folder)
    failed = _flawed(sources)
    todo: list[Job] = []
    skipped: list[Path] = []
    for job in jobs:
        if skip_existing and os.path.isfile(job.target) and not os.path.islink(job.target):
            skipped.append(job.source)
        elif flaw := flaw_of_name(job.target):
            failed.append((job.source, f"{job.source}: its output {flaw}"))
        else:
            todo.append(job)
    complaints = _collisions(jobs, todo)
    for job in todo:
        try:
            if not job.becomes_itself:
                check_output(job.target, overwrite=overwrite, make_folders=into_folder)
        except OutputError as error:
            complaints.append(str(error))
    if complaints:
        more = len(complaints) - MOST_COMPLAINTS
        raise OutputError(*complaints[:MOST_COMPLAINTS], *([f"... and {more} more like these"] if more > 0 else []))
    return Plan(todo, skipped, failed)


def _without_repeats(sources: list[Source]) -> list[Source]:
    """Each file once, where it was named and lies in a folder that was named too."""
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault("-" if source.path == STREAM else os.path.abspath(source.path), source)
    return list(unique.values())


def _name(sources: list[Source], output: Path | None, suffix: str, into_folder: bool) -> list[Job]:
    """Each source's output, by the names of all of them alone: the same whatever is there already."""

    def target_of(source: Source, keeps_suffix: bool) -> Path:
        if output is not None and not into_folder:
            return output
        if source.path == STREAM:
            if output is not None:
                raise OutputError("standard input has no name for a file in a folder: give -o FILE")
            return STREAM
        return _renamed(source.path if output is None else output / source.below, suffix, keeps_suffix)

    # what has an output's suffix is hardly an input, and takes no other's name
    odd = {number for number, source in enumerate(sources) if source.path.suffix.lower() == suffix}
    long = odd
    while True:  # a name that has grown may be another's
        targets = [target_of(source, number in long) for number, source in enumerate(sources)]
        sharing = {number for group in _sharing(targets) for number in group}
        if sharing <= long:
            break
        long = long | sharing
    jobs = []
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        name = target_of(source, False).name
        remark = f"named with its suffix, as another input would become {name} too"
        jobs.append(Job(source.path, target, (remark,) if number in long - odd and target.name != name else ()))
    return jobs


def _renamed(path: Path, suffix: str, keeps_suffix: bool) -> Path:
    """`a.png` -> `a.lz` or, as it keeps its suffix, `a.png.lz`, of which without `a.png` comes again."""
    stem = path.with_suffix("")
    if not keeps_suffix and stem.suffix.lower() == suffix.lower():
        return stem
    return path.with_name(path.name + suffix) if keeps_suffix else path.with_suffix(suffix)


def _sharing(targets: list[Path]) -> list[list[int]]:
    """The numbers of those that would be one file, in groups of two or more."""
    real = cache(os.path.realpath)
    is_one = cache(ignores_case)
    names = {
        number: unicodedata.normalize("NFC", str(Path(real(target.parent), target.name)))
        for number, target in enumerate(targets)
        if target != STREAM
    }
    groups = []
    for alike in _groups(names, lambda number: names[number].casefold()):
        equal = _groups(alike, names.__getitem__)
        if equal != [alike] and is_one(targets[alike[0]].parent):
            groups.append(alike)
        else:
            groups += equal
    return groups


def _groups(numbers: Iterable[int], key: Callable[[int], str]) -> list[list[int]]:
    """Those of equal keys, where there are two or more."""
    found: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        found[key(number)].append(number)
    return [group for group in found.values() if len(group) > 1]


def _collisions(jobs: list[Job], todo: list[Job]) -> list[str]:
    """What is wrong where two sources would become one file, or one source another."""
    complaints = []
    sources = {_identity(job.source): job.source for job in jobs}
    for job in todo:
        taken = sources.get(_identity(job.target)) if os.path.isfile(job.target) else None
        if taken is not None and not job.becomes_itself:
            complaints.append(
                f"{job.target}: is one of the inputs, and {job.source} would become it: choose another -o"
            )
    for first, *others in _sharing([job.target for job in jobs]):
        complaints += [
            f"{jobs[first].target}: both {jobs[first].source} and {jobs[other].source} would become it: take them apart"
            for other in others
        ]
    return complaints


def _identity(path: Path) -> tuple[int, int] | Path:
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino
