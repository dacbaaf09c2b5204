from pathlib import Path
from typing import Any

import pytest

from tests.training.publish.example_runs import example_runs, example_task, record
from training.engine.ledger import write_runs
from training.publish import benchmark_record
from training.publish.benchmark_record import OnRecord


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(benchmark_record, "RESULTS", tmp_path)
    return tmp_path


def test_what_is_missing_is_counted_by_run(results: Path) -> None:
    stage = example_task(seeds=3, trials=2)
    nothing = OnRecord.read(stage)
    assert (nothing.stage.planned, nothing.missing, nothing.finished, nothing.begun) == (
        4 * (2 * 3 + 2),
        32,
        False,
        False,
    )
    rows = example_runs(stage, {})
    record(results, stage, rows[1:-2])
    some = OnRecord.read(stage)
    assert (some.missing, some.finished, some.begun) == (1 + 6 + 2, False, True)  # without finalists their runs are
    record(results, stage, [*rows, rows[0] | {"trial": 7}, rows[-1] | {"start": "dirac"}])
    every = OnRecord.read(stage)
    assert (every.missing, every.finished, every.begun) == (0, True, False)
    assert OnRecord.read(example_task(seeds=4)).missing == 8


def test_runs_without_their_table_are_not_finished(results: Path) -> None:
    stage = example_task()
    record(results, stage, example_runs(stage, {}))
    (results / f"{stage.name}.csv").unlink()
    assert not OnRecord.read(stage).finished and OnRecord.read(stage).begun


def test_paired_runs_of_trials_that_are_no_finalists_do_not_count(results: Path) -> None:
    stage = example_task(trials=3, finalists=1)
    rows = example_runs(stage, {"natural": 2.0})
    record(results, stage, rows)  # the last trial screens best
    assert (OnRecord.read(stage).missing, OnRecord.read(stage).finished) == (0, True)
    assert OnRecord.read(stage).compare("natural", "Kaiming")["over"] == pytest.approx(2.0, abs=1e-3)
    write_runs(results / f"{stage.name}_runs.jsonl", [row if row["choosing"] else row | {"trial": 0} for row in rows])
    assert OnRecord.read(stage).missing == 12 and not OnRecord.read(stage).finished


def test_a_table_at_settings_that_are_no_longer_chosen_is_not_finished(results: Path) -> None:
    stage = example_task()
    rows = example_runs(stage, {"natural": 2.0})
    record(results, stage, rows)
    best = {"start": "natural", "seed": 2, "trial": 0}
    moved = [row | {"held_accuracy": 90.0} if best.items() <= row.items() else row for row in rows]
    write_runs(results / f"{stage.name}_runs.jsonl", moved)
    found = OnRecord.read(stage)
    assert (found.missing, found.finished, found.begun) == (0, False, True)
    assert found.compare("natural", "Kaiming")["over"] == pytest.approx(2.0 - 5, abs=1e-3)


@pytest.mark.parametrize("starts", [("natural",), ("Kaiming",), ("natural", "Kaiming")])
def test_runs_of_an_earlier_source_of_their_start_do_not_count(results: Path, starts: tuple[str, ...]) -> None:
    stage = example_task()
    rows = [row | {"source": "old"} if row["start"] in starts else row for row in example_runs(stage, {})]
    record(results, stage, rows)
    assert OnRecord.read(stage).missing == 0 and not OnRecord.read(stage).finished


def test_runs_from_priors_that_are_no_longer_bundled_do_not_count(results: Path) -> None:
    stage = example_task()
    record(results, stage, example_runs(stage, {}))
    assert OnRecord.read(stage).finished and not OnRecord.read(example_task(priors=("natural@v0",))).finished


def test_a_table_of_fewer_seeds_than_there_are_runs_is_not_finished(results: Path) -> None:
    stage = example_task()
    record(results, stage, example_runs(example_task(seeds=2), {}))
    write_runs(results / f"{stage.name}_runs.jsonl", example_runs(stage, {}))
    assert OnRecord.read(stage).missing == 0 and not OnRecord.read(stage).finished


def test_runs_of_two_settings_are_no_finished_task(results: Path) -> None:
    stage = example_task()
    rows = example_runs(stage, {})
    record(results, stage, [*rows[:-1], rows[-1] | {"setting": "1"}])
    assert OnRecord.read(stage).missing == 0 and not OnRecord.read(stage).finished


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 4000},
        {"filters": (8, 4)},
        {"data": "cifar100"},
        {"each": 51},
        {"hold_out": 100},
        {"batch_size": 8},
        {"precision": "bfloat16"},
    ],
)
def test_runs_of_a_task_of_other_fields_are_not_finished(results: Path, other: dict[str, Any]) -> None:
    """Else the page would state the new fields over the figures of the old ones."""
    stage = example_task()
    record(results, stage, example_runs(stage, {}))
    assert OnRecord.read(stage).finished and not OnRecord.read(example_task(**other)).finished
    record(results, stage, [{**row, "task": None} for row in example_runs(stage, {})])
    assert not OnRecord.read(stage).finished


def test_two_starts_are_compared_by_accuracy_and_log_loss(results: Path) -> None:
    stage = example_task(seeds=3)
    record(results, stage, example_runs(stage, {"natural": 2.0, "Kaiming": 0.5}))
    found = OnRecord.read(stage).compare("natural", "Kaiming")
    assert (found["over"], found["wins"], found["losses"]) == (pytest.approx(1.5, abs=1e-3), 3, 0)
    assert found["loss_over"] == pytest.approx(-0.015, abs=1e-4) and found["p"] < 0.05
    assert OnRecord.read(stage).has("natural", "Kaiming") and not OnRecord.read(stage).has("natural", "dirac")


def test_the_command_makes_one_task() -> None:
    words = "--only bench_few_cifar10_vgg --data-root DATA --workers 2 --from-record --record"
    assert OnRecord.read(example_task()).command == f"python -m training run benchmark {words}"
