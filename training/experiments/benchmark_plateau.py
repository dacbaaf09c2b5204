"""Whether the leads of a task of the benchmark last: the same network, trained for several times the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from training.engine.ledger import ledger_file, write_runs
from training.engine.records import RESULTS, Row, print_table, read_table, write_table
from training.engine.stage import GROWS, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.benchmark_table import task_table
from training.experiments.benchmark_task import RUN, BenchmarkTask, Pools
from training.starts.base import check_starts
from training.starts.controls import OWN
from training.starts.natural import NATURAL

_Run = tuple[str, str, str, int, int, bool]  # the values of RUN


@dataclass(frozen=True)
class BenchmarkPlateau(BenchmarkTask):
    """Trains a network from some starts of a task for several times its steps, each at the setting chosen there.

    Records ``<name>_runs.jsonl``, from which ``--from-record`` resumes, and ``<name>.csv``, whose columns are those of
    :func:`training.experiments.benchmark_table.task_table`.

    Args:
        of: Name of the task's stage, which was run in the same folder or is on record.
        starts: Names of starts, among them the model's own.
    """

    of: str = ""
    starts: tuple[str, ...] = field(default=(OWN, NATURAL), metadata=GROWS)

    def check(self) -> None:
        super().check()
        check_starts(self.starts, priors=bool(self.priors), learned=False, batch=True, again=True, files=True)
        if OWN not in self.starts:
            raise ValueError(f"starts must contain {OWN!r}, which the others are compared with; got {self.starts}")

    def replaceable_inputs(self, context: Context) -> dict[str, Any]:
        try:
            trials = self.trials_of_task(context)
        except (FileNotFoundError, ValueError):
            return {}  # not run yet
        return {"trials": trials, "sources": {start: self.source(start, context.data_root) for start in self.starts}}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.engine``."""
        self.check()
        trials, pools = self.trials_of_task(context), self.pools(context)
        setting = self.setting(context, pools)
        runs: list[_Run] = [
            (setting, self.source(start, context.data_root), start, seed, trials[start], False)
            for seed in range(self.seeds)
            for start in self.starts
        ]
        now = {(source, start, trial) for _, source, start, _, trial, _ in runs}

        def of_now(row: Row) -> bool:
            return row["setting"] == setting and (row["source"], row["start"], row["trial"]) in now

        self.take_runs(folder, context, setting, of_now, RUN)
        settings: dict[str, Any] = {"desc": self.name, "each": self.steps, "engine": context.engine, "made": of_now}
        with Sweep(folder, RUN, total=len(runs), **settings) as sweep:
            try:
                sweep(partial(self.run_one, pools), runs)
            finally:
                table = self.summarize(folder, list(sweep.done.values()))
        return {"table": table}

    def run_one(self, pools: Pools, run: _Run, progress: Progress) -> list[Row]:
        """Trains one network; returns its row."""
        row: Row = dict(zip(RUN, run, strict=True))
        _, _, start, seed, trial, _ = run
        network, found = self.train_one(pools, start, seed, trial, progress, curve=True)
        row |= dict(zip(("accuracy", "log_loss"), self.scores(network, pools.test), strict=True))
        return [row | found]

    def summarize(self, folder: Path, rows: Sequence[Row]) -> list[Row]:
        """Records all runs that are there, and their table."""
        if not any(row["start"] == OWN for row in rows):
            return []
        runs = sorted(({"task": self.digest} | row for row in rows), key=lambda row: (row["start"], row["seed"]))
        write_runs(folder / "record" / ledger_file(self.name), runs)
        table = task_table(runs, marks=self.steps_of_marks, steps=self.steps, own=OWN, trials=self.settings)
        write_table(folder / "record" / f"{self.name}.csv", table)
        print_table([{key: row[key] for key in ("start", "accuracy", "over_own", "over_own_95")} for row in table])
        return table

    def trials_of_task(self, context: Context) -> dict[str, int]:
        """Reads from the task's table which setting each start took there, by number.

        Raises:
            FileNotFoundError: The task was not run.
            ValueError: Its table lacks a start.
        """
        here = context.out / self.of / "record" / f"{self.of}.csv"
        path = here if here.exists() else RESULTS / here.name
        taken = {row["start"]: (float(row["lr"]), float(row["weight_decay"])) for row in read_table(path) if row["lr"]}
        for start in self.starts:
            if start not in taken:
                raise ValueError(f"{path} has no finished run of {start!r}; run {self.of} first")
            if taken[start] not in self.settings:
                raise ValueError(
                    f"{path} has {start!r} at {taken[start]}, which is none of {self.settings}; run {self.of} again"
                )
        return {start: self.settings.index(taken[start]) for start in self.starts}
