"""The setting of the optimizer for each start: noise in this choice would pass for a difference between starts."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from training.engine.records import Row


def rule() -> str:
    """Returns a digest of the code of this module: where it changes, a finished task chooses again."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def finalists_of(screening: Sequence[Row], *, trials: int, finalists: int) -> dict[str, list[int]]:
    """Returns by start the trials that get all paired seeds: those of the highest accuracy on held-out images.

    Args:
        screening: Rows with ``start``, ``seed``, ``trial`` and ``held_accuracy``.
        trials: Number of trials to screen, the first ones; a start that lacks a run of one is left out.
        finalists: How many of them to keep; all if there are fewer.

    Raises:
        ValueError: A run is there twice, or its accuracy is not there or not finite.
    """
    screened = [row for row in screening if row["trial"] < trials]
    means = {start: _means(runs) for start, runs in _by_start(screened).items()}
    return {start: [*found.index[:finalists]] for start, found in means.items() if len(found) == trials}


def chosen_trials(rows: Sequence[Row], finalists: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns by start the finalist of the highest mean accuracy on held-out images.

    One run of each trial does not tell the best of several good ones: two starts of one law would then take different
    settings, and differ. So the means are over all runs of the finalists, those of the paired seeds too; where some are
    still missing, over the seeds that all finalists of the start have.

    Args:
        rows: Rows with ``start``, ``seed``, ``trial`` and ``held_accuracy``; those of other trials do not count.
        finalists: See :func:`finalists_of`.

    Raises:
        ValueError: As for :func:`finalists_of`.
    """
    kept = [row for row in rows if row["trial"] in finalists.get(row["start"], ())]
    return {start: int(_means(runs).index[0]) for start, runs in _by_start(kept).items()}


def _by_start(rows: Sequence[Row]) -> dict[str, pd.DataFrame]:
    seen: set[tuple[str, int, int]] = set()
    for row in rows:
        run = (row["start"], row["seed"], row["trial"])
        if run in seen or not math.isfinite(row.get("held_accuracy", math.nan)):
            found = "there twice" if run in seen else f"without held_accuracy, {row.get('held_accuracy')}"
            raise ValueError(f"the run of {run[0]!r}, seed {run[1]}, trial {run[2]} is {found}: make it again")
        seen.add(run)
    return {str(start): runs for start, runs in pd.DataFrame(rows).groupby("start")} if rows else {}


def _means(runs: pd.DataFrame) -> pd.Series:
    """Mean accuracies by trial, best first, over the seeds that all trials have; of equal ones the first trial wins."""
    wide = runs.pivot(index="seed", columns="trial", values="held_accuracy").dropna()
    means: pd.Series = wide.mean().sort_values(ascending=False, kind="stable")
    return means
