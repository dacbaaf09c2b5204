"""The table and the figure of a benchmark of starts: paired differences to Kaiming's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.engine.records import Row
from training.experiments.paired import by_mark, curves, first_crossing, half_width, mean_sd, number_ahead, shown
from training.figures.style import add_legend, log_ticks, save_figure
from training.starts.base import KAIMING, legend

AT_START = ("channel_rank", "channel_rank_last", "scale_min", "scale_max")


def benchmark_table(rows: Sequence[Row], marks: Sequence[int]) -> list[Row]:
    """Averages runs over seeds: a row per start and mark.

    ``over_kaiming`` is the mean of the paired differences in points, ``over_kaiming_95`` the half width of its 95 %
    interval by Student's t. ``steps_to_kaiming`` is where the mean curve first reaches Kaiming's mean accuracy after
    the last step, between marks by linear interpolation: at least the first mark, and empty if never. ``reached``
    counts the seeds whose own curve gets as far as Kaiming's of that seed does.
    """
    found = curves(by_mark(rows, "accuracy", marks), "accuracy")
    base = found[KAIMING]
    table = []
    for init, values in found.items():
        runs = [row for row in rows if row["init"] == init]
        steps = first_crossing(marks, values.mean(0).tolist(), base.mean(0)[-1].item())
        reached = int((values.max(1).values >= base[:, -1]).sum())
        for column, step in enumerate(marks):
            over = values[:, column] - base[:, column]
            row: Row = {"init": init, "rate": runs[0]["rate"], "step": step}
            row |= mean_sd("accuracy", values[:, column], sd="sd")
            row |= {"over_kaiming": shown(over.mean().item(), 3), "over_kaiming_95": shown(half_width(over), 3)}
            row |= {"ahead_of_kaiming": number_ahead(over), "steps_to_kaiming": shown(steps, 1), "reached": reached}
            row |= {key: float(f"{sum(run[key] for run in runs) / len(runs):.4g}") for key in AT_START}
            table.append(row | {"seeds": len(values)})
    return table


def plot_benchmark(table: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy over steps, and next to it how far each start is ahead of Kaiming's, with 95 % intervals.

    Args:
        table: Rows of :func:`benchmark_table`.
        path: Path of the PNG.
        title: Title of the figure.
    """
    figure = Figure(figsize=(11, 4.4))
    accuracies, ahead = figure.subplots(1, 2)
    marks = sorted({row["step"] for row in table})
    for init in dict.fromkeys(row["init"] for row in table):
        rows = [row for row in table if row["init"] == init]
        label, colour = legend(init)
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3}
        accuracies.plot(marks, [row["accuracy"] for row in rows], label=label, linewidth=1.2, **style)
        if init != KAIMING:
            error = [row["over_kaiming_95"] or 0.0 for row in rows]
            ahead.errorbar(marks, [row["over_kaiming"] for row in rows], error, capsize=2, linewidth=1.0, **style)
    ahead.axhline(0, color=legend(KAIMING)[1], linewidth=1)
    accuracies.set(ylabel="accuracy, %")
    ahead.set(ylabel=f"points over {KAIMING}")
    for axes in (accuracies, ahead):
        axes.set(xlabel="steps")
        axes.grid(alpha=0.3)
        log_ticks(axes, marks)
    add_legend(accuracies, fontsize=7)
    figure.suptitle(title)
    save_figure(figure, path)
