"""A publication that is disturbed, at a request of each kind; ``python -m tests.fuzz publishing`` does it at all."""

import tempfile
from pathlib import Path

import pytest

from tests.fuzz import publishing
from tests.fuzz.publishing import FAULTS, SITUATIONS, Disturbance, judge
from training.__main__ import main

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),  # of httpx, to the client of the Hub
]


@pytest.mark.parametrize(("fault", "request_"), [*zip(FAULTS, (4, 7, 9, 6, 8, 10), strict=True)])
def test_the_hub_holds_one_version_and_the_next_publication_ends_well(
    fault: str, request_: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = judge(Disturbance(SITUATIONS[request_ % 2], fault, request_))
    assert outcome.outcome in ("same", "refused"), outcome.detail
    assert list(tmp_path.iterdir()) == []  # what is left in the folder of the process goes with it


def test_every_request_of_both_publications_is_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "FAULTS", FAULTS[:1])
    found = list(publishing.disturbances())
    assert {each.situation for each in found} == set(SITUATIONS) and len(found) > 30
    assert [each.request for each in found if each.situation == SITUATIONS[0]] == list(
        range(1, 1 + sum(each.situation == SITUATIONS[0] for each in found))
    )


def test_a_publication_that_stays_undone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "main", lambda words: main([word for word in words if word != "--push"]))
    verdict = judge(Disturbance(SITUATIONS[0], "refused", 0))
    assert verdict.outcome == "silent" and "not published by the second command" in verdict.detail


def test_a_traceback_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "main", lambda words: int("no number"))
    assert judge(Disturbance(SITUATIONS[0], "refused", 0)).outcome == "crash"
