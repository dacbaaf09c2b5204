"""How far from its plateau a task of the benchmark ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.engine.records import RESULTS, Row, print_table, read_table, write_table
from training.engine.stage import Context
from training.experiments.benchmark_task import BenchmarkTask, Pools
from training.starts.controls import OWN


@dataclass(frozen=True)
class BenchmarkPlateau(BenchmarkTask):
    """Trains a network from its own start once, for several times the steps of a task, at the setting chosen there.

    Records ``<name>.csv``: the accuracy and the log loss at the end, next to those of the task.

    Args:
        of: Name of the task's stage, which was run in the same folder or is on record.
    """

    of: str = ""

    @property
    def ledger(self) -> str:
        return ""  # its one run is in its table

    def replaceable_inputs(self, context: Context) -> dict[str, Any]:
        try:
            task = self.own_of_task(context)
        except (FileNotFoundError, ValueError):
            return {}  # not run yet
        return {"of": task, "source": self.source(OWN, context)}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains the network, in this process, unless that was done at the setting that the task chooses by now."""
        self.check()
        task, pools = self.own_of_task(context), self.pools(context)
        run = {"setting": self.setting(context, pools), "source": self.source(OWN, context)}
        run |= {key: task[key] for key in ("lr", "weight_decay")}
        path = folder / "record" / f"{self.name}.csv"
        made = [path, RESULTS / path.name] if context.from_record else [path]
        rows = [row for each in made if each.exists() for row in read_table(each) if run.items() <= row.items()]
        found = rows[0] if rows else self._trained(pools, task)
        row: Row = {"task": self.of, "start": OWN, "steps": self.steps, **run}
        row |= {key: float(found[key]) for key in ("accuracy", "log_loss", "train_s")}  # a table has text
        row |= {"task_accuracy": task["accuracy"], "task_log_loss": task["log_loss"]}
        write_table(path, [row])
        print_table([row])
        return {"table": [row]}

    def _trained(self, pools: Pools, task: Mapping[str, str]) -> Row:
        trial = self.settings.index((float(task["lr"]), float(task["weight_decay"])))
        with tqdm(total=self.steps, unit="step", desc=self.name) as bar:
            network, found = self.train_one(pools, OWN, 0, trial, bar.update, curve=False)
        accuracy, log_loss = self.scores(network, pools.test)
        return {"accuracy": accuracy, "log_loss": log_loss, "train_s": found["train_s"]}

    def own_of_task(self, context: Context) -> dict[str, str]:
        """Reads the row of the model's own start in the task's table.

        Raises:
            FileNotFoundError: The task was not run.
            ValueError: Its table has no row of that start.
        """
        here = context.out / self.of / "record" / f"{self.of}.csv"
        path = here if here.exists() else RESULTS / here.name
        rows = [row for row in read_table(path) if row["start"] == OWN]
        if not rows or not rows[0]["lr"]:
            raise ValueError(f"{path} has no finished run of {OWN!r}; run {self.of} first")
        return rows[0]
