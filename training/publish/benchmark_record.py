"""A task of the benchmark as it is on record: its table, what is missing, and comparisons of two of its starts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from training.engine.ledger import ledger_file, read_runs
from training.engine.records import RESULTS, Row, read_table
from training.experiments.benchmark import Benchmark
from training.experiments.benchmark_table import compare_starts, paired_runs
from training.experiments.benchmark_task import BenchmarkTask
from training.experiments.judged_task import Task, task_of
from training.starts.base import STARTS


@dataclass(frozen=True)
class OnRecord:
    """A task and what is on record of it.

    Args:
        stage: Its stage.
        task: The task with its table, every cell as text; an empty one where nothing is recorded.
        runs: Its runs of record.
    """

    stage: Benchmark
    task: Task
    runs: Sequence[Row]

    @classmethod
    def read(cls, stage: Benchmark) -> "OnRecord":
        """Reads ``<name>.csv`` and ``<name>_runs.jsonl``, where they are."""
        return cls(stage, task_of(stage, table_of(stage)), read_runs(RESULTS / ledger_file(stage.name)))

    @cached_property
    def missing(self) -> int:
        """Number of runs that are still to be made."""
        finalists = self.stage.finalists_of(self.runs)
        screened = {(row["start"], row["trial"]) for row in self.runs if row["choosing"]}
        paired = {(row["start"], row["seed"], row["trial"]) for row in self.runs if not row["choosing"]}
        wanted = {
            (start, seed, trial)
            for start in self.stage.starts
            for seed in range(self.stage.seeds)
            for trial in finalists.get(start, ())
        }
        return self.stage.planned - len(screened.intersection(self.stage.to_screen)) - len(paired & wanted)

    @cached_property
    def compared(self) -> list[Row]:
        """The paired runs at the chosen settings."""
        return self.stage.compared(self.runs)

    @property
    def is_current(self) -> bool:
        """Whether the table is of the runs at the settings that they choose, made as the task says and alike.

        The starts must be as they are now.

        Starts that draw from files must be from one source; which one it is now is not known without the files.
        """
        counts = Counter((row["start"], *self.stage.settings[row["trial"]]) for row in self.compared)
        shown = {
            (row["start"], float(row["lr"]), float(row["weight_decay"])): int(row["seeds"])
            for row in self.task.table
            if row["lr"]
        }
        sources = {(row["start"], row["source"]) for row in self.runs if row["start"] in self.stage.starts}
        known = {start for start in self.stage.starts if not STARTS[start].files}
        now = {(start, _source_of(start, self.stage)) for start in known}
        alike = now <= sources and len(sources) == len(self.stage.starts)
        made = {(row.get("task"), row["setting"]) for row in self.runs}
        return shown == counts and alike and len(made) == 1 and made.pop()[0] == self.stage.digest

    @cached_property
    def finished(self) -> bool:
        """Whether all runs are on record, and their table."""
        return bool(self.task.table) and not self.missing and self.is_current

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
        runs = paired_runs(self.compared, self.stage.steps_of_marks)
        accuracy, loss = (compare_starts(runs, each, baseline, [start])[start] for each in ("accuracy", "log_loss"))
        return accuracy | {f"loss_{key}": loss[key] for key in ("over", "over_95")}


def _source_of(start: str, stage: BenchmarkTask) -> str | None:
    """What a start draws from by now; ``None`` if its priors are no longer there."""
    try:
        return stage.source(start, None)
    except ValueError:
        return None


def are_of_now(stage: BenchmarkTask) -> bool:
    """Whether the starts of the runs of record draw from what they draw from by now.

    Of those that draw from files this is not known without the files.
    """
    runs = read_runs(RESULTS / ledger_file(stage.name))
    made = {(row["start"], row["source"]) for row in runs if not STARTS[row["start"]].files}
    return all(source == _source_of(start, stage) for start, source in made)


def table_of(stage: BenchmarkTask) -> list[Row]:
    """Reads ``<name>.csv``, every cell as text; nothing where it is not on record."""
    path = RESULTS / f"{stage.name}.csv"
    return [*read_table(path)] if path.exists() else []
