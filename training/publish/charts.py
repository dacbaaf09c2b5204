"""Charts of the documentation site: densities of priors, and the accuracy of networks that start from them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from training.experiments.paired import by_mark, curves, half_widths
from training.figures.svg import ACCENT, FAINTER, bare, svg_of, web_ink
from training.publish import results
from training.publish.benchmark_record import OnRecord
from training.publish.details import Metrics
from training.starts.base import legend
from training.starts.controls import OWN

_WIDTH = 5.0  # inches


class KnownDensity(NamedTuple):
    """Log p of held-out kernels under one density, in nats per kernel, and its standard error; NaN if unknown."""

    name: str
    log_prob: float
    error: float
    ours: bool


def densities_of(name: str, metrics: Metrics) -> list[KnownDensity]:
    """Returns the densities that a prior is compared with: all families of its table of record, or a Gaussian."""
    size = results.size_of_record(name)
    if size is not None:
        rows = results.densities(size).values()
        columns = [(row["prior"], float(row["log_prob"]), float(row["standard_error"])) for row in rows]
        return [KnownDensity(*column, ours=column[0] == name) for column in columns]
    known = [
        ("this prior, depth known", metrics.log_prob_at_depth),
        ("this prior", metrics.log_prob),
        ("Gaussian for each depth", metrics.gaussian_log_prob_at_depth),
        ("Gaussian", metrics.gaussian_log_prob),
    ]
    return [
        KnownDensity(title, value, math.nan, title.startswith("this")) for title, value in known if value is not None
    ]


def density_chart(densities: Sequence[KnownDensity], label: str) -> str:
    """Draws densities as points with standard errors, the best above; more to the right is better."""
    found = sorted(densities, key=lambda each: each.log_prob)
    with web_ink():
        figure = Figure(figsize=(_WIDTH, 0.7 + 0.24 * len(found)))
        axes = figure.subplots()
        for place, each in enumerate(found):
            colour = ACCENT if each.ours else FAINTER
            error = each.error if math.isfinite(each.error) else 0.0
            axes.errorbar(each.log_prob, place, xerr=error, fmt="o", color=colour, markersize=6, linewidth=1.6)
        axes.set_yticks(range(len(found)), [each.name for each in found])
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.margins(x=0.08)
        axes.set_xlabel("log p of held-out kernels, nats per kernel")
        bare(axes)
        return svg_of(figure, label)


def curve_chart(values: Mapping[str, Tensor], marks: Sequence[float], title: str, label: str) -> str:
    """Draws mean curves with the 95 % interval of the mean as a band.

    Args:
        values: Accuracies ``(seeds, marks)`` in %, by start.
        marks: Steps of training.
        title: Title of the chart.
        label: What a reader who does not see it is told.
    """
    with web_ink():
        figure = Figure(figsize=(3.4, 2.5))
        axes = figure.subplots()
        for name, each in values.items():
            mean, half = each.mean(0), half_widths(each.T)
            shown, colour = legend(name)
            (line,) = axes.plot(
                marks, mean, color=ACCENT if name == next(iter(values)) else colour or FAINTER, label=shown
            )
            axes.fill_between(marks, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("steps")
        axes.set_ylabel("test accuracy, %")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        bare(axes)
        return svg_of(figure, label)


def first_steps_chart(init: str, label: str) -> str:
    """Draws how the paper's network trains on MNIST from a prior and from Kaiming's initialisation."""
    rows = [
        row | {"seed": int(row["seed"]), "step": int(row["step"]), "accuracy": float(row["accuracy"])}
        for row in results.read_record("converge_mnist_runs")
        if row["init"] in (init, "Kaiming")
    ]
    found = curves(rows, "accuracy")
    marks = sorted({row["step"] for row in rows})
    return curve_chart({name: found[name] for name in (init, "Kaiming")}, marks, "the paper's network, MNIST", label)


def over_own_chart(tasks: Sequence[OnRecord], start: str, label: str) -> str:
    """Draws how far a start is ahead of the model's own, a line for each task, with 95 % intervals."""
    rows = [(each, row) for each in reversed(tasks) for row in each.task.table if row["start"] == start]
    with web_ink() as ink:
        figure = Figure(figsize=(_WIDTH, 0.7 + 0.24 * len(rows)))
        axes = figure.subplots()
        for place, (_, row) in enumerate(rows):
            points, error = float(row["over_own"]), float(row["over_own_95"])
            axes.errorbar(points, place, xerr=error, fmt="o", color=ACCENT, markersize=6, linewidth=1.6)
        axes.axvline(0, color=ink, linewidth=1.2)
        axes.set_yticks(range(len(rows)), [_short(each) for each, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("accuracy over the model's own start, points")
        bare(axes)
        return svg_of(figure, label)


class TaskCurves(NamedTuple):
    """The name of a task, what its chart shows, and the chart as SVG."""

    task: str
    label: str
    svg: str


def task_curves(tasks: Sequence[OnRecord], start: str) -> list[TaskCurves]:
    """Draws the curves of a start and of the model's own, a chart for each task."""
    charts: list[TaskCurves] = []
    for each in tasks:
        marks = each.stage.steps_of_marks
        rows = [row | {"init": row["start"]} for row in each.compared if row["start"] in (start, OWN)]
        found = curves(by_mark(rows, "curve", marks), "curve")
        label = f"{_short(each)}: test accuracy over steps from {start} and from the model's own start"
        svg = curve_chart({name: found[name] for name in (start, OWN)}, marks, _short(each), label)
        charts.append(TaskCurves(each.task.name, label, svg))
    return charts


def _short(each: OnRecord) -> str:
    return each.task.name.removeprefix("bench_").replace("_", " ")
