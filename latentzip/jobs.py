"""Which file becomes which. Whatever would go wrong with names is found before the first file is touched."""

import os
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM, check_output, ignores_case

LZ_SUFFIXES = frozenset({".lz"})
MOST_COMPLAINTS = 20


@dataclass(frozen=True)
class Source:
    """An input file, and its path below the folder that was given: the name alone of a file that was given itself."""

    path: Path
    below: Path


@dataclass(frozen=True)
class Job:
    """A file, and what it becomes."""

    source: Path
    target: Path = STREAM


@dataclass(frozen=True)
class Plan:
    """What is to be done, and the sources whose outputs are there already."""

    jobs: list[Job]
    skipped: list[Path] = field(default_factory=list)


def find_sources(inputs: list[Path], suffixes: Collection[str], *, recursive: bool) -> list[Source]:
    """The files given, and with `recursive` those in the folders given, by their suffixes. Raises LatentzipError.

    Hidden files and folders are left out, and so is what is neither a file nor a link to one; links to folders are not
    followed. The order is that of the inputs; of a folder first its files by name, then the folders in it.
    """
    sources = []
    for path in inputs:
        if path == STREAM or not path.is_dir():
            sources.append(Source(path, Path(path.name)))
        elif recursive:
            sources += [Source(file, file.relative_to(path)) for file in _walk(path, suffixes)]
        else:
            raise LatentzipError(f"{path}: is a folder: -r takes the files in it")
    if not sources:
        raise LatentzipError(f"{inputs[0]}: holds no file with a suffix that is known: name the files themselves")
    return sources


def _walk(top: Path, suffixes: Collection[str]) -> Iterator[Path]:
    # a folder that cannot be read is given out as if it were a file: the attempt to read it will say why
    unreadable: list[Path] = []
    for folder, names_below, names in os.walk(top, onerror=lambda error: unreadable.append(Path(error.filename))):
        yield from unreadable
        unreadable.clear()
        names_below[:] = sorted(name for name in names_below if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            is_wanted = path.suffix.lower() in suffixes and not name.startswith(".")
            if is_wanted and (os.path.isfile(path) or not os.path.exists(path)):  # a broken link is to be reported
                yield path
    yield from unreadable


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
    """
    if into_folder and output is not None and output.exists() and not output.is_dir():
        raise OutputError(f"{output}: not a folder, which -r needs: choose another -o")
    into_folder = into_folder or (output is not None and output != STREAM and output.is_dir())
    if len(sources) > 1 and output is not None and not into_folder:
        raise OutputError(f"{output}: not a folder, and there are {len(sources)} inputs: create it, or give one input")
    jobs = [Job(s.path, _target(s, output, suffix, into_folder)) for s in _without_repeats(sources)]
    complaints = _collisions(jobs)
    todo: list[Job] = []
    skipped: list[Path] = []
    for job in jobs:
        if skip_existing and job.target.is_file() and not job.target.is_symlink():
            skipped.append(job.source)
            continue
        todo.append(job)
        try:
            check_output(job.target, overwrite=overwrite, make_folders=into_folder)
        except OutputError as error:
            complaints.append(str(error))
    if complaints:
        more = len(complaints) - MOST_COMPLAINTS
        raise OutputError(*complaints[:MOST_COMPLAINTS], *([f"... and {more} more like these"] if more > 0 else []))
    return Plan(todo, skipped)


def _without_repeats(sources: list[Source]) -> list[Source]:
    """Each file once, where it was named and lies in a folder that was named too."""
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault("-" if source.path == STREAM else os.path.abspath(source.path), source)
    return list(unique.values())


def _target(source: Source, output: Path | None, suffix: str, into_folder: bool) -> Path:
    if output is not None and not into_folder:
        return output
    if source.path == STREAM:
        if output is not None:
            raise OutputError("standard input has no name for a file in a folder: give -o FILE")
        return STREAM
    return source.path.with_suffix(suffix) if output is None else output / source.below.with_suffix(suffix)


def _collisions(jobs: list[Job]) -> list[str]:
    """What is wrong where two sources would become one file, or one source another."""
    complaints = []
    sources = {_identity(job.source): job.source for job in jobs}
    seen: dict[str, tuple[Job, str]] = {}
    folders: dict[Path, str] = {}
    for job in jobs:
        target = job.target
        if target == STREAM:
            continue
        if target.parent not in folders:
            folders[target.parent] = os.path.realpath(target.parent)
        taken = sources.get(_identity(target)) if target.is_file() else None
        if taken is not None:
            what = "the input itself" if taken == job.source else f"one of the inputs, and {job.source} would become it"
            complaints.append(f"{target}: is {what}: choose another -o")
        name = unicodedata.normalize("NFC", str(Path(folders[target.parent], target.name)))
        other, others_name = seen.setdefault(name.casefold(), (job, name))
        if other is not job and (others_name == name or ignores_case(target.parent)):
            complaints.append(f"{target}: both {other.source} and {job.source} would become it: take them apart")
    return complaints


def _identity(path: Path) -> tuple[int, int] | Path:
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino
