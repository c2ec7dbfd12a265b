"""Measurements in several processes, each with one thread."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

import torch

from latentzip.bench.metrics import Choice
from latentzip.bench.worker import Job, Outcome, Worker
from latentzip.errors import BenchError, LatentzipError

Keep = Callable[[Job, Outcome | LatentzipError], None]


class Pool:
    """So many processes, which start when they are first needed; with one it is this process that works."""

    def __init__(self, choice: Choice, processes: int) -> None:
        self._choice, self._processes = choice, processes
        self._here: Worker | None = None
        self._pool: ProcessPoolExecutor | None = None

    def run(self, jobs: Sequence[Job], keep: Keep) -> None:
        """Do all jobs, and hand each with what came of it to `keep`, also what was done when an interrupt came.

        Raises BenchError where a process ended abruptly.
        """
        if self._processes == 1:
            self._here = self._here or Worker(self._choice)
            for job in jobs:
                keep(job, _attempt(partial(self._here.work, job)))
            return
        if self._pool is None:
            context = get_context("spawn")  # torch's threads do not survive a fork
            self._pool = ProcessPoolExecutor(self._processes, context, _start, (self._choice,))
        futures = {self._pool.submit(_work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                keep(futures.pop(future), _attempt(future.result))
        except BrokenProcessPool:
            raise BenchError(
                "a process of the pool ended abruptly, probably for want of memory: go on with --jobs 1"
            ) from None
        finally:
            _keep_done(futures, keep)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _keep_done(futures: dict[Future[Outcome], Job], keep: Keep) -> None:
    for future, job in futures.items():
        if not future.cancel() and future.done() and future.exception() is None:
            keep(job, future.result())


def _attempt(result: Callable[[], Outcome]) -> Outcome | LatentzipError:
    try:
        return result()
    except LatentzipError as error:
        return error
    except MemoryError:
        return BenchError("does not fit into memory: go on with --jobs 1, or with a smaller picture")


_worker: Worker


def _start(choice: Choice) -> None:
    """In each process, once."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process is interrupted, and ends the pool
    torch.set_num_threads(1)
    _worker = Worker(choice)


def _work(job: Job) -> Outcome:
    return _worker.work(job)
