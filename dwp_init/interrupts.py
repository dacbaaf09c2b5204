"""Signals that end a command: it cleans up, says so in one line, and has the exit status that shells expect."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived; like ``KeyboardInterrupt`` it is no error of the program."""


def run_command(run: Callable[[], int], way_on: str = "") -> int:
    """Runs a command, which may be ended by a signal.

    Args:
        run: The command; it returns the exit status.
        way_on: What the line says after ``interrupted`` or ``terminated``.

    Returns:
        The exit status: that of the command, 130 after SIGINT, 143 after SIGTERM.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    alone = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = signal.signal(signal.SIGTERM, terminate) if alone else None
    try:
        return run()
    except KeyboardInterrupt:
        what, status = "interrupted", 130
    except Terminated:
        what, status = "terminated", 143
    finally:
        if alone:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    print(f"{what}{way_on}", file=sys.stderr)
    return status
