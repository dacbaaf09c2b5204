"""Initialisations side by side: the learning rate of each, paired differences to Kaiming's, a table and a figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from training.experiments.paired import paired_interval
from training.experiments.steps_to import first_crossing
from training.figures.experiments import ALL_COLOURS
from training.figures.style import log_ticks, save_figure
from training.starts.fills import DEFAULT, DWP, DWP_ORTHOGONAL, KAIMING, XAVIER
from training.starts.inits import DELTA, DWP_CENTRED, DWP_LSUV, GAUSSIAN, LEARNED, LSUV, NOISE, ORTHOGONAL

BASELINE = KAIMING
AT_START = ("channel_rank", "channel_rank_last", "scale_min", "scale_max")
COLOURS = {init: ALL_COLOURS[init] for init in (DWP, DWP_ORTHOGONAL, KAIMING, XAVIER, DEFAULT)} | {
    DWP_CENTRED: "#f1948a",
    DWP_LSUV: "#6e2c00",
    NOISE: "#7f8c8d",
    ORTHOGONAL: "#2471a3",
    DELTA: "#5dade2",
    LSUV: "#8e44ad",
    GAUSSIAN: "#d68910",
    LEARNED: "#16a085",
}


def best_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns by initialisation the rate of the highest mean accuracy after the last step; of equal ones the lowest."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        found.setdefault(row["init"], {}).setdefault(row["rate"], []).append(row["accuracy"][-1])
    return {
        init: max(by_rate, key=lambda rate: (sum(by_rate[rate]) / len(by_rate[rate]), -rate))
        for init, by_rate in found.items()
    }


def summary(rows: Sequence[Mapping[str, Any]], marks: Sequence[int]) -> list[dict[str, Any]]:
    """Averages runs over seeds: a row per initialisation and mark.

    ``over_kaiming`` is the mean of the paired differences in points, ``over_kaiming_95`` the half width of its 95 %
    interval by Student's t. ``steps_to_kaiming`` is where the mean curve first reaches Kaiming's mean accuracy after
    the last step, between marks by linear interpolation: the first mark at the least, and empty if never.
    ``reached`` counts the seeds whose own curve gets as far as Kaiming's of that seed does.
    """
    by_init: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        by_init.setdefault(row["init"], {})[row["seed"]] = row
    curves = {init: torch.tensor([run["accuracy"] for run in runs.values()]) for init, runs in by_init.items()}
    base = curves[BASELINE]
    table = []
    for init, runs in by_init.items():
        steps = first_crossing(marks, curves[init].mean(0).tolist(), base.mean(0)[-1].item())
        reached = (curves[init].max(1).values >= base[:, -1]).sum().item()
        at_start = {key: _mean([run[key] for run in runs.values()]) for key in AT_START}
        for column, step in enumerate(marks):
            values, over = curves[init][:, column], (curves[init] - base)[:, column]
            mean, half_width = paired_interval(over.tolist())
            table.append(
                {
                    "init": init,
                    "rate": next(iter(runs.values()))["rate"],
                    "step": step,
                    "accuracy": round(values.mean().item(), 3),
                    "sd": round(values.std().item(), 3) if len(values) > 1 else "",
                    "over_kaiming": round(mean, 3),
                    "over_kaiming_95": "" if math.isnan(half_width) else round(half_width, 3),
                    "ahead_of_kaiming": int((over > 0).sum()),
                    "steps_to_kaiming": "" if math.isnan(steps) else round(steps, 1),
                    "reached": reached,
                    **at_start,
                    "seeds": len(values),
                }
            )
    return table


def _mean(values: list[float]) -> float:
    return float(f"{sum(values) / len(values):.4g}")


def plot_benchmark(table: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy over steps, and beside it how far each initialisation is ahead of Kaiming's, with 95 % intervals.

    Args:
        table: Rows of :func:`summary`.
        path: Where the PNG goes.
        title: Of the figure.
    """
    figure = Figure(figsize=(11, 4.4))
    curves, ahead = figure.subplots(1, 2)
    for init in dict.fromkeys(row["init"] for row in table):
        rows = [row for row in table if row["init"] == init]
        steps, style = [row["step"] for row in rows], {"color": COLOURS[init], "marker": "o", "markersize": 3}
        curves.plot(steps, [row["accuracy"] for row in rows], label=init, linewidth=1.2, **style)
        if init != BASELINE:
            error = [row["over_kaiming_95"] or 0.0 for row in rows]
            over = [row["over_kaiming"] for row in rows]
            ahead.errorbar(steps, over, error, capsize=2, linewidth=1.0, **style)
    ahead.axhline(0, color=COLOURS[BASELINE], linewidth=1)
    curves.set(ylabel="accuracy, %")
    ahead.set(ylabel=f"points over {BASELINE}")
    for axes in (curves, ahead):
        axes.set(xlabel="steps")
        log_ticks(axes, steps)
        axes.grid(alpha=0.3)
    curves.legend(loc="lower right", fontsize=7)
    figure.suptitle(title)
    save_figure(figure, path)
