"""Steps that networks need to reach a level of accuracy or of the ELBO (Section 4.3, Fig. 4), next to the paper's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.engine.records import Row, print_table, read_config, read_done, read_metrics, write_table
from training.engine.stage import Context, Stage
from training.experiments.paired import by_mark, curves, first_crossing, mean_sd, shown
from training.experiments.paper import CALLED, STEPS_TO, plot_paper
from training.figures.style import add_legend, plot_band, save_figure
from training.starts.base import KAIMING, legend
from training.starts.controls import XAVIER

MEASURED = {"accuracy": "accuracy, %", "elbo": "ELBO, nats per image"}
PRINTED = ("init", "level", "steps", "steps_sd", "reached", "faster_than_xavier", "faster_than_kaiming", "paper_steps")


@dataclass(frozen=True)
class StepsTo(Stage):
    """Reads the curves of paired runs and finds where each first reaches each level.

    Records ``<name>.csv``, ``<name>_runs.csv`` and ``<name>.png``. A mean is given only if every seed reached the
    level. The factors over Xavier and Kaiming are means, over seeds, of ratios of steps.

    Args:
        needs: The stage with the runs, of :class:`training.experiments.converge.Converge` or
            :class:`training.experiments.vae_converge.VAEConverge`.
        name: Base name of the CSV and PNG files.
        measure: ``accuracy`` in %, or ``elbo`` in nats.
        levels: What is to be reached.
        figure: The figure of ``training.experiments.paper.STEPS_TO`` to compare with; none if empty.
        title: Title of the picture.
    """

    needs: tuple[str, ...] = ("converge",)
    name: str = "steps_to"
    measure: str = "accuracy"
    levels: tuple[float, ...] = (92.0, 94.0, 95.0, 96.0, 97.0, 98.0)
    figure: str = ""
    title: str = "MNIST: the paper's ConvNet"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        self._check()
        source = context.out / self.needs[0]
        rows = read_metrics(source)
        if not all(self.measure in row for row in rows):
            there = ", ".join(sorted({key for row in rows for key in row} - {"init", "seed"})) or "none"
            raise ValueError(f"the runs of {self.needs[0]} have no {self.measure!r}; they have {there}")
        inits = list(dict.fromkeys(row["init"] for row in read_done(source)["table"]))
        rows = sorted(rows, key=lambda row: (inits.index(row["init"]), row["seed"]))
        marks = read_config(source)["settings"]["marks"]
        runs = by_mark(rows, self.measure, marks)
        table, steps = steps_tables(runs, self.measure, self.levels, self.figure)
        record = folder / "record"
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", steps)
        labels = {"ylabel": MEASURED[self.measure], "title": self.title}
        paper = STEPS_TO.get(self.figure, {})
        plot_steps(curves(runs, self.measure), marks, self.levels, paper, record / f"{self.name}.png", **labels)
        print_table([{key: row[key] for key in PRINTED} for row in table])
        return {"table": table}

    def _check(self) -> None:
        if len(self.needs) != 1:
            raise ValueError(f"needs names the one stage with the runs; got {len(self.needs)}: {self.needs}")
        if self.measure not in MEASURED:
            raise ValueError(f"measure must be one of {', '.join(MEASURED)}; got {self.measure!r}")
        if self.figure and self.figure not in STEPS_TO:
            raise ValueError(f"figure must be one of {', '.join(STEPS_TO)}, or empty; got {self.figure!r}")
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must rise, each once; got {self.levels}")


def steps_tables(
    runs: Sequence[Row], measure: str, levels: Sequence[float], figure: str = ""
) -> tuple[list[Row], list[Row]]:
    """Finds the steps to each level, by interpolation.

    Args:
        runs: A row per run and mark.
        measure: Column of what is measured.
        levels: What is to be reached.
        figure: The paper's figure to compare with; none if empty.

    Returns:
        A table of means over seeds, a row per initialisation and level, and a table with a row per run and level.
    """
    marks, seeds = (sorted({row[key] for row in runs}) for key in ("step", "seed"))
    steps = {
        init: torch.tensor([[first_crossing(marks, curve.tolist(), level) for level in levels] for curve in values])
        for init, values in curves(runs, measure, dtype=torch.float64).items()
    }
    table = [_row(init, level, column, steps, figure) for init in steps for column, level in enumerate(levels)]
    flat = [
        {"init": init, "seed": seed, "level": level, "steps": shown(found[place, column].item(), 1)}
        for init, found in steps.items()
        for place, seed in enumerate(seeds)
        for column, level in enumerate(levels)
    ]
    return table, flat


def _row(init: str, level: float, column: int, steps: Mapping[str, Tensor], figure: str) -> Row:
    found = steps[init][:, column]
    row: Row = {"init": init, "level": level, **mean_sd("steps", found, digits=1)}
    row["reached"] = int(found.isfinite().sum())
    for label, baseline in (("xavier", XAVIER), ("kaiming", KAIMING)):
        over = steps[baseline][:, column] / found if baseline in steps else torch.tensor([math.nan])
        row |= mean_sd(f"faster_than_{label}", over, digits=2)
    paper = STEPS_TO.get(figure, {})
    theirs = paper.get(CALLED.get(init, ""), {}).get(level, math.nan)
    faster = paper.get("xavier", {}).get(level, math.nan) / theirs
    return row | {"paper_steps": shown(theirs, 1), "paper_faster_than_xavier": shown(faster, 2), "seeds": len(found)}


def plot_steps(
    found: Mapping[str, Tensor],
    marks: Sequence[int],
    levels: Sequence[float],
    paper: Mapping[str, Mapping[float, float]],
    path: Path,
    ylabel: str,
    title: str,
) -> None:
    """Draws what is measured over steps, mean and standard deviation over seeds, as in Fig. 4.

    Args:
        found: ``(seeds, marks)``, by initialisation.
        marks: The steps.
        levels: What is to be reached; the axis begins a little below the lowest.
        paper: The steps to levels in the paper, by its initialisations: faint markers.
        path: Path of the PNG.
        ylabel: Label of the axis.
        title: Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init, curve in found.items():
        label, colour = legend(init)
        plot_band(axes, marks, curve, label, colour, linewidth=1.2)
    for name, steps in paper.items():
        plot_paper(axes, name, {step: level for level, step in steps.items()})
    highest = max(max(levels), *(curve.max().item() for curve in found.values()))
    margin = 0.05 * (highest - min(levels)) or 1.0
    axes.set(xlabel="steps", ylabel=ylabel, title=title, ylim=(min(levels) - 2 * margin, highest + margin))
    add_legend(axes, fontsize=7)
    save_figure(figure, path)
