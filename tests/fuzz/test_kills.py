"""Stages that are disturbed in every way, and what is noticed of stages that do not stand it."""

import contextlib
import csv
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dwp_init.storage import sealed_json
from tests.fuzz import kills, undisturbed
from tests.fuzz.kills import COLUMNS, PLANS, SAME, SIGNALS, UNTOUCHED, Plan, Row
from tests.fuzz.undisturbed import Name, Whole

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]
RECIPE, STAGE = "prior_natural_stem", "patches"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("kills")
    (found,) = undisturbed.wholes(out, [RECIPE])
    assert list(undisturbed.wholes(out, [RECIPE, RECIPE])) == [found]  # which is there already
    return found


def test_a_stage_is_measured_without_a_disturbance(whole: Whole) -> None:
    assert (whole.name, whole.needs) == (Name(RECIPE, STAGE, "FitPatches"), ())
    assert sorted(path.name for path in whole.out.iterdir()) == [f".{STAGE}.json", STAGE]
    assert whole.calls > 10 and whole.bytes > 1000 and 0 < whole.seconds < 60 and not whole.differs(whole.out)


def test_finished_stages_of_other_code_are_made_again(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole.out / STAGE / "stale").touch()
    assert list(undisturbed.wholes(whole.out.parent, [RECIPE])) == [whole]
    assert (whole.out / STAGE / "stale").exists()
    monkeypatch.setattr(undisturbed, "code_digest", lambda: "other")
    (again,) = undisturbed.wholes(whole.out.parent, [RECIPE])
    assert again.name == whole.name and not (whole.out / STAGE / "stale").exists()


def test_only_what_is_measured_may_differ(whole: Whole, tmp_path: Path) -> None:
    def leave(name: str, seconds: float) -> Path:
        place = tmp_path / name / STAGE
        place.mkdir(parents=True)
        (place / "a.csv").write_text(f"start,train_s\nown,{seconds}\n")
        (place / "a.jsonl").write_text(json.dumps([f"crc of {seconds}", {"loss": [1, 2], "train_s": seconds}]) + "\n")
        (place / "result").write_text("1")
        return place

    timed = dataclasses.replace(whole, name=Name(RECIPE, STAGE, "Benchmark"), out=leave("a", 1.0).parent)
    place = leave("b", 2.0)
    assert timed.differs(tmp_path / "b") == []
    other = dataclasses.replace(timed, name=whole.name)
    assert other.differs(tmp_path / "b") == ["a.csv: train_s", "a.jsonl: train_s"]
    (place / "result").unlink()
    for name, before, after in (("a.csv", "own", "other"), ("a.jsonl", "2]", "3]")):
        (place / name).write_text((place / name).read_text().replace(before, after))
    assert timed.differs(tmp_path / "b") == ["a.csv: start", "a.jsonl: loss", "result"]
    (place / "a.csv").write_text("start,train_s\n")
    (place / "a.jsonl").write_bytes((place / "a.jsonl").read_bytes()[:-2])
    assert timed.differs(tmp_path / "b") == ["a.csv", "a.jsonl", "result"]


def test_a_summary_that_does_not_know_its_files_is_noticed(whole: Whole, tmp_path: Path) -> None:
    with whole.place() as out:
        assert whole.run(out) == 0 and whole.differs(out) == []
        path = out / STAGE / "done.json"
        summary = json.loads(path.read_text())
        summary["outputs"]["config.json"] = "0" * 64
        path.write_bytes(sealed_json({key: value for key, value in summary.items() if key != "sha256"}, "sha256"))
        assert "config.json has changed" in whole.differs(out)[0]


@pytest.mark.parametrize(("how", "moment"), PLANS)
def test_a_disturbed_stage_is_resumed(how: str, moment: str, whole: Whole) -> None:
    (row,) = kills.disturb(whole, [(how, moment)], 1)
    assert row["outcome"] in ((SAME, UNTOUCHED) if moment == "time" else (SAME,)), row


def test_a_folder_is_disturbed_again_and_again(whole: Whole) -> None:
    """The row of each has what comes of the folder in the end; what comes after it was done is no disturbance."""
    rows = kills.disturb(whole, PLANS, 2)
    assert 1 < len(rows) <= len(PLANS) and len({(row["kill"], row["moment"]) for row in rows}) == len(rows)
    assert {row["outcome"] for row in rows[:-1]} == {SAME} and rows[-1]["outcome"] in (SAME, UNTOUCHED)
    assert all(row["status"] == str(SIGNALS.get(row["kill"], 1)) for row in rows if row["outcome"] == SAME)
    first, same, other = (
        [tuple(row[key] for key in ("kill", "moment", "place")) for row in found]
        for found in (rows, kills.disturb(whole, PLANS, 2), kills.disturb(whole, PLANS, 3))
    )  # the stage may be done before the last of them
    assert all(a == b for a, b in zip(first, same, strict=False)) and first[:2] != other[:2]


def leaving(words: str, status: int) -> Callable[..., int]:
    """Runs a stage that writes a file, says this and ends with a status, and ends well the next time."""

    def run(whole: Whole, out: Path) -> int:
        (out / STAGE).mkdir(exist_ok=True)
        if (out / STAGE / "result").exists():
            return 0
        with (out / STAGE / "result").open("w") as file:
            file.write(str(os.getpid()))
        print(words, file=sys.stderr)
        return status

    return run


