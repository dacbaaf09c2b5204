"""Stages that are disturbed in every way, and what is noticed of stages that do not stand it."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import kills
from tests.fuzz.kills import PLANS, SAME, UNTOUCHED, Whole

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]
RECIPE, STAGE = "prior_natural_stem", "patches"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    (found,) = kills.wholes(tmp_path_factory.mktemp("kills"), [RECIPE])
    return found


def test_a_stage_is_measured_without_a_disturbance(whole: Whole) -> None:
    assert (whole.recipe, whole.name, whole.needs, whole.timings) == (RECIPE, STAGE, (), frozenset())
    assert whole.calls > 10 and whole.bytes > 1000 and not whole.differs(whole.out / STAGE)


@pytest.mark.parametrize(("how", "moment"), PLANS)
def test_a_disturbed_stage_is_resumed(how: str, moment: str, whole: Whole) -> None:
    row = kills.try_one(whole, how, moment, "test")
    assert row["outcome"] in ((SAME, UNTOUCHED) if moment == "time" else (SAME,)), row


def leaving(words: str, status: int) -> Callable[..., int]:
    """Runs a stage that writes a file, says this and ends with a status, and ends well the next time."""

    def command(recipe: str, out: Path, *_: str) -> int:
        (out / STAGE).mkdir(exist_ok=True)
        if (out / STAGE / "result").exists():
            return 0
        with (out / STAGE / "result").open("w") as file:
            file.write(str(os.getpid()))
        print(words, file=sys.stderr)
        return status

    return command


@pytest.mark.parametrize(
    ("words", "status", "outcome", "detail"),
    [
        ("Traceback (most recent call last)", 1, "wrong end", "a traceback"),
        ("interrupted", 130, "wrong end", "['interrupted']"),
        ("interrupted; run the same command again to resume", 1, "wrong end", "status 1, expected 130"),
        ("interrupted; run the same command again to resume", 130, "differs", "result"),
    ],
)
def test_a_wrong_end_and_another_result_are_noticed(
    words: str, status: int, outcome: str, detail: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "command", leaving(words, status))
    row = kills.try_one(whole, "SIGINT", "time", "test")
    assert row["outcome"] == outcome and detail in row["detail"]


def test_what_an_error_says_to_remove_is_removed(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(recipe: str, out: Path, *_: str) -> int:
        place = out / STAGE / "checkpoint"
        if place.exists():
            print(f"error: {place} is damaged; remove it to start again", file=sys.stderr)
            return 1
        if not (out / STAGE).exists():
            (out / STAGE).mkdir()
            place.touch()
            print(kills.SAID[130], file=sys.stderr)
            return 130
        return 0

    monkeypatch.setattr(kills, "command", command)
    nothing = dataclasses.replace(whole, results={})
    row = kills.try_one(nothing, "SIGINT", "time", "test")
    assert row["outcome"] == kills.REMOVED and row["detail"].endswith("/patches/checkpoint")


def test_a_table_grows_and_is_resumed(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def try_one(whole: Whole, how: str, moment: str, seed: str) -> dict[str, str]:
        made.append(how)
        if len(made) == 3:
            raise KeyboardInterrupt
        values = (whole.recipe, whole.name, how, moment, "1", "0", SAME, "")
        return dict(zip(kills.COLUMNS, values, strict=True))

    monkeypatch.setattr(kills, "wholes", lambda out, names: iter([whole]))
    monkeypatch.setattr(kills, "try_one", try_one)
    monkeypatch.setattr(kills, "PLANS", PLANS[:4])
    with pytest.raises(KeyboardInterrupt):
        kills.record(tmp_path / "a.csv", tmp_path, 1, [RECIPE], 60)
    assert len(kills.read(tmp_path / "a.csv")) == 2
    kills.record(tmp_path / "a.csv", tmp_path, 2, [RECIPE], 60)
    found = [(row["kill"], row["moment"]) for row in kills.read(tmp_path / "a.csv")]
    assert len(found) == 8 and all(found.count(plan) == 2 for plan in PLANS[:4])
    kills.record(tmp_path / "a.csv", tmp_path, 3, [RECIPE], 0)
    assert len(kills.read(tmp_path / "a.csv")) == 8
