"""Figures of all tasks of the benchmark at once: how far each start is ahead of the model's own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from training.experiments.judged_task import Task
from training.experiments.paired import LEVEL
from training.experiments.verdict import possible_use
from training.figures.style import log_ticks, save_figure
from training.starts.base import legend, start_names
from training.starts.controls import OWN
from training.starts.natural import NATURAL

TASK_PARTS = ("few labels", "all labels", "frozen kernels")
WIDTH = 9.0  # inches
LEGEND_COLUMNS = 5  # of the legend
INK, FAINT = "#333333", "#d9d9d9"
EMPHASISED, POSSIBLE_DEFAULT, YARDSTICK = "D", "o", "s"  # markers
NOT_TESTED = "#d5d8dc"  # face of a marker
RATIOS = (0.2, 0.25, 0.33, 0.5, 0.67, 1, 1.5, 2, 3, 4, 6, 10)  # ticks


class Point(NamedTuple):
    """A start in a task.

    Args:
        value: By how much it is better than the model's own start; NaN if that is unknown.
        half_width: Half width of the 95 % interval; NaN where there is none.
        differs: Whether it differs by its adjusted p-value; ``None`` where that was not tested.
        marker: The marker, which says whether the start may be a default.
    """

    value: float
    half_width: float
    differs: bool | None
    marker: str

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, or the value itself."""
        side = self.half_width if math.isfinite(self.half_width) else 0.0
        return self.value - side, self.value + side


@dataclass(frozen=True)
class Panel:
    """One measure of all tasks.

    Args:
        title: Its title.
        value: Column of the table.
        half_width: Column of the half width of its 95 % interval; none if empty.
        p_value: Column of its adjusted p-value; none if empty.
        sign: -1 if less is better, so that better is on the right of every panel.
        ratio: Whether it is a ratio to the model's own start, less than 1 if better, on a logarithmic axis.
    """

    title: str
    value: str
    half_width: str = ""
    p_value: str = ""
    sign: int = 1
    ratio: bool = False

    @property
    def level(self) -> float:
        """Where the model's own start is."""
        return 1.0 if self.ratio else 0.0

    def read(self, task: Task, row: Mapping[str, Any]) -> Point:
        """Reads a row of the table of a task.

        A start that never got to the target, or that diverged, is infinitely worse.
        """
        value, half_width, p_value = (_number(row, key) for key in (self.value, self.half_width, self.p_value))
        never = row["target"] != "" if self.ratio else row["over_own"] != "" and int(row["diverged"]) > 0
        if math.isnan(value) and never:
            value = self.sign * -math.inf
        elif self.ratio:
            value = 1 / value
        use = possible_use(row["start"], row["trained_on"], task.data)
        marker = EMPHASISED if row["start"] == NATURAL else POSSIBLE_DEFAULT if use == "default" else YARDSTICK
        return Point(self.sign * value, half_width, p_value < LEVEL if self.p_value else None, marker)


def _number(row: Mapping[str, Any], key: str) -> float:
    return float(row[key]) if key and row[key] != "" else math.nan


OVER_OWN = (
    Panel("accuracy over the model's own start, points", "over_own", "over_own_95", "p_own"),
    Panel("log loss below its, nats", "loss_over_own", "loss_over_own_95", sign=-1),
)
TO_TARGET = (
    Panel("times faster than the model's own, in steps", "steps_ratio", ratio=True),
    Panel("in seconds, initialising included", "seconds_ratio", ratio=True),
)


def plot_tasks(tasks: Sequence[Task], path: Path, panels: Sequence[Panel] = OVER_OWN) -> None:
    """Draws all starts in all tasks that were run, a line per task, with 95 % intervals; better is to the right.

    Args:
        tasks: The tasks.
        path: Path of the PNG.
        panels: What to draw next to each other: ``OVER_OWN``, or ``TO_TARGET``.

    Raises:
        ValueError: No task was run.
    """
    run = [task for part in TASK_PARTS for task in tasks if task.part == part and task.table]
    if not run:
        raise ValueError(f"none of {len(tasks)} tasks has a table; run the recipe benchmark first")
    places = _places(run)
    found = {panel: _points(panel, run) for panel in panels}
    markers = {name: point.marker for (_, name), point in found[panels[0]].items()}
    heights = [places[run[-1].name][1] + 0.5, 0.17 * math.ceil((len(markers) + 5) / LEGEND_COLUMNS) + 0.1]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4))
    grid = figure.add_gridspec(2, len(panels), height_ratios=heights)
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        _draw(axes, panel, found[panel], places)
        _label_tasks(axes, run, places, named=column == 0)
    figure.add_subplot(grid[1, :]).axis("off")  # room for the legend
    _add_marks(figure, markers)
    save_figure(figure, path)


def _points(panel: Panel, tasks: Sequence[Task]) -> dict[tuple[str, str], Point]:
    """By task and start the points of a panel, those of one task in the order of ``STARTS``."""
    rows = [(task, row) for task in tasks for row in sorted(task.table, key=_place) if row["start"] != OWN]
    return {(task.name, row["start"]): panel.read(task, row) for task, row in rows}


def _place(row: Mapping[str, Any]) -> int:
    names = start_names()
    return names.index(row["start"]) if row["start"] in names else len(names)