@pytest.mark.parametrize(
    ("words", "status", "outcome", "detail"),
    [
        ("Traceback (most recent call last)", 1, "wrong end", "a traceback"),
        ("interrupted", 130, "wrong end", "130: ['interrupted']"),
        (kills.SAID[130], 1, "wrong end", "1: ['interrupted; run"),
        (kills.SAID[130], 130, "differs", "result"),
        ("done", 0, "differs", "result"),
        ("Traceback", 0, "wrong end", "a traceback"),
    ],
)
def test_a_wrong_end_and_another_result_are_noticed(
    words: str, status: int, outcome: str, detail: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whole, "run", leaving(words, status))
    (row,) = kills.disturb(whole, [("SIGINT", "time")], 1)
    assert row["outcome"] == outcome and detail in row["detail"]


def without_a_word(whole: Whole, out: Path) -> int:
    """Runs a stage that makes nothing, whatever it meets."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(OSError):
        (out / STAGE).mkdir()
        (out / STAGE).rmdir()
    return 0


@pytest.mark.parametrize(("how", "outcome"), [("SIGTERM", "wrong end"), ("read-only", SAME)])
def test_what_a_stage_meets_without_a_word(
    how: str, outcome: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage may do without what it is refused, but not without a signal that it got."""
    monkeypatch.setattr(Whole, "run", without_a_word)
    nothing = dataclasses.replace(whole, out=tmp_path, calls=1)
    (row,) = kills.disturb(nothing, [(how, "call")], 1)
    assert (row["status"], row["outcome"]) == ("0", outcome)


def test_a_read_only_disk_lets_nothing_be_removed(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(whole: Whole, out: Path) -> int:
        (out / "place").touch()
        (out / STAGE).hardlink_to(out / "place")  # which is not listened to
        (out / STAGE).unlink()
        return 0

    monkeypatch.setattr(Whole, "run", run)
    nothing = dataclasses.replace(whole, out=tmp_path, calls=1)
    for how, outcome in (("read-only", "wrong end"), ("full disk", UNTOUCHED)):
        (row,) = kills.disturb(nothing, [(how, "call")], 1)
        assert row["outcome"] == outcome


def test_what_an_error_says_to_remove_is_removed(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(whole: Whole, out: Path) -> int:
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

    monkeypatch.setattr(Whole, "run", run)
    nothing = dataclasses.replace(whole, out=tmp_path / "nothing")
    (row,) = kills.disturb(nothing, [("SIGINT", "time")], 1)
    assert row["outcome"] == kills.REMOVED and row["detail"].endswith("/patches/checkpoint")
    first, second = kills.disturb(nothing, [("SIGINT", "time")] * 2, 1)
    assert first["outcome"] == kills.REMOVED and second["outcome"] == UNTOUCHED


def row_of(name: Name, plan: Plan, outcome: str = SAME) -> Row:
    return dict(zip(COLUMNS, (*vars(name).values(), "1", *plan, "1", "0", outcome, "", "abc"), strict=True))


def test_what_a_stage_lacks() -> None:
    here, like = Name("a", "one", "Kind"), Name("b", "two", "Kind")
    first = [("SIGKILL", "call"), ("SIGTERM", "call"), ("SIGINT", "call"), ("full disk", "call")]
    second = [("SIGKILL", "time"), ("SIGTERM", "time"), ("SIGINT", "time"), ("read-only", "call")]
    assert kills.lacking(here, [], 1) == first
    rows = [row_of(here, plan) for plan in first]
    assert kills.lacking(here, rows, 1) == [] and kills.lacking(here, rows, 2) == kills.lacking(like, rows, 1) == second
    assert kills.lacking(Name("b", "two", "Other"), rows, 1) == first
    rows[0]["outcome"] = UNTOUCHED
    assert kills.lacking(here, rows, 1) == first[:1]


def test_what_a_class_lacks() -> None:
    here, like = Name("a", "one", "Kind"), Name("b", "two", "Kind")
    rows = [row_of(like, plan) for plan in PLANS]
    assert kills.lacking_of_class(here, []) == PLANS and kills.lacking_of_class(here, rows) == PLANS[:6]
    rows += [row_of(here, plan) for _ in range(9) for plan in PLANS[:6]]
    assert not kills.lacking_of_class(here, rows) and kills.lacking_of_class(Name("a", "one", "Other"), rows) == PLANS
    rows.remove(row_of(here, ("SIGINT", "time")))
    assert kills.lacking_of_class(here, rows) == [("SIGINT", "call"), ("SIGINT", "time")]


def test_a_table_grows_until_nothing_is_lacking(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    slow, other = (Name(RECIPE, name, whole.name.kind) for name in ("slow", "other"))
    found = [dataclasses.replace(whole, name=name, seconds=seconds) for name, seconds in ((slow, 9.0), (other, 1.0))]

    def disturb(whole: Whole, plans: list[Plan], run: int) -> list[Row]:
        made.append((whole.name.stage, run))
        if len(made) == 3:
            raise KeyboardInterrupt
        rows = [row_of(whole.name, plan) | {"run": str(run)} for plan in plans]
        return [{key: value for key, value in row.items() if key != "commit"} for row in rows]

    monkeypatch.setattr(kills, "wholes", lambda out, names: iter(found))
    monkeypatch.setattr(kills, "disturb", disturb)
    path = tmp_path / "a.csv"
    with pytest.raises(KeyboardInterrupt):
        kills.record(path, tmp_path, 1, [RECIPE], 60, "abc")
    assert len(kills.read(path)) == 2 * 4 and made == [("slow", 1), ("other", 1), ("other", 2)]
    kills.record(path, tmp_path, 1, [RECIPE], 60, "abc")
    assert made[3:] == [("other", run) for run in range(2, 11)]
    kills.record(path, tmp_path, 1, [RECIPE], 60, "abc")
    kills.record(path, tmp_path, 2, [RECIPE], 0, "abc")
    assert len(made) == 12 and len(kills.read(path)) == 2 * 4 + 1 + 9 * 6
    assert {row["commit"] for row in kills.read(path)} == {"abc"}
    with path.open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(COLUMNS)
