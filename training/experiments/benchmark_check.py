"""Whether the benchmark finds differences where there are none, and how small a difference it can find."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from training.engine.ledger import ledger_file, write_runs
from training.engine.records import Row, print_table, write_table
from training.engine.stage import GROWS, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.benchmark_task import BenchmarkTask, Pools
from training.experiments.false_positives import false_positives
from training.starts.controls import OTHER_DRAWS, OWN

BANK = ("setting", "start", "seed", "trial")
_PAIRED, _FINALISTS = 8, (1, 2, 3, 5)  # paired runs of a comparison; settings that they are run at
_Run = tuple[str, str, int, int]


@dataclass(frozen=True)
class BenchmarkCheck(BenchmarkTask):
    """Trains a network from its own start, twice per seed with other draws, at all settings, and compares the two.

    Both arms follow the same law, so every difference that is found is a false positive. Records ``<name>_runs.jsonl``
    and ``<name>.csv``: by what the setting is chosen, and among how many finalists, the share of comparisons of 8
    paired seeds with p < 0.05 and the half width of their 95 % interval, over random parts of the bank.
    """

    seeds: int = field(default=_PAIRED + 1, metadata=GROWS)

    def check(self) -> None:
        super().check()
        if self.seeds <= _PAIRED:
            raise ValueError(
                f"seeds must be at least {_PAIRED + 1}: one to screen the settings, and {_PAIRED} to compare; "
                f"got {self.seeds}"
            )

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.engine``."""
        self.check()
        pools = self.pools(context)
        setting = self.setting(context, pools)

        def of_now(row: Row) -> bool:
            return bool(row["setting"] == setting)

        self.take_runs(folder, context, setting, of_now, BANK)
        arms, trials = (OWN, OTHER_DRAWS), range(self.trials)
        runs = [(setting, arm, seed, trial) for seed in range(self.seeds) for trial in trials for arm in arms]
        settings: dict[str, Any] = {"desc": self.name, "each": self.steps, "engine": context.engine, "made": of_now}
        with Sweep(folder, BANK, total=len(runs), **settings) as sweep:
            try:
                rows = sweep(partial(self.run_one, pools), runs)
            finally:
                if sweep.done:
                    made = sorted(sweep.done.values(), key=lambda row: (row["seed"], row["trial"], row["start"]))
                    write_runs(folder / "record" / ledger_file(self.name), made)
        table = false_positives(rows, seeds=_PAIRED, finalists=[count for count in _FINALISTS if count <= self.trials])
        write_table(folder / "record" / f"{self.name}.csv", table)
        print_table(table)
        return {"table": table}

    def run_one(self, pools: Pools, run: _Run, progress: Progress) -> list[Row]:
        """Trains one network; returns its scores on held-out and on test images."""
        row = dict(zip(BANK, run, strict=True))
        _, arm, seed, trial = run
        network, _ = self.train_one(pools, arm, seed, trial, progress, curve=False)
        for prefix, images in (("held_", pools.held_out), ("", pools.test)):
            row |= dict(zip((f"{prefix}accuracy", f"{prefix}log_loss"), self.scores(network, images), strict=True))
        return [row]
