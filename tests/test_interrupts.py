"""A signal ends a command with one line and the exit status that shells expect."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dwp_init.interrupts import Terminated, run_command

SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("number", "status", "what"), SIGNALS)
def test_a_signal_cleans_up_and_says_so(
    number: int, status: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def run() -> int:
        try:
            signal.raise_signal(number)
            return 0
        finally:
            cleaned.append(True)

    assert run_command(run, "; go on") == status and cleaned == [True]
    assert capsys.readouterr().err == f"{what}; go on\n" and signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_the_status_is_that_of_the_command() -> None:
    assert run_command(lambda: 3) == 3
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(run_command(lambda: 4)))  # may not set handlers
    thread.start()
    thread.join()
    assert found == [4] and not issubclass(Terminated, Exception)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(("number", "status", "what"), SIGNALS)
def test_a_run_with_workers_ends_without_tracebacks(number: int, status: int, what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "run", "prior_notmnist_5x5", "--smoke", "--workers", "2"]
    command += ["--out", str(tmp_path), "sources.epochs=100000"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, **options) as process:
        end = time.monotonic() + 120
        while not list(tmp_path.glob("sources/*.checkpoint")) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert error.endswith(f"{what}; run the same command again to resume\n") and "Traceback" not in error
