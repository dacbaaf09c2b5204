"""Pictures of record of the experiments, drawn from results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from training.figures.style import add_legend, log_ticks, plot_band, save_figure

COLOURS = {
    "dwp": "#c0392b",
    "dwp, orthogonal": "#e67e22",
    "scale mixture": "#c0392b",
    "learned kernels, He's RMS": "#2471a3",
    "dense VAE": "#8e44ad",
    "Gaussian prior": "#d68910",
    "Kaiming": "#1e8449",
    "white noise, dwp's RMS": "#7f8c8d",
    "Xavier": "#17202a",
}
ALL_COLOURS = COLOURS | {
    "dwp, prior's scale": "#e6b0aa",
    "white noise, prior's scale": "#bdc3c7",
    "learned kernels, own scale": "#5dade2",
    "PyTorch default": "#b7950b",
}
PAPERS_COLOURS = {"dwp": COLOURS["dwp"], "filters": COLOURS["learned kernels, He's RMS"], "xavier": COLOURS["Xavier"]}
PRIOR_COLOURS = {
    "dwp": "#c0392b",
    "dwp-fixed": "#e6b0aa",
    "mixture": "#8e44ad",
    "gaussian": "#d68910",
    "log-uniform": "#1e8449",
    "log-uniform-authors": "#52be80",
    "standard-normal": "#2471a3",
    "normal": "#5dade2",
    "deterministic": "#17202a",
}


def plot_convergence(
    found: Mapping[str, Tensor],
    marks: Sequence[int],
    path: Path,
    title: str = "MNIST: the paper's ConvNet, by initialisation",
) -> None:
    """Draws accuracy over steps, mean and standard deviation over seeds, in the manner of Fig. 4(b).

    Only the initialisations of ``COLOURS`` are drawn, for more lines would hide each other; the tables have all.

    Args:
        found: Accuracies in %, ``(seeds, marks)``, by initialisation.
        marks: The steps.
        path: Where the PNG goes.
        title: Of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init in [init for init in COLOURS if init in found]:
        plot_band(axes, marks, found[init], init, COLOURS[init], marker="o", markersize=3)
    axes.set(xlabel="steps", ylabel="accuracy, %", title=title)
    ticks = marks if len(marks) <= 10 else [mark for mark in (5, 10, 20, 50, 100, 200, 500, 1000) if mark <= marks[-1]]
    log_ticks(axes, ticks)
    add_legend(axes)
    save_figure(figure, path)


def plot_steps(
    curves: Mapping[str, Tensor],
    marks: Sequence[int],
    levels: Sequence[float],
    paper: Mapping[str, Mapping[float, float]],
    path: Path,
    ylabel: str,
    title: str,
) -> None:
    """Draws what is measured over steps, mean and standard deviation over seeds, in the manner of Fig. 4.

    Args:
        curves: ``(seeds, marks)``, by initialisation.
        marks: The steps.
        levels: What is to be reached; the axis begins a little below the lowest.
        paper: The steps to levels in the paper, by its initialisations: faint markers.
        path: Where the PNG goes.
        ylabel: Of the axis.
        title: Of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init, curve in curves.items():
        plot_band(axes, marks, curve, init, ALL_COLOURS.get(init), linewidth=1.2)
    for label, steps in paper.items():
        axes.plot(*_points({step: level for level, step in steps.items()}), "x", **_faint(label))
    highest = max(max(levels), *(curve.max().item() for curve in curves.values()))
    margin = 0.05 * (highest - min(levels)) or 1.0
    axes.set(xlabel="steps", ylabel=ylabel, title=title, ylim=(min(levels) - 2 * margin, highest + margin))
    add_legend(axes, fontsize=7)
    save_figure(figure, path)


def plot_scales(
    found: Mapping[str, Mapping[float, Tensor]],
    paper: Mapping[str, Mapping[float, tuple[float, float]]],
    path: Path,
    title: str,
) -> None:
    """Draws accuracy over the scale of the layers' widths, mean and standard deviation, in the manner of Fig. 3.

    Args:
        found: Accuracies in %, ``(seeds,)``, by initialisation and scale.
        paper: Mean and standard deviation in the paper, by its initialisation and scale: faint markers.
        path: Where the PNG goes.
        title: Of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init, by_scale in found.items():
        mean = [values.mean().item() for values in by_scale.values()]
        sd = [values.std(correction=0).item() for values in by_scale.values()]
        style = {"marker": "o", "markersize": 3, "capsize": 2, "linewidth": 1.2}
        axes.errorbar(list(by_scale), mean, sd, color=ALL_COLOURS.get(init), label=init, **style)
    for label, by_scale in paper.items():
        axes.plot(*_points({scale: mean for scale, (mean, _) in by_scale.items()}), "x", **_faint(label))
    ticks = sorted({scale for by_scale in found.values() for scale in by_scale})
    log_ticks(axes, ticks, [f"1/{1 / tick:g}" if tick < 1 else f"{tick:g}" for tick in ticks], base=2)
    axes.set(xlabel="scale k of the numbers of filters", ylabel="test accuracy, %", title=title)
    add_legend(axes, fontsize=7)
    save_figure(figure, path)


