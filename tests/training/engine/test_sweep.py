from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.engine.records import read_metrics, record_metrics, save_checkpoint
from training.engine.sweep import Sweep
from training.engine.workers import Processes

RUNS = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


class Killed(BaseException):
    """Ends a process between two runs."""


class Job:
    """Makes a row for a run, and lists the runs that it was called for."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.runs: list[Any] = []
        self.killed_at = killed_at

    def __call__(self, run: tuple[str, int], progress: Callable[..., Any]) -> list[dict[str, Any]]:
        if len(self.runs) == self.killed_at:
            raise Killed
        self.runs.append(run)
        progress(2)
        progress(1, "halfway")
        return [{"init": run[0], "seed": run[1], "value": f"{run[0]}{run[1]}"}]


def sweep(folder: Path, **options: Any) -> Sweep:
    return Sweep(folder, ("init", "seed"), **{"total": 4, "each": 3} | options)


@pytest.mark.parametrize("killed_at", range(4))
def test_a_killed_sweep_resumes_to_the_same_rows(tmp_path: Path, killed_at: int) -> None:
    with sweep(tmp_path / "whole") as run:
        (tmp_path / "whole").mkdir()
        expected = run(Job(), RUNS)
    (tmp_path / "killed").mkdir()
    with pytest.raises(Killed), sweep(tmp_path / "killed") as run:
        run(Job(killed_at), RUNS)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"init": "b", "se')
    job = Job()
    with sweep(tmp_path / "killed") as run:
        assert run.bar.n == 3 * killed_at
        assert run(job, RUNS) == expected == [run.done[key] for key in RUNS]
        assert run.bar.n == run.bar.total == 12
    assert job.runs == RUNS[killed_at:]
    assert read_metrics(tmp_path / "killed") == read_metrics(tmp_path / "whole") == expected


def test_rows_are_in_the_order_of_the_runs(tmp_path: Path) -> None:
    record_metrics(tmp_path, init="b", seed=1, value="recorded")
    record_metrics(tmp_path, note="of another kind", init="", seed=0)
    with sweep(tmp_path) as run:
        rows = run(Job(), RUNS)
    assert [row["value"] for row in rows] == ["a0", "b0", "a1", "recorded"]
    assert [row.get("value") for row in read_metrics(tmp_path)] == ["a0", None, "b0", "a1", "recorded"]


def test_it_may_be_called_for_parts(tmp_path: Path) -> None:
    with sweep(tmp_path) as run:
        first, second = run(Job(), RUNS[:1]), run(Job(), RUNS[1:])
        assert run.bar.n == 12
    with sweep(tmp_path) as again:
        assert again(Job(0), RUNS[1:]) == second and again(Job(0), RUNS[:1]) == first


def pair(seeds: tuple[int, ...], progress: Callable[..., Any]) -> list[dict[str, Any]]:
    progress(3 * len(seeds))
    return [{"init": "a", "seed": seed, "of": list(seeds)} for seed in seeds]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_of_several_rows_is_repeated_if_one_is_missing(tmp_path: Path, workers: int) -> None:
    record_metrics(tmp_path, init="a", seed=0, of=[])
    record_metrics(tmp_path, init="a", seed=3, of=[3])
    for seeds in ((0, 1), (2, 4), (3,)):
        save_checkpoint(tmp_path / f"{seeds}.checkpoint", {})
    options: dict[str, Any] = {
        "total": 5,
        "engine": Processes(workers),
        "members": lambda seeds: [("a", seed) for seed in seeds],
    }
    with sweep(tmp_path, checkpoint=lambda seeds: tmp_path / f"{seeds}.checkpoint", **options) as run:
        assert run.bar.n == 6
        rows = run(pair, [(0, 1), (2, 4), (3,)])
        assert run.bar.n == run.bar.total == 15
    assert [(row["seed"], row["of"]) for row in rows] == [(0, [0, 1]), (1, [0, 1]), (2, [2, 4]), (4, [2, 4]), (3, [3])]
    assert list(tmp_path.glob("*.checkpoint")) == []


def test_a_row_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    for init, seed in RUNS:
        record_metrics(tmp_path, init=init, seed=seed, value="recorded")
        (tmp_path / f"{init}{seed}").touch()
    (tmp_path / "b0").unlink()
    job = Job()
    with sweep(tmp_path, made=lambda row: (tmp_path / f"{row['init']}{row['seed']}").exists()) as run:
        rows = run(job, RUNS)
    assert job.runs == [("b", 0)] and [row["value"] for row in rows] == ["recorded", "b0", "recorded", "recorded"]


def test_rows_of_another_stage_are_refused(tmp_path: Path) -> None:
    record_metrics(tmp_path, epoch=1, log_prob=2.5)
    with pytest.raises(ValueError, match=rf"{tmp_path}/metrics.jsonl has rows without init, seed, .* remove it to"):
        sweep(tmp_path)
    assert read_metrics(tmp_path) == read_metrics(tmp_path, "epoch") == [{"epoch": 1, "log_prob": 2.5}]
