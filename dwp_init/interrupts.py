"""Signals that end a command: it cleans up, says so in one line, and has the exit status that shells expect."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

_ENDS: dict[int, tuple[str, int]] = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
_PAUSE = 0.01  # seconds until a signal that met a callback is repeated


class Terminated(BaseException):
    """SIGTERM arrived; like ``KeyboardInterrupt`` it is no error of the program."""


def run_command(run: Callable[[], int], way_on: str = "") -> int:
    """Runs a command, which may be ended by a signal.

    A library may turn the exception of a signal into another error, as ``torch.tensor`` does: a command that fails
    after a signal was ended by the signal. Python ignores what is raised in some callbacks, such as those of weak
    references: a signal that arrived there is repeated.

    Args:
        run: The command; it returns the exit status.
        way_on: What the line says after ``interrupted`` or ``terminated``.

    Returns:
        The exit status: that of the command, 130 after SIGINT, 143 after SIGTERM.
    """
    arrived: list[int] = []
    over, lock = list[bool](), threading.Lock()

    def end(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if over:  # the command has ended, and the handlers are being put back
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = _handlers(end)
    try:
        try:
            with _repeated(over, lock) if _may_set_handlers() else nullcontext():
                status = run()
        finally:
            with lock:
                over.append(True)
    except (KeyboardInterrupt, Terminated) as error:
        arrived.append(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
        status = 1
    except Exception:
        if not arrived:
            raise
        status = 1
    finally:
        over.append(True)
        for number, handler in before.items():
            signal.signal(number, handler)
    if not status or not arrived:
        return status
    what, status = _ENDS[arrived[-1]]
    print(f"{what}{way_on}", file=sys.stderr)
    return status


@contextmanager
def hold_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Holds back SIGINT and SIGTERM until the context has ended, when the last one that arrived is handled as before.

    What must not be left half done, such as the end of other processes, is safe in it. In threads other than the main
    one, where no signal is handled, it does nothing.

    Args:
        act: Called at each signal with the number of signals so far. It must raise nothing.
    """
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        act(len(arrived))

    before = _handlers(note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived[-1:]:
            signal.raise_signal(number)


@contextmanager
def _repeated(over: list[bool], lock: threading.Lock) -> Iterator[None]:
    """Repeats signals whose exceptions Python ignores, a little later, when the callback that they met is over.

    Args:
        over: Empty until the command has ended; nothing is repeated after that.
        lock: Held while something is added to it.
    """
    hook, main = sys.unraisablehook, threading.get_ident()

    def repeat(number: int) -> None:
        time.sleep(_PAUSE)
        with lock:
            if not over:
                _send(number, main)

    def ignored(unraisable: Any) -> None:
        kinds = {signal.SIGTERM: Terminated, signal.SIGINT: KeyboardInterrupt}
        numbers = [number for number, kind in kinds.items() if issubclass(unraisable.exc_type, kind)]
        if not numbers:
            hook(unraisable)
        for number in numbers:  # a thread of threading would need its locks, which what the callback met may hold
            _thread.start_new_thread(repeat, (number,))

    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _send(number: int, thread: int) -> None:
    """Sends a signal to a thread, which it wakes where the system can."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(thread, number)


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of both signals, of SIGINT unless it is ignored, where a thread may; returns those before."""
    before = {number: signal.getsignal(number) for number in _ENDS} if _may_set_handlers() else {}
    taken = {number: found for number, found in before.items() if number == signal.SIGTERM or found != signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    return {number: signal.SIG_DFL if found is None else found for number, found in taken.items()}
