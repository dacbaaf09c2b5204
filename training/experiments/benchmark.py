"""The benchmark of starts: paired seeds, settings of AdamW that held-out images choose, against the model's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from training.engine.ledger import take_runs, write_runs
from training.engine.options import check_counts
from training.engine.records import RESULTS, Row, print_table, write_table
from training.engine.stage import GROWS, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.benchmark_table import task_table
from training.experiments.benchmark_task import RUN, BenchmarkTask, Pools
from training.experiments.choice import chosen_trials, rule
from training.experiments.verdict import Role
from training.starts.base import check_starts
from training.starts.controls import OWN

CHOOSING_SEED = 1000  # the first seed of the runs that choose settings

_Run = tuple[str, str, str, int, int, bool]  # the values of RUN


@dataclass(frozen=True)
class Benchmark(BenchmarkTask):
    """Trains a network from each start on paired seeds, at the setting of AdamW that held-out images choose.

    Runs of one seed have the same images in the same order, and differ in the spatial convolutions alone, unless a
    start says otherwise. Records ``<name>_runs.jsonl``, from which ``--from-record`` resumes, and ``<name>.csv``. More
    starts or seeds add runs to a finished task; a start whose source changed is trained again, and so is one for which
    another rule of choice takes another setting.

    Args:
        role: Whether the task may choose a default, or is kept to confirm what others chose.
        starts: Names of starts, among them the model's own.
        choosing_seeds: Runs of each setting to choose by; their seeds are not those of the paired runs.
    """

    role: Role = field(default="choose", metadata=GROWS)
    starts: tuple[str, ...] = field(default=(OWN,), metadata=GROWS)
    choosing_seeds: int = field(default=2, metadata=GROWS)

    def check(self) -> None:
        super().check()
        check_counts(choosing_seeds=self.choosing_seeds)
        check_starts(self.starts, priors=bool(self.priors), learned=False, batch=True, again=True, files=True)
        if self.role not in get_args(Role):
            raise ValueError(f"role must be one of {', '.join(get_args(Role))}; got {self.role!r}")
        if OWN not in self.starts:
            raise ValueError(f"starts must contain {OWN!r}, which the others are compared with; got {self.starts}")
        if self.seeds > CHOOSING_SEED:
            raise ValueError(f"seeds from {CHOOSING_SEED} choose settings; got {self.seeds} paired ones")

    def replaceable_inputs(self, context: Context) -> dict[str, Any]:
        return {"sources": {start: self.source(start, context) for start in self.starts}, "choice": rule()}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.workers`` processes: first to choose the settings, then at these."""
        self.check()
        pools, setting = self.pools(context), self.setting(context)
        sources = self.replaceable_inputs(context)["sources"]
        for start in self.starts:  # so that what cannot be drawn is refused before anything is trained
            self.begin(pools, start, 0)

        def of_now(row: Row) -> bool:
            return bool(row["setting"] == setting and row["source"] == sources.get(row["start"]))

        if context.from_record:
            taken = take_runs(RESULTS / self.ledger, folder, of_now, lambda row: tuple(map(row.get, RUN)))
            print(f"{self.name}: {taken} runs are taken from the results of record")
        choosing, total = self.choosing(setting, sources), len(self.starts) * self.seeds
        settings: dict[str, Any] = {"desc": self.name, "each": self.steps, "workers": context.workers, "made": of_now}
        job = partial(self.run_one, pools)
        best: dict[str, int] = {}
        with Sweep(folder, RUN, total=total + len(choosing), **settings) as sweep:
            try:
                best |= chosen_trials(sweep(job, choosing))
                for_each = [(start, seed) for seed in range(self.seeds) for start in self.starts]
                sweep(job, [(setting, sources[start], start, seed, best[start], False) for start, seed in for_each])
            finally:
                table = self.summarize(folder, list(sweep.done.values()), best)
        return {"table": table}

    def choosing(self, setting: str, sources: dict[str, str]) -> list[_Run]:
        """Returns the runs that choose the settings."""
        seeds = range(CHOOSING_SEED, CHOOSING_SEED + self.choosing_seeds)
        return [
            (setting, sources[start], start, seed, trial, True)
            for seed in seeds
            for start in self.starts
            for trial in range(self.trials)
        ]

    def run_one(self, pools: Pools, run: _Run, progress: Progress) -> list[Row]:
        """Trains one network; returns its row, on held-out images where a setting is to be chosen."""
        row = dict(zip(RUN, run, strict=True))
        _, _, start, seed, trial, choosing = run
        network, found = self.train_one(pools, start, seed, trial, progress, curve=not choosing)
        accuracy, log_loss = self.scores(network, pools.held_out if choosing else pools.test)
        return [row | {"accuracy": accuracy, "log_loss": log_loss} | found]

    def summarize(self, folder: Path, rows: Sequence[Row], best: Mapping[str, int]) -> list[Row]:
        """Records all runs that are there, and the table of the paired ones at the chosen settings."""
        if not rows:  # interrupted before the first run: the record stays as it is
            return []
        runs = sorted(rows, key=lambda row: (not row["choosing"], row["start"], row["seed"], row["trial"]))
        write_runs(folder / "record" / self.ledger, runs)
        paired = [row for row in runs if not row["choosing"] and row["trial"] == best.get(row["start"])]
        if not any(row["start"] == OWN for row in paired):
            return []
        table = task_table(paired, marks=self.steps_of_marks, steps=self.steps, own=OWN, trials=self.settings)
        write_table(folder / "record" / f"{self.name}.csv", table)
        shown = ("start", "accuracy", "over_own", "over_own_95", "p_own")
        print_table([{key: row[key] for key in shown} for row in table])
        return table
