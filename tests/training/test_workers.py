import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.workers import run_jobs


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


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_and_progress_are_complete(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    reports: list[int] = []
    found = list(run_jobs(burst, [1, 10, 100, 1000, 10_000], workers, reports.append))
    threads = 3 if workers == 2 else torch.get_num_threads()
    assert sorted(found) == [(10 ** (2 * power), threads) for power in range(5)]
    assert sum(reports) == 5 * 2000 + 11_111


def test_no_more_workers_than_items() -> None:
    assert list(run_jobs(burst, [], 2, lambda _: None)) == []
    assert list(run_jobs(burst, [3], 2, lambda _: None)) == [(9, torch.get_num_threads())]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_and_the_other_jobs_stop(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="no item"):
        list(run_jobs(fail, [None, tmp_path / "finished"], workers, lambda _: None))
    assert not (tmp_path / "finished").exists() and not multiprocessing.active_children()
