"""The benchmark of starts: paired seeds, settings of AdamW that held-out images choose, against the model's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from dwp_init.storage import remove
from training.engine.ledger import ledger_file, write_runs
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import GROWS, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.benchmark_table import task_table
from training.experiments.benchmark_task import RUN, BenchmarkTask, Pools
from training.experiments.choice import chosen_trials, finalists_of, rule
from training.experiments.judged_task import Role
from training.starts.base import check_starts
from training.starts.controls import OWN

CHOOSING_SEED = 1000  # of the runs that screen the settings

_Run = tuple[str, str, str, int, int, bool]  # the values of RUN


@dataclass(frozen=True)
class Benchmark(BenchmarkTask):
    """Trains a network from each start on paired seeds, and compares them at settings that held-out images choose.

    Runs of one seed have the same images in the same order, and differ in the spatial convolutions alone, unless a
    start says otherwise. Records ``<name>_runs.jsonl``, from which ``--from-record`` resumes, and ``<name>.csv``. Each
    run of record has the digest of the task's fields, by which the page knows those of other fields. More starts, seeds
    or finalists add runs to a finished task; a start whose source changed is trained again, and so is one for which
    another rule of choice takes another finalist.

    Args:
        role: Whether the task may choose a default, or is kept to confirm what others chose.
        starts: Names of starts, among them the model's own.
        finalists: Number of settings that are run at all paired seeds. One run of each setting screens them, and all
            runs of the finalists choose between these, see :func:`training.experiments.choice.chosen_trials`.
    """

    role: Role = field(default="choose", metadata=GROWS)
    starts: tuple[str, ...] = field(default=(OWN,), metadata=GROWS)
    finalists: int = field(default=2, metadata=GROWS)

    def check(self) -> None:
        super().check()
        check_counts(finalists=self.finalists)
        check_starts(self.starts, priors=bool(self.priors), learned=False, batch=True, again=True, files=True)
        if self.role not in get_args(Role):
            raise ValueError(f"role must be one of {', '.join(get_args(Role))}; got {self.role!r}")
        if OWN not in self.starts:
            raise ValueError(f"starts must contain {OWN!r}, which the others are compared with; got {self.starts}")
        if self.seeds > CHOOSING_SEED:
            raise ValueError(f"seed {CHOOSING_SEED} screens the settings; got {self.seeds} paired ones")

    def replaceable_inputs(self, context: Context) -> dict[str, Any]:
        return {"sources": {start: self.source(start, context.data_root) for start in self.starts}, "choice": rule()}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.engine``: all settings with one seed, then the finalists."""
        self.check()
        pools = self.pools(context)
        setting = self.setting(context, pools)
        sources = self.replaceable_inputs(context)["sources"]
        for start in self.starts:  # so that what cannot be drawn is refused before anything is trained
            self.begin(pools, start, 0)

        def of_now(row: Row) -> bool:
            return bool(row["setting"] == setting and row["source"] == sources.get(row["start"]))

        self.take_runs(folder, context, setting, of_now, RUN)
        screening = [(setting, sources[start], start, CHOOSING_SEED, trial, True) for start, trial in self.to_screen]
        settings: dict[str, Any] = {"desc": self.name, "each": self.steps, "engine": context.engine, "made": of_now}
        job = partial(self.run_one, pools)
        with Sweep(folder, RUN, total=self.planned, **settings) as sweep:
            try:
                finalists = self.finalists_of(sweep(job, screening))
                paired = [(start, seed) for seed in range(self.seeds) for start in self.starts]
                trials = ((start, seed, trial) for start, seed in paired for trial in finalists[start])
                sweep(job, [(setting, sources[run[0]], *run, False) for run in trials])
            finally:
                table = self.summarize(folder, list(sweep.done.values()))
        return {"table": table}

    @property
    def to_screen(self) -> list[tuple[str, int]]:
        """Start and trial of the runs that screen the settings."""
        return [(start, trial) for start in self.starts for trial in range(self.trials)]

    @property
    def planned(self) -> int:
        """Number of runs of the finished task."""
        return len(self.to_screen) + len(self.starts) * self.seeds * min(self.finalists, self.trials)

    def finalists_of(self, rows: Sequence[Row]) -> dict[str, list[int]]:
        """Returns by start the settings that all paired seeds are run at, from the runs that screen."""
        return finalists_of([row for row in rows if row["choosing"]], trials=self.trials, finalists=self.finalists)

    def compared(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the paired runs at the settings that the runs so far choose."""
        chosen = chosen_trials(rows, self.finalists_of(rows))
        return [row for row in rows if not row["choosing"] and row["trial"] == chosen.get(row["start"])]

    def run_one(self, pools: Pools, run: _Run, progress: Progress) -> list[Row]:
        """Trains one network; returns its row, with test images only if it is one of the paired runs."""
        row: Row = dict(zip(RUN, run, strict=True))
        _, _, start, seed, trial, choosing = run
        network, found = self.train_one(pools, start, seed, trial, progress, curve=not choosing)
        row |= dict(zip(("held_accuracy", "held_log_loss"), self.scores(network, pools.held_out), strict=True))
        if not choosing:
            row |= dict(zip(("accuracy", "log_loss"), self.scores(network, pools.test), strict=True))
        return [row | found]

    def summarize(self, folder: Path, rows: Sequence[Row]) -> list[Row]:
        """Records all runs that are there, and the table of the paired ones at the chosen settings."""
        if not rows:  # interrupted before the first run: the record stays as it is
            return []
        runs = [{"task": self.digest} | row for row in rows]
        runs.sort(key=lambda row: (not row["choosing"], row["start"], row["seed"], row["trial"]))
        write_runs(folder / "record" / ledger_file(self.name), runs)
        compared, path = self.compared(runs), folder / "record" / f"{self.name}.csv"
        if not any(row["start"] == OWN for row in compared):
            remove(path)  # one of runs that no longer count
            return []
        table = task_table(compared, marks=self.steps_of_marks, steps=self.steps, own=OWN, trials=self.settings)
        write_table(path, table)
        shown = ("start", "accuracy", "over_own", "over_own_95", "p_own")
        print_table([{key: row[key] for key in shown} for row in table])
        return table
