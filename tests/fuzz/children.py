"""Forked processes, which start with everything imported, so that a try costs what the work costs."""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HANGS = "hangs"
_PAUSES = 0.003, 0.02  # seconds between two looks at a process, which take time that it lacks
_CPUS = os.cpu_count() or 1


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Args:
        status: Its exit status; negative for the number of a signal; :data:`HANGS` if it was ended after too long.
        said: What it wrote to the standard error.
        seconds: How long it ran.
    """

    status: int | str
    said: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """The last lines that it wrote, without bars of progress, and what Python says later of processes it lost."""
        lines = self.said.replace("\r", "\n").splitlines()
        return [line for line in lines if line.strip() and "it/s" not in line and "resource_tracker" not in line]

    @property
    def is_clear_error(self) -> bool:
        """Whether a command said what is wrong in one line, and ended with the status for that."""
        said = self.lines[-1:]
        return self.status == 1 and bool(said) and said[0].startswith("error: ") and "Traceback" not in self.said


@dataclass
class Child:
    """A forked process; :meth:`wait` says how it ended."""

    pid: int
    said: Path
    start: float

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float, number: int = 0, after: float = 0, ready: Path | None = None) -> Ended:
        """Waits for the end.

        Args:
            seconds: The most that it may take.
            number: Of a signal to send to the process, if it is still there; 0 for none.
            after: Seconds of its :func:`processor_time` after which to send it, counted from when ``ready`` appears.
            ready: A file.
        """
        status: int | str | None = None
        since: float | None = None
        while status is None:
            found, code = os.waitpid(self.pid, os.WNOHANG)
            if found:
                status = os.waitstatus_to_exitcode(code)
            elif time.monotonic() - self.start > seconds:
                self.kill(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                status = HANGS
            elif number:
                used = processor_time(self.pid)
                since = used if since is None and (ready is None or ready.exists()) else since
                left = _PAUSES[0] if since is None else since + after - used
                if left <= 0:
                    self.kill(number)
                    number = 0
                else:
                    time.sleep(min(max(left / _CPUS, _PAUSES[0]), _PAUSES[1]))
            else:
                time.sleep(_PAUSES[1])
        said = self.said.read_text(errors="replace")
        self.said.unlink()
        return Ended(status, said, time.monotonic() - self.start)


def processor_time(pid: int) -> float:
    """Returns the seconds of processor time of a process and of those that it started, which no other lengthens."""
    place = Path("/proc") / str(pid)
    try:
        children = [
            int(child) for task in (place / "task").iterdir() for child in (task / "children").read_text().split()
        ]
        waited_for = map(int, (place / "stat").read_text().rpartition(")")[2].split()[13:15])
        own = time.clock_gettime(~pid << 3 | 2)  # Linux's number for the clock of a process
    except OSError:  # it has ended
        return 0.0
    return own + sum(waited_for) / os.sysconf("SC_CLK_TCK") + sum(map(processor_time, children))


@contextmanager
def noting_signals(path: Path) -> Iterator[None]:
    """Notes in a file that a handler of this process got a signal, whatever becomes of what the handler raises.

    Signals that arrive later are kept waiting.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK)
    signal.set_wakeup_fd(handle)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        signal.set_wakeup_fd(-1)
        os.close(handle)


def fork(act: Callable[[], int]) -> Child:
    """Starts a copy of this process, which must have no threads, and runs ``act`` there; it returns the exit status.

    Signals act there as in a process that a shell starts.
    """
    handle, name = tempfile.mkstemp(prefix="dwp-init-fuzz-")
    start = time.monotonic()
    pid = os.fork()
    if pid:
        os.close(handle)
        return Child(pid, Path(name), start)
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.dup2(handle, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False, buffering=1) for number in (1, 2))  # noqa: SIM115
        status = act()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:  # nothing may take the child back into the code of its parent
            os._exit(status)
