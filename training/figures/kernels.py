"""Pictures of kernels and of draws from priors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from dwp_init import KernelVAE, Prior
from dwp_init.picture import kernel_sheet
from training.figures.style import save_figure

STEM_SIZES = (3, 4, 7)
REAL, DRAWN = "kernels of held-out networks", "draws from the prior"


def plot_families(
    real: Tensor | None, priors: Mapping[str, Prior], path: Path, count: int = 64, columns: int = 2
) -> None:
    """Draws held-out kernels and draws from priors, a panel each, in the manner of Fig. 1.

    Each kernel has a scale of its own, with blue below 0 and red above.

    Args:
        real: The held-out kernels, ``(n, c, *size)``, if there are any.
        priors: The priors by title.
        path: Path of the PNG file.
        count: Kernels in each panel.
        columns: Panels in a row.
    """
    generator = torch.Generator().manual_seed(0)
    panels = {} if real is None else {REAL: real[torch.randperm(len(real), generator=generator)[:count]]}
    panels |= {title: prior.sample(count, generator) for title, prior in priors.items()}
    sheets = {title: kernel_sheet(kernels) for title, kernels in panels.items()}
    _plot_panels(sheets, columns, 4.5, 4.8, path)


def plot_depths(real: Sequence[Tensor], prior: Prior, path: Path, count: int = 12) -> None:
    """Draws held-out kernels next to draws from a prior, with a row for each of its depths.

    Each kernel has a scale of its own, with blue below 0 and red above.

    Args:
        real: The held-out kernels of each depth, ``(n, c, *size)``, the lowest depth first.
        prior: A prior by depth.
        path: Path of the PNG file.
        count: Kernels in each row; fewer if a depth has fewer.
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


def plot_stems(prior: Prior, path: Path, count: int = 64) -> None:
    """Draws the filters of colour stems of several sizes, a panel each, those of smallest norm first; grey is 0.

    Args:
        prior: A prior that draws the filters of a layer together, for images of three channels.
        path: Path of the PNG file.
        count: Filters in each panel; fewer for kernels with fewer numbers.
    """
    sheets = {}
    for k in STEM_SIZES:
        shaped = prior.shaped((3, k, k), (1, 1))
        if shaped is not None:
            filters = shaped.sample_layer(min(2 * shaped.dim, count), torch.Generator().manual_seed(0))
            sheets[f"{k}×{k}"] = colour_sheet(filters[filters.flatten(1).norm(dim=1).argsort()])
    _plot_panels(sheets, len(sheets), 3.4, 3.9, path)


def plot_colour_kernels(draws: Mapping[str, Tensor], path: Path, count: int = 64) -> None:
    """Draws kernels of three channels in colour, a panel per set, grey where a weight is 0.

    Args:
        draws: Kernels ``(n, 3, k, k)`` by title; each is scaled by its own largest weight.
        path: Path of the PNG file.
        count: Kernels in each panel.
    """
    picked = {title: kernels[:: max(len(kernels) // count, 1)][:count] for title, kernels in draws.items()}
    panels = {title: colour_sheet(kernels) for title, kernels in picked.items()}
    _plot_panels(panels, len(draws), 4.2, 4.6, path)


def colour_sheet(kernels: Tensor, columns: int = 8, zoom: int = 1) -> Tensor:
    """Returns the pixels of kernels ``(n, 3, k, k)`` side by side, each scaled by its own largest weight."""
    colours = 0.5 + 0.5 * kernels / kernels.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    tiles = colours.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    sheet: Tensor = make_grid(tiles, columns, padding=1, pad_value=1.0)
    return sheet.permute(1, 2, 0)


def _plot_panels(pictures: Mapping[str, Tensor], columns: int, width: float, height: float, path: Path) -> None:
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(width * columns, height * rows))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, pixels) in zip(axes, pictures.items(), strict=False):
        axis.imshow(pixels.numpy(), interpolation="nearest")
        axis.set_title(title)
    save_figure(figure, path)


def plot_latent_space(vae: KernelVAE, kernels: Tensor, path: Path, count: int = 400, grid: int = 15) -> None:
    """Draws the positions of kernels in a VAE's two latent dimensions, and the means of its decoder, as in Fig. 6.

    Args:
        vae: A VAE of two latents.
        kernels: ``(n, c, *size)``; some are drawn as pictures at the means of r(z|w).
        path: Path of the PNG file.
        count: Maximum number of kernels drawn, evenly spaced.
        grid: Number of decoder means along each side of the second panel, evenly spaced over [-3, 3].

    Raises:
        ValueError: The VAE does not have two latents.
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
