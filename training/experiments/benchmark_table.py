"""The table of one task of the benchmark: what each start reaches, and how far it is ahead of the baselines.

Differences are paired by seed: of two starts only the seeds that both have finished are compared. A run that diverged
has a log loss that is not finite. It counts with its accuracy. The cells with the mean log loss of its start are left
empty, because there is no such mean, and ``diverged`` is the number of such runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.engine.records import Row
from training.experiments.paired import (
    bootstrap_levels,
    first_crossing,
    half_width,
    holm,
    mean_sd,
    number_ahead,
    p_value,
    seeds_needed,
    shown,
)
from training.starts.base import KAIMING, find_start, start_names
from training.starts.whole import KAIMING_TOO

Runs = Mapping[str, pd.DataFrame]
"""By start the paired runs, a line per seed in rising order."""

RESAMPLES, FEWEST_SEEDS = 2000, 5  # of the bootstrap
NUMBERS = ("trial", "accuracy", "log_loss", "init_s", "train_s", "drawn")


def task_table(
    rows: Sequence[Row], *, marks: Sequence[int], steps: int, own: str, trials: Sequence[tuple[float, float]]
) -> list[Row]:
    """Makes the table of a task from its runs of record: a row per start, in the order of ``STARTS``.

    Over the baseline ``own``, and likewise over ``kaiming``, by whose law all convolutions are drawn if the task has
    such a start: ``over_own`` is the mean paired difference in points of accuracy, ``over_own_95`` the half width of
    its 95 % interval by Student's t, and ``wins_own`` and ``losses_own`` are the seeds ahead and behind; ties are
    neither. ``p_own`` is the p-value of the paired t-test, adjusted by Holm's method over the starts of the task.
    ``seeds_needed_own`` is how many seeds it would take until the interval leaves out 0; it is empty if the interval
    does so already. ``loss_over_own`` and ``loss_over_own_95`` are those of the log loss, in nats. It is not tested,
    because settings of the same accuracy differ in it.

    ``area`` is the mean accuracy over the steps from the first mark to the last, by the trapezoidal rule. ``target`` is
    the mean over seeds of the accuracy at which the curves of ``own`` end. The mean curve of a start first gets there
    at ``steps_to_target``, between marks by linear interpolation, or at the first mark already; ``seconds_to_target``
    are the CPU seconds until then: the start's median of initialising, because the first use of a package takes
    longer, and the steps times the median seconds of a step over all runs of the task. The networks are the same, so
    that differences of their seconds are those of the machine's load. ``steps_ratio`` and ``seconds_ratio`` divide by
    those of ``own``; ``steps_ratio_low`` and ``steps_ratio_high`` are the 95 % interval by the expanded percentile
    bootstrap over 5 or more seeds that both have, ``inf`` where the target is not reached. ``reached`` counts the seeds
    whose own curve gets there. Cells without a value are empty.

    Args:
        rows: Runs of record, of a finished or an unfinished task.
        marks: Steps at which the curves were measured.
        steps: Steps of one run.
        own: The start of the model itself.
        trials: Learning rate and weight decay, by number of the trial.

    Raises:
        ValueError: A start has two runs of one seed, runs of several trials, or a curve that does not fit the marks.
    """
    runs = paired_runs(rows, marks)
    baselines = {"own": own, "kaiming": KAIMING_TOO if KAIMING_TOO in runs else KAIMING}
    over = {label: compare_starts(runs, "accuracy", baseline) for label, baseline in baselines.items()}
    loss, area = (compare_starts(runs, measure, own) for measure in ("log_loss", "area"))
    speed = _to_target(runs, marks, steps, own)
    table = []
    for start, found in runs.items():
        row = _reached(start, found, trials)
        for label, compared in over.items():
            row |= _named(compared[start], f"over_{label}", f"_{label}")
        kept = {key: value for key, value in loss[start].items() if key in ("over", "over_95")}
        row |= {f"loss_{key}": value for key, value in _named(kept, "over_own", "_own").items()}
        row |= {"area": _mean(found["area"], 3)}
        row |= {"area_over_own": area[start]["over"], "area_over_own_95": area[start]["over_95"]}
        ends: Row = {"drawn": _mean(found["drawn"], 4), "diverged": _diverged(found), "seeds": len(found)}
        table.append(row | speed[start] | ends)
    return table


def paired_runs(rows: Sequence[Row], marks: Sequence[int]) -> Runs:
    """Sorts runs of record by start and seed; those that chose settings are left out.

    Adds ``area`` to each, see :func:`task_table`. A start that has runs of the other kind only gets no line.

    Raises:
        ValueError: A start has two runs of one seed, runs of several trials, or a curve that does not fit the marks.
    """
    order = start_names()
    starts = {row["start"] for row in rows}
    known = [start for start in order if start in starts]
    return {start: _runs_of(start, rows, marks) for start in (*known, *sorted(starts.difference(known)))}


def _runs_of(start: str, rows: Sequence[Row], marks: Sequence[int]) -> pd.DataFrame:
    final = sorted((row for row in rows if row["start"] == start and not row["choosing"]), key=lambda row: row["seed"])
    seeds, trials = [row["seed"] for row in final], sorted({row["trial"] for row in final})
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"each seed of {start!r} must have one run; got seeds {seeds}: keep the runs of one setting")
    if len(trials) > 1:
        raise ValueError(f"all runs of {start!r} must be of one trial; got {trials}: keep those of the chosen one")
    for row in final:
        if len(row["curve"]) != len(marks):
            raise ValueError(
                f"the curve of {start!r}, seed {row['seed']}, must have a value for each of the {len(marks)} marks; "
                f"got {len(row['curve'])}: give the marks of its stage"
            )
    columns: dict[str, Any] = {key: np.array([row[key] for row in final], dtype=np.float64) for key in NUMBERS}
    columns["curve"] = [row["curve"] for row in final]
    columns["area"] = np.array([_area(curve, marks) for curve in columns["curve"]], dtype=np.float64)
    frame: pd.DataFrame = pd.DataFrame(columns, index=seeds)
    return frame


def _area(curve: Sequence[float], marks: Sequence[int]) -> float:
    if len(marks) < 2:
        return math.nan
    return torch.trapezoid(torch.tensor(curve).double(), torch.tensor(marks)).item() / (marks[-1] - marks[0])


def compare_starts(runs: Runs, measure: str, baseline: str, among: Sequence[str] = ()) -> dict[str, Row]:
    """Compares every start with a baseline on the seeds that both have.

    Args:
        runs: The paired runs.
        measure: ``accuracy``, ``log_loss`` or ``area``.
        baseline: The start to compare with.
        among: The starts to compare, over which p-values are adjusted by Holm's method; all if empty.

    Returns:
        By start ``over``, ``over_95``, ``wins``, ``losses``, ``p`` and ``seeds_needed``, see :func:`task_table`. All
        are empty for the baseline and without common seeds.
    """
    over = {start: _differences(runs, measure, start, baseline) for start in among or runs}
    tested = {start: p_value(found) for start, found in over.items() if len(found) > 1 and found.isfinite().all()}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {start: _compared(found, adjusted.get(start), digits=_DIGITS[measure]) for start, found in over.items()}


_DIGITS = {"accuracy": 3, "log_loss": 5, "area": 3}


def _differences(runs: Runs, measure: str, start: str, baseline: str) -> Tensor:
    if start == baseline or baseline not in runs:
        return torch.empty(0)
    ours, theirs = runs[start][measure], runs[baseline][measure]
    seeds = ours.index.intersection(theirs.index)
    return torch.tensor((ours[seeds] - theirs[seeds]).to_numpy(), dtype=torch.float64)


def _compared(over: Tensor, adjusted: float | None, digits: int) -> Row:
    names = ("over", "over_95", "wins", "losses", "p", "seeds_needed")
    if not len(over):
        return dict.fromkeys(names, "")
    width, n = half_width(over), seeds_needed(over)
    values = (
        shown(over.mean().item(), digits),
        shown(width, digits),
        number_ahead(over),
        number_ahead(-over),
        "" if adjusted is None else float(f"{adjusted:.3g}"),
        "" if n is None or n <= len(over) else n,
    )
    return dict(zip(names, values, strict=True))


def _named(compared: Row, over: str, ending: str) -> Row:
    """Renames the columns of a comparison, such as ``over_95`` to ``over_own_95`` and ``p`` to ``p_own``."""
    return {key.replace("over", over) if "over" in key else key + ending: value for key, value in compared.items()}


def _reached(start: str, found: pd.DataFrame, trials: Sequence[tuple[float, float]]) -> Row:
    record = find_start(start)
    rate, decay = trials[int(found["trial"].iloc[0])] if len(found) else ("", "")
    row: Row = {"start": start, "trained_on": record.trained_on if record else "", "lr": rate, "weight_decay": decay}
    return row | mean_sd("accuracy", _tensor(found["accuracy"])) | {"log_loss": _mean(found["log_loss"], 5)}


def _tensor(values: pd.Series) -> Tensor:
    return torch.tensor(values.to_numpy(), dtype=torch.float64)


def _mean(values: pd.Series, digits: int) -> float | str:
    return shown(float(values.mean(skipna=False)), digits)


def _diverged(found: pd.DataFrame) -> int:
    return int((~np.isfinite(found["log_loss"])).sum())


def _to_target(runs: Runs, marks: Sequence[int], steps: int, own: str) -> dict[str, Row]:
    """Finds where the curves reach the mean accuracy at which those of ``own`` end."""
    target = _mean_curve(runs[own])[-1] if own in runs and len(runs[own]) else math.nan
    between = {
        start: _ratio_interval(frame, runs[own], marks) if own in runs else ("", "") for start, frame in runs.items()
    }
    a_step = float(pd.concat([frame["train_s"] for frame in runs.values()]).median()) / steps
    found = {start: _steps_and_seconds(frame, marks, a_step, target) for start, frame in runs.items()}
    own_steps, own_seconds = found.get(own, (math.nan, math.nan))
    return {
        start: {
            "target": shown(target, 3),
            "steps_to_target": shown(at, 1),
            "seconds_to_target": shown(seconds, 3),
            "steps_ratio": shown(at / own_steps, 3),
            "steps_ratio_low": between[start][0],
            "steps_ratio_high": between[start][1],
            "seconds_ratio": shown(seconds / own_seconds, 3),
            "reached": sum(max(curve) >= target for curve in runs[start]["curve"]) if math.isfinite(target) else "",
        }
        for start, (at, seconds) in found.items()
    }


def _ratio_interval(found: pd.DataFrame, own: pd.DataFrame, marks: Sequence[int]) -> tuple[float | str, float | str]:
    """The interval of the ratio of steps to the target, over paired seeds; empty for own and for fewer than 5."""
    seeds = found.index.intersection(own.index)
    if found is own or len(seeds) < FEWEST_SEEDS:
        return "", ""
    ours, theirs = (np.array(frame["curve"][seeds].tolist()) for frame in (found, own))
    picked = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    ratios = [_steps_ratio(ours[each].mean(0), theirs[each].mean(0), marks) for each in picked]
    low, high = np.quantile(ratios, bootstrap_levels(len(seeds)), method="nearest")
    return round(float(low), 3), round(float(high), 3)


def _steps_ratio(ours: NDArray[np.float64], own: NDArray[np.float64], marks: Sequence[int]) -> float:
    """How many times the steps of own it takes to get where own ends; infinite if that is not reached."""
    at, own_at = (first_crossing(marks, curve.tolist(), own[-1]) for curve in (ours, own))
    return at / own_at if math.isfinite(at) else math.inf


def _mean_curve(found: pd.DataFrame) -> list[float]:
    return [math.fsum(values) / len(values) for values in zip(*found["curve"], strict=True)]


def _steps_and_seconds(found: pd.DataFrame, marks: Sequence[int], a_step: float, target: float) -> tuple[float, float]:
    if not len(found):
        return math.nan, math.nan
    at = first_crossing(marks, _mean_curve(found), target)
    return at, float(found["init_s"].median()) + a_step * at
