"""A signal ends a command with one line and the exit status that shells expect."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from dwp_init.interrupts import Terminated, hold_signals, run_command

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


@pytest.mark.parametrize(("number", "status", "what"), SIGNALS)
@pytest.mark.parametrize("raises", [True, False])
def test_a_signal_that_a_library_turns_into_an_error_is_still_one(
    number: int, status: int, what: str, raises: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            if raises:
                raise TypeError("could not determine the shape") from error
        return 1

    assert run_command(run) == status
    assert capsys.readouterr().err == f"{what}\n"
    with pytest.raises(TypeError, match="of another kind"):
        run_command(_raise)


def _raise() -> int:
    raise TypeError("of another kind")


def test_a_signal_that_ends_nothing_is_none() -> None:
    def run() -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert run_command(run) == 0 and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("status", [0, 1])
def test_a_signal_after_the_end_of_the_command(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, before = signal.signal, signal.getsignal(signal.SIGTERM)

    def set_handler(number: int, handler: object) -> object:
        if number == signal.SIGTERM and handler is before:  # as it is put back
            signal.raise_signal(number)
        return real(number, handler)

    monkeypatch.setattr(signal, "signal", set_handler)
    assert run_command(lambda: status) == (143 if status else 0)
    assert capsys.readouterr().err == ("terminated\n" if status else "")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status", "what"), SIGNALS)
def test_signals_that_are_held_act_and_are_handled_at_the_end(
    number: int, status: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[int] = []

    def run() -> int:
        with hold_signals(found.append):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(number)
            found.append(0)
        return 0

    assert run_command(run) == status and found == [1, 2, 0]
    assert capsys.readouterr().err == f"{what}\n"
    with hold_signals(found.append):
        assert len(found) == 3


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command(lambda: signal.raise_signal(signal.SIGINT) or 0) == 0
    finally:
        signal.signal(signal.SIGINT, before)


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
        try:
            end = time.monotonic() + 120
            while not list(tmp_path.glob("sources/*.checkpoint")) and time.monotonic() < end:
                assert process.poll() is None
                time.sleep(0.2)
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status, error
    assert error.endswith(f"{what}; run the same command again to resume\n") and "Traceback" not in error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_whose_errors_are_ignored(number: int, status: int) -> None:
    hook = sys.unraisablehook

    def run() -> int:
        thing = threading.Event()
        reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
        del thing
        time.sleep(60)  # one wait, which the signal has to end
        return 0 if reference() is None else 1

    start = time.monotonic()
    assert run_command(run) == status and sys.unraisablehook is hook
    assert time.monotonic() - start < 30


def test_signals_that_are_repeated_as_the_command_ends_do_no_harm() -> None:
    program = """
import signal, threading, time, weakref
from dwp_init.interrupts import run_command

def run(pause):
    for _ in range(2):
        thing = threading.Event()
        reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
    time.sleep(pause)
    return 0

found = [run_command(lambda: run(0.008 + 0.0001 * place)) for place in range(40)]
time.sleep(0.1)
print(*sorted(set(found)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0 and set(ended.stdout.split()) <= {"0", "143"}, ended


def test_other_ignored_errors_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    def run() -> int:
        thing = threading.Event()
        reference = weakref.ref(thing, lambda _: 1 // 0)
        del thing
        return 0 if reference() is None else 1

    assert run_command(run) == 0 and told == [ZeroDivisionError]
