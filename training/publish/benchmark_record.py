"""A task of the benchmark as it is on record: its table, what is missing, and comparisons of two of its starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from training.engine.ledger import read_runs
from training.engine.records import RESULTS, Row, read_table
from training.experiments.benchmark import CHOOSING_SEED, Benchmark
from training.experiments.benchmark_table import compare_starts, paired_runs
from training.experiments.benchmark_task import BenchmarkTask
from training.experiments.choice import chosen_trials
from training.experiments.verdict import Task, task_of


@dataclass(frozen=True)
class OnRecord:
    """A task and what is on record of it.

    Args:
        stage: Its stage.
        task: The task with its table, every cell as text; an empty one where nothing is recorded.
        runs: Its runs: those that choose settings, and the paired ones at the settings that the table names.
    """

    stage: Benchmark
    task: Task
    runs: Sequence[Row]

    @classmethod
    def read(cls, stage: Benchmark) -> "OnRecord":
        """Reads ``<name>.csv`` and ``<name>_runs.jsonl``, where they are."""
        table = table_of(stage)
        chosen = {(row["start"], _trial(stage, row)) for row in table}
        runs = read_runs(RESULTS / stage.ledger)
        kept = [row for row in runs if row["choosing"] or (row["start"], row["trial"]) in chosen]
        return cls(stage, task_of(stage, table), kept)

    @cached_property
    def missing(self) -> int:
        """Number of runs that are still to be made, those too that have another setting than is chosen by now."""
        chosen = self._chosen()
        made = {
            _key(row) for row in self.runs if row["choosing"] or chosen.get(row["start"], row["trial"]) == row["trial"]
        }
        return len(_planned(self.stage) - made)

    def _chosen(self) -> dict[str, int]:
        """By start the setting that the runs of record choose; nothing while some of these runs are missing."""
        planned = {run for run in _planned(self.stage) if run[2] is not None}
        choosing = [row for row in self.runs if row["choosing"] and _key(row) in planned]
        return chosen_trials(choosing) if len(choosing) == len(planned) else {}

    @property
    def planned(self) -> int:
        """Number of runs of the finished task."""
        return len(_planned(self.stage))

    @property
    def finished(self) -> bool:
        """Whether all runs are on record, and their table."""
        return bool(self.task.table) and not self.missing

    @property
    def begun(self) -> bool:
        """Whether some runs are on record, and others missing."""
        return bool(self.runs) and not self.finished

    @property
    def command(self) -> str:
        """What makes the missing runs and records them."""
        words = "--data-root DATA --workers 2 --from-record --record"
        return f"python -m training run benchmark --only {self.stage.name} {words}"

    def has(self, *starts: str) -> bool:
        """Whether all of these starts are in the table."""
        return {*starts} <= {row["start"] for row in self.task.table}

    def compare(self, start: str, baseline: str) -> Row:
        """Compares two starts by accuracy; the columns that begin with ``loss_`` are those of the log loss."""
        runs = paired_runs(self.runs, self.stage.steps_of_marks)
        accuracy, loss = (compare_starts(runs, each, baseline, [start])[start] for each in ("accuracy", "log_loss"))
        return accuracy | {f"loss_{key}": value for key, value in loss.items()}


def table_of(stage: BenchmarkTask) -> list[Row]:
    """Reads ``<name>.csv``, every cell as text; nothing where it is not on record."""
    path = RESULTS / f"{stage.name}.csv"
    return [*read_table(path)] if path.exists() else []


def _planned(stage: Benchmark) -> set[tuple[str, int, int | None]]:
    """Start, seed, and the trial if one is to be chosen, of each run of the finished task."""
    choosing = range(CHOOSING_SEED, CHOOSING_SEED + stage.choosing_seeds)
    paired: set[tuple[str, int, int | None]] = {
        (start, seed, None) for start in stage.starts for seed in range(stage.seeds)
    }
    return paired | {
        (start, seed, trial) for start in stage.starts for seed in choosing for trial in range(stage.trials)
    }


def _trial(stage: Benchmark, row: Row) -> int | None:
    """The setting of a row of the table, by number; none where the start has no paired run."""
    found = row["lr"] and (float(row["lr"]), float(row["weight_decay"]))
    return stage.settings.index(found) if found in stage.settings else None


def _key(row: Row) -> tuple[str, int, int | None]:
    return row["start"], row["seed"], row["trial"] if row["choosing"] else None
