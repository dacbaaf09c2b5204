"""Engines, on which independent jobs run and report their progress; the default ones are processes of this machine."""

import concurrent.futures
import concurrent.futures.process
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from tqdm import tqdm

from dwp_init.interrupts import hold_signals

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Progress = Callable[..., Any]  # called with an amount and, by some jobs, a note
Job = Callable[[_Item, Progress], _Result]


class Engine(Protocol):
    """Runs independent jobs somewhere. Stages ask for nothing else, so that none depends on where it runs."""

    def run_jobs(self, job: Job[_Item, _Result], items: Sequence[_Item], progress: Progress) -> Iterator[_Result]:
        """Runs ``job(item, progress)`` for every item and yields the results as they are completed.

        If a job fails, its error is raised and the others are stopped.

        Args:
            job: Picklable, as are the items; what it holds, such as images, is shared and must not be changed.
            items: The items.
            progress: Called in this process with what the jobs report.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Returns what ``done.json`` says of the engine."""
        ...


@dataclass(frozen=True)
class Processes:
    """The engine that runs jobs in processes of this machine, or in this process alone.

    When a job fails, or a signal arrives, the jobs end at their next reports; what others have finished by then is
    yielded before the error is raised. A second signal kills the processes.

    Args:
        workers: Number of processes, each with an equal share of the threads of torch; 1 runs everything in this
            process, where nothing has to be picklable.

    Raises:
        ValueError: ``workers`` is below 1.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be 1 or more; got {self.workers}")

    def describe(self) -> dict[str, Any]:
        return {"workers": self.workers}

    def run_jobs(self, job: Job[_Item, _Result], items: Sequence[_Item], progress: Progress) -> Iterator[_Result]:
        if self.workers == 1 or len(items) <= 1:
            for item in items:
                yield job(item, progress)
            return
        processes = torch.multiprocessing.get_context("spawn")
        reports = processes.SimpleQueue()  # a report is in the pipe before its job returns
        stop = processes.RawValue("b", 0)  # without a lock, which a killed worker would keep
        workers = min(self.workers, len(items), _MOST)
        threads = max(torch.get_num_threads() // workers, 1)
        pool = concurrent.futures.ProcessPoolExecutor(workers, processes, _start, (job, reports, stop, threads))
        failure: BaseException | None = None
        with hold_signals(_ending(stop)):
            try:
                with _without_interrupts():
                    pending = {pool.submit(_run, item) for item in items}
                    pool.submit(int)  # from a submission on, the pool watches processes that were started before it
                while pending:  # after a failure, or a signal, until all have ended, because some may be finished
                    done, pending = concurrent.futures.wait(pending, 0.5, concurrent.futures.FIRST_COMPLETED)
                    _drain(reports, progress)
                    for future in done:
                        if error := future.exception():
                            failure = failure or error
                            stop.value = 1
                        else:
                            yield future.result()
                if failure:
                    raise failure
            except concurrent.futures.process.BrokenProcessPool as error:
                raise ChildProcessError(_LOST.format(workers=workers)) from error
            finally:
                stop.value = 1
                _drain(reports, lambda *_: None)
                pool.shutdown(cancel_futures=True)


ONE_PROCESS = Processes()
_MOST = 61 if sys.platform == "win32" else sys.maxsize  # the most that ProcessPoolExecutor takes
_LOST = (
    "a process that runs jobs ended too early. Either it was killed, as happens when memory runs out; what is finished "
    "is kept: run the same command again to resume, with fewer than {workers} workers if memory is short. Or it could "
    "not start, or not read its job, and its own error is printed above: a job must be importable, and a script that "
    "runs jobs must do so below if __name__ == '__main__'"
)


def _ending(stop: Any) -> Callable[[int], None]:
    """Returns what signals do to the workers started from now on: the first stops their jobs, a second kills them."""
    others = set(multiprocessing.active_children())

    def act(signals: int) -> None:
        stop.value = 1
        if signals > 1:  # files are written in full or not at all
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            return
        with suppress(Exception):  # standard error may be closed, or in the middle of a write
            tqdm.write(
                "stopping the jobs under way at their next reports; a second signal ends them at once", sys.stderr
            )

    return act


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Lets processes that start here ignore Ctrl-C, which reaches them too: the one that started them stops them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _StoppedError(Exception):
    """Ends a job whose result is no longer needed."""


_state: tuple[Job[Any, Any], Any, Any]  # of a worker, set by _start


def _start(job: Job[Any, Any], reports: Any, stop: Any, threads: int) -> None:
    global _state
    if sys.platform == "win32":  # elsewhere it is ignored from the start, see _without_interrupts
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_worker(threads)
    _state = (job, reports, stop)


def set_up_worker(threads: int) -> None:
    """Prepares a process that runs jobs, of any engine, with this number of threads."""
    _keep_memory()
    torch.set_num_threads(threads)


def _keep_memory() -> None:
    """Lets glibc keep what is freed: getting it again takes longer than evaluating a small network."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option:
        set_option(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        set_option(-4, 0)  # M_MMAP_MAX


def _end_with_parent() -> None:
    """Ends this process when its parent was killed, so that orphaned workers stop."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _run(item: Any) -> Any:
    job, reports, stop = _state

    def report(*words: Any) -> None:
        _check_needed(stop)
        reports.put(words)

    _check_needed(stop)
    return job(item, report)


def _check_needed(stop: Any) -> None:
    if stop.value:
        raise _StoppedError


def _drain(reports: Any, progress: Progress) -> None:
    while not reports.empty():
        progress(*reports.get())