def _points(line: Mapping[float, float]) -> tuple[list[float], list[float]]:
    return list(line), list(line.values())


def _faint(label: str) -> dict[str, Any]:
    return {"color": PAPERS_COLOURS[label], "alpha": 0.4, "markersize": 5, "label": f"the paper's {label}"}


def plot_samples(samples: Mapping[str, Mapping[int, Tensor]], path: Path) -> None:
    """Draws samples of image models at several steps, a row per initialisation, in the manner of Fig. 7.

    Args:
        samples: Pixels ``(n, 1, h, w)`` in [0, 1], by initialisation and step.
        path: Where the PNG goes.
    """
    columns = len(next(iter(samples.values())))
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(samples)))
    panels = figure.subplots(len(samples), columns, squeeze=False)
    for row, (init, by_step) in zip(panels, samples.items(), strict=True):
        row[0].set_ylabel(init)
        for axes, (step, images) in zip(row, by_step.items(), strict=True):
            grid = make_grid(images, nrow=round(len(images) ** 0.5), padding=1, pad_value=0.5)
            axes.imshow(grid[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=f"{step} steps")
    save_figure(figure, path)


def plot_few_labels(table: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy over the number of labels, in the manner of Fig. 2: a line per prior, a panel per initialisation.

    Args:
        table: Rows with ``size``, ``prior``, ``init``, ``accuracy`` and ``accuracy_sd`` in %.
        path: Where the PNG goes.
        title: Of the figure.
    """
    inits = list(dict.fromkeys(row["init"] for row in table))
    priors = list(dict.fromkeys(row["prior"] for row in table))
    sizes = sorted({row["size"] for row in table})
    figure = Figure(figsize=(5.4 * len(inits), 4.4))
    panels = figure.subplots(1, len(inits), sharey=True, squeeze=False).flatten()
    for axes, init in zip(panels, inits, strict=True):
        there = {(row["prior"], row["init"]) for row in table}
        for prior in [prior for prior in priors if (prior, init) in there]:
            rows = [row for row in table if (row["prior"], row["init"]) == (prior, init)]
            mean = [row["accuracy"] for row in rows]
            error = [row["accuracy_sd"] or 0.0 for row in rows]
            style = {"color": PRIOR_COLOURS.get(prior), "linestyle": "--" if prior == "deterministic" else "-"}
            axes.errorbar(
                [row["size"] for row in rows], mean, error, marker="o", markersize=3, capsize=2, **style, label=prior
            )
        log_ticks(axes, sizes)
        axes.grid(alpha=0.3)
        axes.set(xlabel="labelled images", title=f"from {init}")
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)
