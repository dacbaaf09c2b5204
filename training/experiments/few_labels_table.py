"""Tables and figures of classification from few labels: averages over splits, accuracy over labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from training.engine.records import Row
from training.experiments.few_labels import DETERMINISTIC, DWP_PRIOR, FROM_DWP, PRIORS
from training.experiments.paired import mean_sd
from training.figures.style import log_ticks, save_figure

ENSEMBLE_SCORES = ("accuracy", "accuracy_mean_weights", "accuracy_one_sample", "nll", "brier", "ece", "ood_auroc")
SHOWN = ("size", "prior", "init", "accuracy", "accuracy_sd", "over_dwp", "over_dwp_sd", "nll", "ece")
SETTINGS = ("steps", "temperature")


def average_splits(rows: Sequence[Row], scores: Sequence[str] = ENSEMBLE_SCORES) -> list[Row]:
    """Averages runs over splits: a row per size, prior and initialisation, with mean and sd of each score.

    ``over_dwp`` is how far the accuracy is above that of dwp from dwp on the same splits, in points; empty where that
    was not run.
    """
    found: dict[tuple[int, str, str], dict[int, Row]] = {}
    for row in rows:
        found.setdefault((row["size"], row["prior"], row["init"]), {})[row["split"]] = row
    table = []
    for (size, prior, init), runs in found.items():
        row = {"size": size, "prior": prior, "init": init}
        row |= {key: value for key, value in next(iter(runs.values())).items() if key in SETTINGS}
        row |= {"over_dwp": "", "over_dwp_sd": ""}
        reference = found.get((size, DWP_PRIOR, FROM_DWP), {})
        values = {name: torch.tensor([run[name] for run in runs.values()]) for name in scores}
        if reference.keys() == runs.keys():
            row |= mean_sd(
                "over_dwp", values["accuracy"] - torch.tensor([reference[split]["accuracy"] for split in runs]), 4
            )
        for name, value in values.items():
            row |= mean_sd(name, value, 4)
        table.append(row | {"splits": len(runs)})
    return table


def plot_few_labels(table: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy over the number of labels, as in Fig. 2: a line per prior, a panel per initialisation.

    Args:
        table: Rows with ``size``, ``prior``, ``init``, ``accuracy`` and ``accuracy_sd`` in %.
        path: Path of the PNG.
        title: Title of the figure.
    """
    inits, priors, sizes = (dict.fromkeys(row[key] for row in table) for key in ("init", "prior", "size"))
    figure = Figure(figsize=(5.4 * len(inits), 4.4))
    panels = figure.subplots(1, len(inits), sharey=True, squeeze=False).flatten()
    for axes, init in zip(panels, inits, strict=True):
        for prior in priors:
            rows = [row for row in table if (row["prior"], row["init"]) == (prior, init)]
            style: dict[str, Any] = {"color": PRIORS[prior].colour if prior in PRIORS else None}
            style |= {"linestyle": "--" if prior == DETERMINISTIC else "-", "marker": "o", "markersize": 3}
            error = [row["accuracy_sd"] or 0.0 for row in rows]
            if rows:
                mean = [row["accuracy"] for row in rows]
                axes.errorbar([row["size"] for row in rows], mean, error, capsize=2, **style, label=prior)
        log_ticks(axes, sorted(sizes))
        axes.grid(alpha=0.3)
        axes.set(xlabel="labelled images", title=f"from {init}")
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)


def spread_table(rows: Sequence[Row]) -> list[Row]:
    """Averages over splits how wide the posterior of each layer is in the course of training.

    A row per size, prior, initialisation, step and layer: ``scale``, the geometric mean of the standard deviations, and
    ``entropy`` in nats per weight. Empty for deterministic networks alone.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for spread in row["spreads"]:
            key = (*(row[name] for name in ("size", "prior", "init")), spread["step"], spread["layer"])
            found.setdefault(key, []).append(spread)
    table = []
    for key, spreads in found.items():
        row = dict(zip(("size", "prior", "init", "step", "layer"), key, strict=True))
        for name, digits in (("scale", 5), ("entropy", 4)):
            row |= mean_sd(name, torch.tensor([spread[name] for spread in spreads]), digits)
        table.append(row | {"splits": len(spreads)})
    return table
