"""Forked processes and how they end."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.children import HANGS, fork, processor_time

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_how_a_process_ends() -> None:
    assert fork(lambda: 3).wait(60).status == 3
    said = fork(lambda: print("error: it is full\r\n", file=sys.stderr) or 1).wait(60)
    assert said.status == 1 and said.lines == ["error: it is full"] and said.is_clear_error
    failed = fork(lambda: int("x")).wait(60)
    assert failed.status == 70 and "ValueError" in failed.lines[-1] and not failed.is_clear_error


def test_a_process_is_killed_after_some_processor_time_from_when_it_is_ready(tmp_path: Path) -> None:
    def run() -> int:
        compute(0.2)
        (tmp_path / "ready").touch()
        time.sleep(0.5)
        compute(0.1)
        (tmp_path / "too early").touch()
        compute(30)
        return 0

    def compute(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    ended = fork(run).wait(120, signal.SIGKILL, 0.2, tmp_path / "ready")
    assert ended.status == -signal.SIGKILL and ended.seconds >= 0.9 and (tmp_path / "too early").exists()


def test_processor_time_is_that_of_a_family() -> None:
    def compute() -> int:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return 0

    def run() -> int:
        running = fork(lambda: compute() or time.sleep(60) or 0)
        found = [processor_time(os.getpid())]
        while processor_time(running.pid) < 0.2:
            time.sleep(0.01)
        found.append(processor_time(os.getpid()))
        assert fork(compute).wait(60).status == 0
        found.append(processor_time(os.getpid()))
        running.kill(signal.SIGKILL)
        first, with_child, with_ended = found
        return int(not (first < 0.2 <= with_child - first and 0.17 <= with_ended - with_child < 2))

    assert fork(run).wait(120).status == 0
    assert processor_time(2**22 + 1) == 0  # there is no process of that number


def test_a_process_that_hangs_is_ended() -> None:
    child = fork(lambda: time.sleep(60) or 0)
    assert child.wait(0.1).status == HANGS
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
