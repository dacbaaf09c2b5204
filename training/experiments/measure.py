"""Measurements of calls: their time, and the memory of the process; used by the stages that report costs."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from training.engine.records import Row


def seconds(function: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratios(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int, columns: tuple[str, str, str]
) -> Row:
    """Times two calls in turn, theirs first; returns median, least and greatest of ours over theirs as columns."""
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(repeats)]
    found = torch.tensor([ours / theirs for theirs, ours in pairs])
    return {
        name: round(value.item(), 2)
        for name, value in zip(columns, (found.median(), found.min(), found.max()), strict=True)
    }


def extra_memory(function: Callable[[], object]) -> int:
    """Returns by how many bytes the process's resident memory grows at its peak during a call.

    Raises:
        OSError: There is no such file, as on all systems but Linux.
    """
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        raise OSError(f"there is no {peak}, by which memory is measured; run this on Linux")
    peak.write_text("5")  # resets the peak, VmHWM, to what is resident now
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024


def in_fresh_process(measure: Callable[..., Row], *arguments: object) -> Row:
    """Calls a function in a process of its own, prints the row that it returns, and returns it."""
    with torch.multiprocessing.get_context("spawn").Pool(1) as fresh:
        row: Row = fresh.apply(measure, arguments)
    print(f"  {row}")
    return row
