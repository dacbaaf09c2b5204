"""Pictures of record, drawn from results."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from dwp_init import KernelVAE, MixtureByDepth, Prior
from dwp_init.files import write_bytes
from dwp_init.picture import kernel_sheet

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

REAL, DRAWN = "kernels of held-out networks", "draws from the prior"


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
        mean, sd = found[init].mean(0), found[init].std(0, correction=0)
        axes.plot(marks, mean, marker="o", markersize=3, color=COLOURS[init], label=init)
        axes.fill_between(marks, mean - sd, mean + sd, color=COLOURS[init], alpha=0.12, linewidth=0)
    axes.set(xlabel="steps", ylabel="accuracy, %", title=title)
    axes.set_xscale("log")
    ticks = marks if len(marks) <= 10 else [mark for mark in (5, 10, 20, 50, 100, 200, 500, 1000) if mark <= marks[-1]]
    axes.set_xticks(ticks, [str(mark) for mark in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
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
        mean, sd = curve.mean(0), curve.std(0, correction=0)
        axes.plot(marks, mean, linewidth=1.2, color=ALL_COLOURS.get(init), label=init)
        axes.fill_between(marks, mean - sd, mean + sd, color=ALL_COLOURS.get(init), alpha=0.12, linewidth=0)
    for label, steps in paper.items():
        axes.plot(*_points({step: level for level, step in steps.items()}), "x", **_faint(label))
    highest = max(max(levels), *(curve.max().item() for curve in curves.values()))
    margin = 0.05 * (highest - min(levels)) or 1.0
    axes.set(xlabel="steps", ylabel=ylabel, title=title, ylim=(min(levels) - 2 * margin, highest + margin))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=7)
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
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"1/{1 / tick:g}" if tick < 1 else f"{tick:g}" for tick in ticks], minor=False)
    axes.set(xlabel="scale k of the numbers of filters", ylabel="test accuracy, %", title=title)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=7)
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
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.set(xlabel="labelled images", title=f"from {init}")
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_kernels(real: Tensor, prior: Prior, path: Path, count: int = 64) -> None:
    """Draws held-out kernels beside draws from a prior, each kernel on its own scale, blue below and red above 0.

    Args:
        real: ``(n, 1, k, k)``.
        prior: The prior.
        path: Where the PNG goes.
        count: Kernels in each panel.
    """
    plot_families(real, {DRAWN: prior}, path, count)


def plot_families(real: Tensor, priors: Mapping[str, Prior], path: Path, count: int = 64, columns: int = 2) -> None:
    """Draws held-out kernels and draws from several priors, a panel each, in the manner of Fig. 1.

    Args:
        real: ``(n, c, k, k)``.
        priors: By title.
        path: Where the PNG goes.
        count: Kernels in each panel.
        columns: Panels in a row.
    """
    generator = torch.Generator().manual_seed(0)
    picked = real[torch.randperm(len(real), generator=generator)[:count]]
    panels = {REAL: picked}
    panels |= {title: prior.sample(count, generator) for title, prior in priors.items()}
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.5 * columns, 4.8 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, kernels) in zip(axes, panels.items(), strict=False):
        axis.imshow(kernel_sheet(kernels).numpy(), interpolation="nearest")
        axis.set_title(title)
    save_figure(figure, path)


def plot_depths(real: Sequence[Tensor], prior: MixtureByDepth, path: Path, count: int = 12) -> None:
    """Draws held-out kernels beside draws from a prior, a row for each of its depths, each kernel on its own scale.

    Args:
        real: Kernels ``(n, c, k, k)`` of each depth, the lowest first.
        prior: The prior.
        path: Where the PNG goes.
        count: Kernels in each row; fewer where a depth has fewer.
    """
    generator = torch.Generator().manual_seed(0)
    count = min(count, *map(len, real))
    figure = Figure(figsize=(11, 0.7 + 5.5 * len(prior.depths) / count))
    rows = figure.subplots(len(prior.depths), 2, squeeze=False)
    for axes, depth, layer in zip(rows, prior.depths, real, strict=True):
        picked = layer[torch.randperm(len(layer), generator=generator)[:count]]
        for axis, kernels in zip(axes, (picked, prior.at(depth).sample(count, generator)), strict=True):
            axis.imshow(kernel_sheet(kernels, columns=count).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(f"{depth:.2f}", rotation=0, ha="right", va="center")
    for axis, title in zip(rows[0], (REAL, DRAWN), strict=True):
        axis.set_title(title)
    figure.supylabel("relative depth")
    save_figure(figure, path)


def plot_colour_kernels(draws: Mapping[str, Tensor], path: Path, count: int = 64) -> None:
    """Draws kernels of three channels in colour, a panel per set, grey where a weight is 0.

    Args:
        draws: Kernels ``(n, 3, k, k)`` by title; each is scaled by its own largest weight.
        path: Where the PNG goes.
        count: Kernels in each panel.
    """
    figure = Figure(figsize=(4.2 * len(draws), 4.6))
    axes = figure.subplots(1, len(draws), squeeze=False).flatten()
    for axis, (title, kernels) in zip(axes, draws.items(), strict=True):
        shown = kernels[:: max(len(kernels) // count, 1)][:count]
        colours = 0.5 + 0.5 * shown / shown.flatten(1).abs().amax(1).clamp_min(1e-12)[:, None, None, None]
        grid = make_grid(colours, nrow=8, padding=1, pad_value=1.0).permute(1, 2, 0)
        axis.imshow(grid.numpy(), interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    save_figure(figure, path)


def plot_latent_space(vae: KernelVAE, kernels: Tensor, path: Path, count: int = 400, grid: int = 15) -> None:
    """Draws where kernels lie in a VAE's two latent dimensions, and what the decoder makes of them, as in Fig. 6.

    Args:
        vae: A VAE of two latents.
        kernels: ``(n, c, k, k)``; evenly spaced ones are drawn as pictures at the means of r(z|w).
        path: Where the PNG goes.
        count: How many.
        grid: Decoder means along each side of the second panel, evenly spaced over [-3, 3].

    Raises:
        ValueError: The VAE has other than two latents.
    """
    if vae.latent_dim != 2:
        raise ValueError(f"a latent space is drawn for 2 latents; this VAE has {vae.latent_dim}")
    shown = kernels[:: max(-(-len(kernels) // count), 1)]
    with torch.no_grad():
        means = vae.encode(vae.whitening(shown.flatten(1))).loc
        axis = torch.linspace(-3, 3, grid)
        z = torch.cartesian_prod(-axis, axis).flip(1)
        decoded = vae.whitening.inverse(vae.decode(z).loc).view(-1, *vae.kernel_shape)
    figure = Figure(figsize=(12, 6))
    left, right = figure.subplots(1, 2)
    tile = 0.5 * float(means.abs().amax()) / 12
    for mean, kernel in zip(means.tolist(), shown, strict=True):
        picture = kernel_sheet(kernel[None], zoom=1)[1:-1, 1:-1].numpy()
        extent = (mean[0] - tile, mean[0] + tile, mean[1] - tile, mean[1] + tile)
        left.imshow(picture, extent=extent, interpolation="nearest")
    limit = 1.1 * float(means.abs().amax())
    left.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="$z_1$", ylabel="$z_2$", title="means of r(z|w)")
    right.imshow(kernel_sheet(decoded, columns=grid).numpy(), interpolation="nearest", extent=(-3, 3, -3, 3))
    right.set(xlabel="$z_1$", ylabel="$z_2$", title="means of p(w|z)")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.tight_layout()
    figure.savefig(content, format="png", dpi=130)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())
