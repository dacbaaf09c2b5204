from typing import Any

import pytest

from training.engine import reports
from training.engine.reports import Bars, Board, ProgressReport, Reporter


def test_reports_of_a_lost_attempt_are_taken_back() -> None:
    found: list[tuple[Any, ...]] = []
    bars, others = Bars(lambda *words: found.append(words)), Bars(print)
    one, two, other = bars.expect(), bars.expect(), others.expect()
    bars.show(
        [
            ProgressReport(one, "a", 3, ""),
            ProgressReport(two, "b", 2, "note"),
            ProgressReport(one, "a", 1, ""),
            ProgressReport(one, "c", 2, ""),
        ]
    )
    bars.show([ProgressReport(one, "a", 5, "late"), ProgressReport(one, "c", 1, ""), ProgressReport(other, "d", 9, "")])
    assert found == [(3,), (2, "note"), (1,), (-4,), (2,), (1,)]
    bars.forget(one)
    bars.forget(two)
    assert bars == Bars(bars.progress)


class Handle:
    """Stands for the handle of an actor, whose methods are called at once."""

    def __init__(self) -> None:
        self.board, self.add = Board(), self

    def remote(self, *words: Any) -> None:
        self.board.add(*words)


def test_a_job_reports_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 10.0, 10.5, 11.5, 11.5))
    monkeypatch.setattr(reports.time, "monotonic", lambda: next(clock))
    handle = Handle()
    report = Reporter(handle, 7, every=1.0)
    report(2)
    report(3, "half")
    report()
    assert [(found.number, found.units, found.note) for found in handle.board.take()] == [(7, 2, ""), (7, 4, "half")]
    assert handle.board.take() == []
