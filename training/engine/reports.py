"""Reports of jobs on other nodes to the bars of the driver. Imports no torch, so that the board is there soon."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple


class ProgressReport(NamedTuple):
    """What one attempt at a job has done since its last report, in units of progress."""

    number: int  # of the job
    attempt: str
    units: int
    note: str


class Board:
    """An actor on the driver's node, where jobs leave their reports until the driver takes them."""

    def __init__(self) -> None:
        self.reports: list[ProgressReport] = []

    def add(self, *words: Any) -> None:
        """Adds a report with these fields."""
        self.reports.append(ProgressReport(*words))

    def take(self) -> list[ProgressReport]:
        """Returns the reports since the last call."""
        taken, self.reports = self.reports, []
        return taken


class Reporter:
    """Sums up the progress of a job, and leaves it at a board from time to time.

    Args:
        board: Handle of the board.
        number: Number of the job.
        every: Seconds between reports, at least.
    """

    def __init__(self, board: Any, number: int, every: float) -> None:
        self.board, self.number, self.every, self.attempt = board, number, every, uuid.uuid4().hex
        self.units, self.note, self.sent = 0, "", 0.0

    def __call__(self, units: int = 1, note: str = "") -> None:
        self.units, self.note = self.units + units, note or self.note
        if time.monotonic() - self.sent > self.every:
            self._send()

    def finish(self) -> None:
        """Sends what is left, and returns when it has arrived, so that it is there before the result of the job."""
        import ray

        ray.get(self._send())

    def _send(self) -> Any:
        sent = self.board.add.remote(self.number, self.attempt, self.units, self.note)
        self.units, self.note, self.sent = 0, "", time.monotonic()
        return sent


_numbers = count()


@dataclass
class Bars:
    """Passes the reports of jobs that are expected on, and takes back those of attempts that were lost.

    Args:
        progress: Called with units and, if there is one, a note.
    """

    progress: Callable[..., Any]
    _units: dict[int, dict[str, int]] = field(default_factory=dict)  # by job and attempt, of which the last one counts

    def expect(self) -> int:
        """Returns the number of a new job, which no other job of this process has."""
        self._units[number := next(_numbers)] = {}
        return number

    def show(self, reports: Sequence[ProgressReport]) -> None:
        """Passes these reports on."""
        for number, attempt, units, note in reports:
            attempts = self._units.get(number)
            if attempts is None:
                continue
            if attempt not in attempts:
                if attempts:
                    self.progress(-list(attempts.values())[-1])
                attempts[attempt] = 0
            if attempt == list(attempts)[-1]:
                attempts[attempt] += units
                self.progress(units, *([note] if note else []))

    def forget(self, number: int) -> None:
        """Forgets a job that is done, so that memory does not grow with their number."""
        del self._units[number]
