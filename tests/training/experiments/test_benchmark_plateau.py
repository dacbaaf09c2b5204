import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from training.engine.ledger import read_runs
from training.engine.records import write_table
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.benchmark_plateau import BenchmarkPlateau

SMALL = {"network": "resnet(blocks=1)", "filters": (4,), "hold_out": 10, "batch_size": 5, "steps": 4, "marks": 2}
PLATEAU = BenchmarkPlateau(name="long", of="short", seeds=2, **SMALL)
TRIALS = {"own": 1, "natural": 2}


def of_task(folder: Path, trials: Mapping[str, int]) -> None:
    """Writes the table of the task, in which each start took a setting."""
    taken = {start: PLATEAU.settings[trial] for start, trial in trials.items()}
    write_table(
        folder / "short.csv", [{"start": start, "lr": lr, "weight_decay": wd} for start, (lr, wd) in taken.items()]
    )


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("training.experiments.benchmark_plateau.RESULTS", tmp_path / "results")
    monkeypatch.setattr("training.experiments.benchmark_task.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Start, seed and setting of each network that is trained."""
    made: list[tuple[str, int, int]] = []
    train_one = BenchmarkPlateau.train_one
    monkeypatch.setattr(
        BenchmarkPlateau, "train_one", lambda *given, **more: made.append(given[2:5]) or train_one(*given, **more)
    )
    return made


@pytest.mark.usefixtures("data")
def test_each_start_is_trained_longer_at_its_setting_of_the_task(
    tmp_path: Path, results: Path, trained: list[tuple[str, int, int]]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"short\.csv"):
        run_stages({"long": PLATEAU}, Context(tmp_path / "a"))
    of_task(results, TRIALS)
    folder = run_stages({"long": PLATEAU}, Context(tmp_path / "a"))["long"]
    assert trained == [(start, seed, trial) for seed in range(2) for start, trial in TRIALS.items()]
    with (folder / "record" / "long.csv").open(newline="") as file:
        own, natural = csv.DictReader(file)
    assert (own["start"], natural["start"], own["seeds"], own["over_own"]) == ("own", "natural", "2", "")
    assert float(natural["lr"]) == PLATEAU.settings[2].rate
    difference = float(natural["accuracy"]) - float(own["accuracy"])
    assert float(natural["over_own"]) == pytest.approx(difference, abs=2e-3)
    assert {row["task"] for row in read_runs(folder / "record" / "long_runs.jsonl")} == {PLATEAU.digest}


@pytest.mark.usefixtures("data")
def test_only_what_is_missing_is_trained(tmp_path: Path, results: Path, trained: list[tuple[str, int, int]]) -> None:
    of_task(results, TRIALS)
    for out in ("a", "b"):  # once more in the same folder, and in another one from the record
        for _ in range(2):
            run_stages({"long": PLATEAU}, Context(tmp_path / out, from_record=True), results)
    assert len(trained) == 4
    of_task(results, TRIALS | {"natural": 3})
    run_stages({"long": PLATEAU}, Context(tmp_path / "a", from_record=True), results)
    assert trained[4:] == [("natural", 0, 3), ("natural", 1, 3)]
    assert len(read_runs(results / "long_runs.jsonl")) == 4
    run_stages({"long": replace(PLATEAU, seeds=3)}, Context(tmp_path / "b", from_record=True), results)
    assert trained[6:] == [("own", 2, 1), ("natural", 2, 3)]


def test_a_start_that_the_task_lacks_is_named(tmp_path: Path, results: Path) -> None:
    of_task(tmp_path / "short" / "record", {"own": 0})
    with pytest.raises(ValueError, match=r"short\.csv has no finished run of 'natural'; run short first"):
        PLATEAU.trials_of_task(Context(tmp_path))
    assert replace(PLATEAU, starts=("own",)).trials_of_task(Context(tmp_path)) == {"own": 0}
    with pytest.raises(ValueError, match=r"starts must contain 'own', .* got \('natural',\)"):
        replace(PLATEAU, starts=("natural",)).check()
