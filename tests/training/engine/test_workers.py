import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.test_interrupts import SIGNALS
from training.engine.workers import Processes

NO_SIGKILL = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
ROOT = Path(__file__).parents[3]


class Slow(int):
    """A report that a thread in the background would send too late."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        time.sleep(0.2)
        return int, (int(self),)


def burst(item: int, progress: Callable[[int], object]) -> tuple[int, int]:
    for _ in range(2000):
        progress(1)
    progress(Slow(item))
    return item**2, torch.get_num_threads()


def fail(item: Path | None, progress: Callable[[int], object]) -> None:
    if item is None:
        raise ValueError("no item")
    for _ in range(2000):
        time.sleep(0.01)
        progress(1)
    item.touch()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_progress_are_complete(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if workers == 2:
        monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    reports: list[int] = []
    found = list(Processes(workers).run_jobs(burst, [1, 10, 100, 1000, 10_000], reports.append))
    threads = 3 if workers == 2 else torch.get_num_threads()
    assert sorted(found) == [(10 ** (2 * power), threads) for power in range(5)]
    assert sum(reports) == 5 * 2000 + 11_111


def be_killed(first: bool, progress: Callable[[int], object]) -> None:
    """Dies as it reports, without a word, or reports until it is stopped."""
    with pytest.MonkeyPatch.context() as patch:
        if first:
            patch.setattr("multiprocessing.queues.SimpleQueue.put", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        while True:
            progress(1)
            time.sleep(0.01)


@NO_SIGKILL
def test_a_killed_worker_ends_the_run_with_a_way_on() -> None:
    with pytest.raises(ChildProcessError, match=r"was killed, .*the same command again to resume, with fewer than 2"):
        list(Processes(2).run_jobs(be_killed, [True, False], lambda *_: None))


def kill_last_process(folder: Path, progress: Callable[[int], object]) -> None:
    """Of two processes the one that was started last is killed, and the other reports until it is stopped."""
    (folder / str(os.getpid())).touch()
    numbers = _await(lambda: [*map(int, os.listdir(folder))], 2)
    while True:
        progress(1)
        time.sleep(0.01)
        if os.getpid() == max(numbers):
            os.kill(os.getpid(), signal.SIGKILL)


@NO_SIGKILL
@pytest.mark.timeout(120)
def test_the_end_of_the_process_that_was_started_last_is_seen(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="was killed"):
        list(Processes(2).run_jobs(kill_last_process, [tmp_path] * 2, lambda *_: None))


def end_last(item: tuple[Path, int, bool], progress: object) -> int:
    """The last job waits until all others are finished, and fails or is killed."""
    folder, place, killed = item
    if place == 5:
        _await(lambda: [*map(int, os.listdir(folder))], 5)
        (folder / "5").touch()
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("no item")
    (folder / str(place)).touch()
    return place


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=NO_SIGKILL)])
def test_what_is_finished_as_another_job_fails_is_kept(tmp_path: Path, killed: bool) -> None:
    found = []
    with pytest.raises(ChildProcessError if killed else ValueError):
        for result in Processes(2).run_jobs(end_last, [(tmp_path, place, killed) for place in range(6)], print):
            found.append(result)
            _await(lambda: [*map(int, os.listdir(tmp_path))], 6)
            time.sleep(1)  # until all of them have arrived
    assert sorted(found) == [0, 1, 2, 3, 4]


def finish_late(item: tuple[Path, bool], progress: object) -> int:
    """The first job fails once the other has begun, which reports nothing."""
    begun, first = item
    if first:
        _await(lambda: [1] * begun.exists(), 1)
        raise ValueError("no item")
    begun.touch()
    time.sleep(2)
    return 3


def test_what_is_finished_after_another_job_failed_is_kept(tmp_path: Path) -> None:
    found = []
    with pytest.raises(ValueError, match="no item"):
        for result in Processes(2).run_jobs(
            finish_late, [(tmp_path / "begun", first) for first in (True, False)], print
        ):
            found.append(result)
    assert found == [3]


class Unreadable:
    """A job that no other process can read."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("no number",)

    def __call__(self, item: int, progress: object) -> None: ...


def test_a_worker_that_cannot_start_is_not_only_called_killed() -> None:
    with pytest.raises(ChildProcessError, match=r"could not start, or not read its job, .* if __name__ == '__main__'"):
        list(Processes(2).run_jobs(Unreadable(), [1, 2], print))


def new_pages(item: int, progress: object) -> int:
    """Fills 64 MB again and again; returns how many pages the system gave the last five times."""
    resource = pytest.importorskip("resource")
    found = []
    for _ in range(12):
        torch.ones(2**24)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return int(found[-1] - found[-6])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_workers_keep_what_they_free() -> None:
    assert max(Processes(2).run_jobs(new_pages, [1, 2], lambda *_: None)) < 100


def test_there_is_a_worker() -> None:
    with pytest.raises(ValueError, match="workers must be 1 or more; got 0"):
        list(Processes(0).run_jobs(burst, [1], lambda _: None))


def test_no_more_workers_than_items() -> None:
    assert list(Processes(2).run_jobs(burst, [], lambda _: None)) == []
    assert list(Processes(2).run_jobs(burst, [3], lambda _: None)) == [(9, torch.get_num_threads())]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_and_the_other_jobs_stop(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="no item"):
        list(Processes(workers).run_jobs(fail, [None, tmp_path / "finished"], lambda _: None))
    assert not (tmp_path / "finished").exists() and not multiprocessing.active_children()


def _sleep(seconds: int, progress: object) -> None:
    time.sleep(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from training.engine.workers import Processes\nfrom tests.training.engine.test_workers import _sleep\n"
        "if __name__ == '__main__':\n    list(Processes(2).run_jobs(_sleep, [60, 60], print))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        children = _await(lambda: [c for c in _children(parent.pid) if "spawn_main" in _command(c)], 2)
        time.sleep(3)  # past the workers' imports
    finally:
        parent.kill()
        parent.wait()
    _await(lambda: [0] * (2 - sum("spawn_main" in _command(child) for child in children)), 2)


def begin_and_sleep(begun: Path, progress: object) -> None:
    begun.touch()
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "status", "what"), SIGNALS)
def test_a_second_signal_ends_jobs_that_report_nothing(number: int, status: int, what: str, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom dwp_init.interrupts import run_command\n"
        "from tests.training.engine.test_workers import Processes, begin_and_sleep\n"
        "jobs = [Path(sys.argv[1]) / name for name in 'ab']\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(run_command(lambda: len(list(Processes(2).run_jobs(begin_and_sleep, jobs, print)))))\n"
    )
    command, env = [sys.executable, str(script), str(tmp_path)], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            _await(lambda: [1] * (tmp_path / "a").exists() + [2] * (tmp_path / "b").exists(), 2)
            children = _children(process.pid)
            process.send_signal(number)
            assert process.stderr and "a second signal ends them at once" in process.stderr.readline()
            process.send_signal(number)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status and error == f"{what}\n" and not any(map(_command, children))


def _await(find: Callable[[], list[int]], count: int) -> list[int]:
    for _ in range(300):
        if len(found := find()) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {count}; there are {found}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_text() if path.exists() else ""
