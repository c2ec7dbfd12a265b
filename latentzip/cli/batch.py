"""Several files, by one worker or more: a bad one is reported and passed over, an interrupt leaves whole files."""

import contextlib
import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import typer

from latentzip.cli.console import ExitCode, Record, Totals, complain, emit, inform
from latentzip.cli.progress import FilesDisplay
from latentzip.errors import LatentzipError, OutputError
from latentzip.files import STREAM, make_folder_of, write_bytes
from latentzip.jobs import Job, Plan
from latentzip.locks import remove_leftovers


@dataclass(frozen=True)
class Outcome:
    """What came of a file: a record for --json, for people a message or the text they asked for, and what to write."""

    record: Record
    line: str = ""
    text: str = ""
    data: bytes | None = None


class Batch:
    """Work on files, and an account of it. Those that the plan says cannot be done are reported at once."""

    def __init__(
        self, verb: str, plan: Plan, *, as_json: bool, quiet: bool, overwrite: bool = False, workers: int = 1
    ) -> None:
        self.verb, self.plan, self.as_json, self.quiet, self.overwrite = verb, plan, as_json, quiet, overwrite
        self.workers = min(workers, len(plan.jobs))
        self.display = FilesDisplay(
            verb.capitalize(), len(plan.jobs) + len(plan.failed), show=not quiet and not as_json and sys.stderr.isatty()
        )
        self._todo = deque(enumerate(plan.jobs))
        self._records: dict[int, Record] = {}
        self._errors: dict[int, Record] = {}
        self._totals = Totals()
        self._crash: BaseException | None = None
        self._keeping = threading.Lock()  # held while a file is written and entered in the account
        for number, (path, message) in enumerate(plan.failed, -len(plan.failed)):  # before all others
            self._enter_failure(number, path, message)

    def run(self, work: Callable[[Job], Outcome]) -> None:
        """Call `work` for each file and write what comes of it, then give the account. Exits if anything failed.

        Workers are threads, so that they share a model. This one only waits: an interrupt is seen at once, however
        long a network takes.
        """
        for folder in {job.target.parent for job in self.plan.jobs if job.target != STREAM}:
            remove_leftovers(folder)
        threads = [threading.Thread(target=self._work_off, args=(work,), daemon=True) for _ in range(self.workers)]
        try:
            with self.display:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.2)  # Windows does not see an interrupt while it waits
            if self._crash is not None:
                raise self._crash
        except KeyboardInterrupt:
            self._end_early(threads)
        self.end()

    def end(self) -> None:
        """Give the account. Exits if anything failed."""
        self._account()
        if self._errors:
            raise typer.Exit(ExitCode.FAILED)

    def _end_early(self, threads: list[threading.Thread]) -> NoReturn:
        try:
            self._todo.clear()
            self._keeping.acquire()  # for good: what is being written is finished, and nothing more begins
            self._account()
            complain(f"interrupted: {len(self._records)} of {self._total} files were {self.verb}")
        finally:
            if any(
                thread.is_alive() for thread in threads
            ):  # they may be deep in a network, and cannot be asked to stop
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError):
                        stream.flush()
                os._exit(ExitCode.INTERRUPTED)
        raise typer.Exit(ExitCode.INTERRUPTED)

    @property
    def _total(self) -> int:
        return len(self.plan.jobs) + len(self.plan.failed)

    def _account(self) -> None:
        """Print the JSON document or, of several files, the failures and a summary."""
        records, errors = ([found[number] for number in sorted(found)] for found in (self._records, self._errors))
        skipped = [str(path) for path in self.plan.skipped]
        if self.as_json:
            emit(json.dumps({"files": records, "errors": errors, "skipped": skipped}, indent=2))
            return
        if self._total + len(skipped) < 2:
            return
        if errors:
            complain(f"{len(errors)} of {self._total} files could not be {self.verb}:")
            for record in errors:
                complain(f"  {record['input']}")
        if not self.quiet:
            counts = [(len(records), self.verb), (len(skipped), "there already"), (len(errors), "failed")]
            parts = [f"{count} {what}" for count, what in counts if count or what == self.verb]
            inform(f"{', '.join(parts)}: {self._totals}" if records else ", ".join(parts))

    def _work_off(self, work: Callable[[Job], Outcome]) -> None:
        while self._todo:
            try:
                number, job = self._todo.popleft()
            except IndexError:  # another worker was quicker
                return
            try:
                self._keep(number, job, self._result(work, job))
            except OSError as error:  # of standard output
                self._give_up(error)
            except Exception as error:
                self._report(number, job, error)
            except BaseException as error:
                self._give_up(error)

    def _result(self, work: Callable[[Job], Outcome], job: Job) -> Outcome:
        try:
            return work(job)
        except OSError as error:  # of this file, whatever it is: `work` writes nothing
            what = f"{error.filename}: " if error.filename else ""
            raise LatentzipError(f"{what}{error.strerror or error}") from None

    def _keep(self, number: int, job: Job, outcome: Outcome) -> None:
        """Raises OSError where standard output takes no more, and LatentzipError for what concerns this file."""
        with self._keeping:
            if outcome.data is not None:
                if job.becomes_itself:
                    raise OutputError(f"{job.target}: is the input itself: choose another -o")
                make_folder_of(job.target)
                write_bytes(job.target, outcome.data, overwrite=self.overwrite)
            if outcome.text and not self.as_json:
                emit(outcome.text)
            self._records[number] = outcome.record
            self._totals.add(outcome.record)
            if outcome.line and not self.quiet and not self.as_json:
                inform(outcome.line)
            self.display.file_done(self._totals)

    def _report(self, number: int, job: Job, error: Exception) -> None:
        message = _explained(error)
        if not message.startswith((f"{job.source}:", f"{job.target}:")):  # every message begins with its file, once
            message = f"{job.source}: {message}"
        with self._keeping:
            self._enter_failure(number, job.source, message)

    def _enter_failure(self, number: int, source: Path, message: str) -> None:
        self._errors[number] = {"input": str(source), "error": message}
        complain(message)
        self.display.file_done(self._totals)

    def _give_up(self, error: BaseException) -> None:
        self._crash = error
        self._todo.clear()


def _explained(error: Exception) -> str:
    if isinstance(error, LatentzipError):
        return str(error)
    # torch has a class of its own for GPUs alone
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
        return "there is not enough memory for it: smaller tiles need less, see --tile"
    return f"{type(error).__name__} ({error}), which latentzip did not expect: please report this"
