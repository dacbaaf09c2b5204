"""Runs of small tasks of the benchmark, as they would be on record."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.engine.ledger import write_runs
from training.engine.records import Row, write_table
from training.experiments.benchmark import CHOOSING_SEED, Benchmark
from training.experiments.benchmark_table import task_table

STARTS = ("own", "Kaiming", "natural", "whitened stem")
SMALL = Benchmark(network="vgg", filters=(4, 4), each=50, starts=STARTS, seeds=3, trials=2, marks=2, steps=10)


def example_task(name: str = "bench_few_cifar10_vgg", **fields: Any) -> Benchmark:
    """A task of 4 starts, 3 paired seeds and 2 trials, of which the second is chosen."""
    return replace(SMALL, name=name, **fields)


def example_runs(stage: Benchmark, over_own: Mapping[str, float]) -> list[Row]:
    """All runs of a task whose starts are so many points ahead of the model's own, give or take 0.1 by seed."""
    rows: list[Row] = []
    for place, start in enumerate(stage.starts):
        same = {
            "task": stage.digest,
            "setting": "0",
            "source": stage.source(start, None),
            "start": start,
            "init_s": 0.1,
            "train_s": 9.0,
            "drawn": 1.0,
        }
        for trial in range(stage.trials):
            score = {"held_accuracy": 30.0 + trial, "held_log_loss": 2.0}
            rows.append(same | {"seed": CHOOSING_SEED, "trial": trial, "choosing": True} | score)
            for seed in range(stage.seeds):
                accuracy = 50.0 + over_own.get(start, 0.0) + 0.1 * ((seed + place) % 3) - 5 * (trial == 0)
                curves = {"curve": [accuracy / 2, accuracy], "curve_loss": [2.0, 1.0]}
                test = {"accuracy": accuracy, "log_loss": 1.5 - accuracy / 100}
                rows.append(same | {"seed": seed, "trial": trial, "choosing": False} | score | test | curves)
    return rows


def record(folder: Path, stage: Benchmark, rows: list[Row]) -> None:
    """Writes the runs and the table of a task."""
    marks = {"marks": stage.steps_of_marks, "steps": stage.steps}
    write_runs(folder / f"{stage.name}_runs.jsonl", rows)
    write_table(
        folder / f"{stage.name}.csv", task_table(stage.compared(rows), **marks, own="own", trials=stage.settings)
    )