def _places(tasks: Sequence[Task]) -> dict[str, tuple[float, float]]:
    """Top and bottom of the line of each task, in inches below the top; parts have a line for their name."""
    places, y, part = {}, 0.0, ""
    for task in tasks:
        y += 0.28 if task.part != part else 0.0
        height = 0.17 + 0.024 * len(task.table)
        places[task.name], y, part = (y, y + height), y + height, task.part
    return places


def _draw(
    axes: Axes,
    panel: Panel,
    found: Mapping[tuple[str, str], Point],
    places: Mapping[str, tuple[float, float]],
) -> None:
    low, high = _range(panel, found)
    for task, (top, bottom) in places.items():
        there = {name: point for (of, name), point in found.items() if of == task}
        for place, (name, point) in enumerate(there.items()):
            _mark(axes, name, top + 0.06 + (place + 0.5) / len(there) * (bottom - top - 0.12), point, (low, high))
    axes.axvline(panel.level, color=legend(OWN)[1], linewidth=1.6, zorder=1)
    axes.set_xlim(low, high)
    if panel.ratio:
        ticks = [tick for tick in RATIOS if low <= tick <= high]
        log_ticks(axes, ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(panel.title, fontsize=9, color=INK)


def _range(panel: Panel, found: Mapping[tuple[str, str], Point]) -> tuple[float, float]:
    """Where the axis begins and ends: the intervals of ``natural`` are inside, and nearly all of the others."""
    known = [point for point in found.values() if math.isfinite(point.value)]
    every = sorted(end for point in known for end in point.ends)
    skipped = len(every) // 40
    of_emphasised = [end for point in known for end in point.ends if point.marker == EMPHASISED]
    ends = [panel.level, *every[skipped : len(every) - skipped], *of_emphasised]
    if panel.ratio:
        return min(ends) / 1.15, max(ends) * 1.15
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


def _mark(axes: Axes, name: str, y: float, point: Point, ends: tuple[float, float]) -> None:
    """Draws one start in one task; ``natural`` is larger and in front."""
    if math.isnan(point.value):
        return
    colour, first = legend(name)[1], point.marker == EMPHASISED
    style: dict[str, Any] = {"color": colour, "linestyle": "", "zorder": 5 if first else 3}
    if not ends[0] <= point.value <= ends[1]:
        edge, marker = (ends[0], "<") if point.value < ends[0] else (ends[1], ">")
        axes.plot([edge], [y], marker=marker, markersize=7 if first else 4, clip_on=False, **style)
        return
    width, alpha = (2.2, 1.0) if first else (0.8, 0.55)
    axes.plot(point.ends, [y, y], color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=2)
    faces = {True: colour, False: "white", None: NOT_TESTED}
    style |= {"markerfacecolor": faces[point.differs], "markersize": 7 if first else 3.2}
    axes.plot([point.value], [y], marker=point.marker, **style)


def _label_tasks(axes: Axes, tasks: Sequence[Task], places: Mapping[str, tuple[float, float]], named: bool) -> None:
    """Adds the names of tasks and parts, and a faint band behind every second task."""
    part = ""
    for place, task in enumerate(tasks):
        top, bottom = places[task.name]
        if place % 2 == 0:
            axes.axhspan(top, bottom, color=INK, alpha=0.04, linewidth=0)
        if named and task.part != part:
            where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            style: dict[str, Any] = {"ha": "right", "fontsize": 9.5, "fontweight": "bold", "color": INK}
            axes.annotate(task.part, (0, top), (-6, 3), **where, **style)
        part = task.part
    labels = [task.name.removeprefix("bench_").replace("_", " ") for task in tasks]
    centres = [sum(places[task.name]) / 2 for task in tasks]
    axes.set_yticks(centres, labels if named else [""] * len(tasks))
    axes.set_ylim(places[tasks[-1].name][1] + 0.02, 0)
    axes.tick_params(length=0, pad=6, colors=INK, labelsize=8.5)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _add_marks(figure: Figure, markers: Mapping[str, str]) -> None:
    """Says what the colours and the markers mean."""
    handles = [Line2D([], [], color=legend(OWN)[1], linewidth=1.6, label=legend(OWN)[0])]
    for name in sorted(markers, key=lambda name: markers[name] != EMPHASISED):
        label, colour = legend(name)
        size = 7 if markers[name] == EMPHASISED else 4
        handles.append(_handle(label, marker=markers[name], markersize=size, linewidth=0.8, color=colour))
    handles += [
        _handle("may be a default", marker=POSSIBLE_DEFAULT),
        _handle("yardstick only", marker=YARDSTICK),
        _handle("level (Holm)", marker=POSSIBLE_DEFAULT, markerfacecolor="white"),
        _handle("not tested", marker=POSSIBLE_DEFAULT, markerfacecolor=NOT_TESTED),
        _handle("off the axis, or diverged", marker="<"),
    ]
    style: dict[str, Any] = {"fontsize": 8, "frameon": False, "labelcolor": INK, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="lower center", ncols=LEGEND_COLUMNS, **style)


def _handle(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **{"color": "#7f8c8d", "linewidth": 0, "markersize": 4, **style})
