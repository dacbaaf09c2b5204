"""Which scale drawn kernels should have by default: today's, that of the weights that are there, or He's response."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

from training.engine.records import Row, print_table, read_done, write_table
from training.engine.stage import Context, Stage
from training.experiments.base import network_for
from training.experiments.benchmark_init import PROBE, BenchmarkInit, SharedParts
from training.experiments.paired import by_mark, curves, half_width, holm, number_ahead, shown
from training.figures.style import add_legend, save_figure
from training.starts.base import KAIMING, initialize_, legend
from training.starts.controls import DEFAULT
from training.starts.priors import DWP_ORTHOGONAL

COMPARED_WITH = (KAIMING, DEFAULT, DWP_ORTHOGONAL)


@dataclass(frozen=True)
class ScaleDefault(BenchmarkInit):
    """Compares scales on networks as their classes make them, or after a user's own initialisation.

    Records, next to the tables of :class:`BenchmarkInit`, ``<name>_pairs.csv``: the paired differences after the last
    step to each of ``COMPARED_WITH``, with 95 % intervals by Student's t, wins, and p-values by Holm's method over the
    starts of the same baseline.

    Args:
        base: How the network starts before its spatial convolutions are drawn: ``PyTorch``'s default, or ``Kaiming``:
            all convolutions normal with He's variance, and no biases.
    """

    base: Literal["PyTorch", "Kaiming"] = "PyTorch"

    def untrained(self, parts: SharedParts, init: str, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = network_for(parts.train, self.network, self.filters)
        if self.base == "Kaiming":
            network.apply(_kaiming_)
        initialize_(network, init, seed, priors=self.priors, batch=parts.train[0][:PROBE].cpu())
        return network

    def summarize(self, folder: Path, tried: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
        summary = super().summarize(folder, tried, rows)
        pairs = pairs_table(rows, self.marks)
        self.record(folder, pairs=pairs)
        print_table(pairs)
        return summary | {"pairs": pairs}


def _kaiming_(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def pairs_table(rows: Sequence[Row], marks: Sequence[int]) -> list[Row]:
    """Compares the last accuracies of every start with those of each baseline that was run, seed by seed, in points."""
    found = {init: values[:, -1] for init, values in curves(by_mark(rows, "accuracy", marks), "accuracy").items()}
    table: list[Row] = []
    for baseline in (each for each in COMPARED_WITH if each in found):
        others = {init: (values - found[baseline]).double() for init, values in found.items() if init != baseline}
        p_values = holm([_p_value(over) for over in others.values()])
        for (init, over), p_value in zip(others.items(), p_values, strict=True):
            table.append(
                {
                    "baseline": baseline,
                    "init": init,
                    "points": shown(over.mean().item(), 3),
                    "points_95": shown(half_width(over), 3),
                    "ahead": number_ahead(over),
                    "seeds": len(over),
                    "p_holm": float(f"{p_value:.3g}"),
                }
            )
    return table


def _p_value(differences: Tensor) -> float:
    """Two-sided p-value of Student's paired t-test; 1 where all differences are 0 or there is only one."""
    n, mean = len(differences), differences.mean().item()
    if n < 2 or mean == 0:
        return 1.0
    error = differences.std().item() / math.sqrt(n)
    return 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else 0.0


@dataclass(frozen=True)
class ScaleSummary(Stage):
    """Puts the pairs of several stages into one table, ``<name>.csv``, and one figure, ``<name>.png``.

    Args:
        needs: The stages of :class:`ScaleDefault`.
        name: Base name of the CSV and PNG files.
    """

    name: str = "scale_default"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        table = [
            {"network": need.removeprefix(f"{self.name}_"), **row}
            for need in self.needs
            for row in read_done(context.out / need)["pairs"]
        ]
        write_table(folder / "record" / f"{self.name}.csv", table)
        plot_pairs(table, folder / "record" / f"{self.name}.png")
        return {"table": table}


def plot_pairs(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws how far each start is ahead of Kaiming's, by network, with 95 % intervals.

    Args:
        table: Rows of :class:`ScaleSummary`.
        path: Path of the PNG.
    """
    figure = Figure(figsize=(9, 4.2))
    axes = figure.subplots()
    networks = list(dict.fromkeys(row["network"] for row in table))
    rows = [row for row in table if row["baseline"] == KAIMING]
    inits = list(dict.fromkeys(row["init"] for row in rows))
    for place, init in enumerate(inits):
        of_init = {networks.index(row["network"]): row for row in rows if row["init"] == init}
        shift = 0.7 * ((place + 0.5) / len(inits) - 0.5)
        label, colour = legend(init)
        points = [row["points"] for row in of_init.values()]
        error = [row["points_95"] or 0.0 for row in of_init.values()]
        axes.errorbar([x + shift for x in of_init], points, error, fmt="o", capsize=2, color=colour, label=label)
    axes.axhline(0, color=legend(KAIMING)[1], linewidth=1)
    axes.set_xticks(range(len(networks)), networks, fontsize=8)
    axes.set(ylabel=f"points over {KAIMING}")
    axes.grid(alpha=0.3)
    add_legend(axes, fontsize=7)
    save_figure(figure, path)
