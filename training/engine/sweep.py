"""Sweeps: many runs whose rows are recorded one by one, so that an interrupted sweep resumes with the missing ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dwp_init.storage import remove
from training.engine.records import Row, order_metrics, read_metrics, record_metrics
from training.engine.workers import ONE_PROCESS, Engine, Progress

_Run = TypeVar("_Run")
RowKey = tuple[Any, ...]


class Sweep:
    """Runs what is missing, records each row in ``metrics.jsonl``, and shows one progress bar for all runs.

    It is a context manager, which closes the bar. It may be called several times.

    Args:
        folder: The stage's folder. Rows recorded there are not computed again.
        key: Names of the columns that identify a row.
        total: Number of rows in all.
        each: Units of progress per row.
        engine: Where the runs are made.
        unit: Name of one unit.
        desc: Text in front of the bar.
        members: Maps a run to the keys of the rows that it makes; by default the run is the key of its only row.
            A run is repeated if any of its rows is missing.
        checkpoint: Maps a run to the file from which it resumes, which is removed once its rows are recorded.
        made: Whether everything that a recorded row stands for is still there, such as a file of weights.

    Attributes:
        done: The recorded rows by key.
    """

    def __init__(
        self,
        folder: Path,
        key: tuple[str, ...],
        *,
        total: int,
        each: int = 1,
        engine: Engine = ONE_PROCESS,
        unit: str = "step",
        desc: str = "",
        members: Callable[[Any], Sequence[RowKey]] = lambda run: (run,),
        checkpoint: Callable[[Any], Path] | None = None,
        made: Callable[[Row], bool] = lambda row: True,
    ) -> None:
        self.folder, self.key, self.each, self.engine = folder, key, each, engine
        self.members, self.checkpoint = members, checkpoint
        self.done = {self._key(row): row for row in read_metrics(folder, *key) if made(row)}
        units, done = total * each, len(self.done) * each
        self.bar = tqdm(total=units, initial=done, unit=unit, unit_scale=units >= 1_000_000, desc=desc)

    def __enter__(self) -> "Sweep":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def __call__(self, job: Callable[[_Run, Progress], list[Row]], runs: Sequence[_Run]) -> list[Row]:
        """Runs the job for each run that has a missing row.

        Args:
            job: Returns a row for each key of a run, and reports progress in units; see :class:`Engine`.
            runs: All runs, whether they are recorded or not.

        Returns:
            The rows of all runs, in the order of the runs and of their members.
        """
        missing = [run for run in runs if any(key not in self.done for key in self.members(run))]
        run_of = {key: run for run in missing for key in self.members(run)}
        self.bar.update(-self.each * sum(key in self.done for key in run_of))  # they will be reported again
        for rows in self.engine.run_jobs(job, missing, self._report):
            for row in rows:
                record_metrics(self.folder, **row)
                self.done[self._key(row)] = row
            self._clean(run_of[self._key(rows[0])])
        for run in runs:
            self._clean(run)  # a kill may have left the checkpoint of a recorded run
        rows = [self.done[key] for run in runs for key in self.members(run)]
        order_metrics(self.folder, rows)
        return rows

    def _key(self, row: Row) -> RowKey:
        return tuple(row[name] for name in self.key)

    def _report(self, units: int, note: str = "") -> None:
        self.bar.update(units)
        if note:
            self.bar.set_postfix_str(note)

    def _clean(self, run: Any) -> None:
        if self.checkpoint:
            remove(self.checkpoint(run))
