"""Pictures of record, drawn from results."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dwp_init import Prior
from dwp_init.files import write_bytes
from dwp_init.picture import kernel_sheet

COLOURS = {
    "dwp": "#c0392b",
    "learned kernels, He's RMS": "#2471a3",
    "Gaussian prior": "#d68910",
    "Kaiming": "#1e8449",
    "white noise, dwp's RMS": "#7f8c8d",
    "Xavier": "#17202a",
}


def plot_convergence(found: Mapping[str, Tensor], marks: Sequence[int], path: Path) -> None:
    """Draws test accuracy over steps, mean and standard deviation over seeds, in the manner of Fig. 4(b).

    Args:
        found: Accuracies in %, ``(seeds, marks)``, by initialisation.
        marks: The steps.
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init, colour in COLOURS.items():
        mean, sd = found[init].mean(0), found[init].std(0, correction=0)
        axes.plot(marks, mean, marker="o", markersize=3, color=colour, label=init)
        axes.fill_between(marks, mean - sd, mean + sd, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="steps", ylabel="test accuracy, %", title="MNIST: the paper's ConvNet from six initialisations")
    axes.set_xscale("log")
    axes.set_xticks(marks, [str(mark) for mark in marks], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    save_figure(figure, path)


def plot_kernels(real: Tensor, prior: Prior, path: Path, count: int = 64) -> None:
    """Draws held-out kernels beside draws from a prior, each kernel on its own scale, blue below and red above 0.

    Args:
        real: ``(n, 1, k, k)``.
        prior: The prior.
        path: Where the PNG goes.
        count: Kernels in each panel.
    """
    generator = torch.Generator().manual_seed(0)
    picked = real[torch.randperm(len(real), generator=generator)[:count]]
    panels = {"kernels of held-out networks": picked, "draws from the prior": prior.sample(count, generator)}
    figure = Figure(figsize=(9, 4.8))
    axes = figure.subplots(1, len(panels))
    for axis, (title, kernels) in zip(axes, panels.items(), strict=True):
        axis.imshow(kernel_sheet(kernels).numpy(), interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.tight_layout()
    figure.savefig(content, format="png", dpi=130)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())
