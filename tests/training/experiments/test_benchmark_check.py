import json
from pathlib import Path
from typing import Any

import pytest

from training.engine.records import read_table
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments import benchmark_task
from training.experiments.benchmark_check import BANK, BenchmarkCheck
from training.experiments.false_positives import false_positives
from training.starts.controls import OTHER_DRAWS, OWN

SMALL: dict[str, Any] = {"name": "bench_check", "network": "resnet(blocks=1, stride=2)", "filters": (4,), "seeds": 9}
SMALL |= {"trials": 2, "hold_out": 10, "batch_size": 5, "steps": 2, "marks": 1}
CELLS = [(start, seed, trial) for seed in range(9) for trial in range(2) for start in (OWN, OTHER_DRAWS)]

pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Start, seed and trial of each network that is trained."""
    found: list[tuple[Any, ...]] = []
    run_one = BenchmarkCheck.run_one
    monkeypatch.setattr(BenchmarkCheck, "run_one", lambda *given: found.append(given[2][1:]) or run_one(*given))
    return found


def run(out: Path, *, of_record: bool = False, **fields: Any) -> Path:
    return run_stages({"check": BenchmarkCheck(**SMALL | fields)}, Context(out, from_record=of_record))["check"]


def recorded(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "record").iterdir()}


def test_the_bank_has_two_runs_of_each_seed_and_trial_and_the_table_compares_them(
    tmp_path: Path, trained: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "one")
    rows = [json.loads(line) for line in (folder / "record" / "bench_check_runs.jsonl").read_text().splitlines()]
    assert [(row["start"], row["seed"], row["trial"]) for row in rows] == CELLS and sorted(trained) == sorted(CELLS)
    scores = {"accuracy", "log_loss", "held_accuracy", "held_log_loss"}
    assert all(row.keys() == {*BANK, *scores} for row in rows)
    for row in rows:  # in % of 30 and of 10 images
        assert row["accuracy"] * 0.3 == pytest.approx(round(row["accuracy"] * 0.3), abs=1e-3)
        assert row["held_accuracy"] % 10 == pytest.approx(0, abs=1e-3)
    arms = [[row["log_loss"] for row in rows if row["start"] == start] for start in (OWN, OTHER_DRAWS)]
    assert not set(arms[0]) & set(arms[1])
    table = read_table(folder / "record" / "bench_check.csv")
    assert {row["seeds"] for row in table} == {"8"} and {row["finalists"] for row in table} == {"1", "2"}
    assert {row["chosen_by"] for row in table} == {"accuracy", "log_loss"}
    expected = false_positives(rows, seeds=8, finalists=(1, 2))
    assert [row["half_width"] for row in table] == [str(row["half_width"]) for row in expected]

    trained.clear()
    monkeypatch.setattr(benchmark_task, "RESULTS", folder / "record")
    assert recorded(run(tmp_path / "two", of_record=True)) == recorded(folder) and trained == []
    run(tmp_path / "two", seeds=10)
    assert {seed for _, seed, _ in trained} == {9} and len(trained) == 4
    with pytest.raises(ValueError, match="were made otherwise than they would be now"):
        run(tmp_path / "three", steps=3, of_record=True)


@pytest.mark.parametrize("after", [0, 5])
def test_an_interrupted_check_leaves_the_runs_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[Any, ...]], after: int
) -> None:
    run_one = BenchmarkCheck.run_one

    def interrupted(*given: Any) -> Any:
        if len(trained) == after:
            raise KeyboardInterrupt
        return run_one(*given)

    monkeypatch.setattr(BenchmarkCheck, "run_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    path = tmp_path / "check" / "record" / "bench_check_runs.jsonl"
    assert len(path.read_text().splitlines() if path.exists() else ()) == after
    assert path.exists() == bool(after)  # an empty one would replace the results of record


def test_too_few_seeds_are_refused_before_anything_is_trained(tmp_path: Path, trained: list[tuple[Any, ...]]) -> None:
    with pytest.raises(
        ValueError, match="seeds must be at least 9: one to screen the settings, and 8 to compare; got 8"
    ):
        run(tmp_path, seeds=8)
    with pytest.raises(ValueError, match="steps must be 1 or more; got 0"):
        run(tmp_path, steps=0)
    assert trained == []
    BenchmarkCheck().check()
