"""The picture of the README: kernels that Kaiming's initialisation and ``natural`` write into one network.

python -m training.figures.natural model_cards/natural.png
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import dwp_init
from dwp_init.picture import kernel_sheet
from training.figures.kernels import colour_sheet
from training.figures.style import save_figure

COUNT, COLUMNS = 25, 5
LAYERS = {  # title of a panel: input channels, output channels, kernel size, groups
    "RGB stem, 3×3": (3, 64, 3, 1),
    "RGB stem, 4×4 patches": (3, 64, 4, 1),
    "RGB stem, 7×7": (3, 64, 7, 1),
    "depthwise, 7×7": (64, 64, 7, 64),
}


def plot_natural(path: Path, seed: int = 0) -> None:
    """Draws kernels of each kind of layer, from Kaiming's initialisation above and from ``natural`` below.

    Args:
        path: Path of the PNG file.
        seed: Seed of both initialisations.
    """
    layers = [nn.Conv2d(i, o, k, groups=groups) for i, o, k, groups in LAYERS.values()]
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, generator=generator)
    rows = [[layer.weight.detach().clone() for layer in layers]]
    for layer in layers:
        dwp_init.apply_(layer, prior="natural", seed=seed)
    rows.append([layer.weight.detach() for layer in layers])
    figure = Figure(figsize=(9, 4.7))
    axes = figure.subplots(len(rows), len(LAYERS))
    for line, weights in zip(axes, rows, strict=True):
        for axis, weight in zip(line, weights, strict=True):
            axis.imshow(_sheet(weight).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], LAYERS, strict=True):
        axis.set_title(title)
    for axis, label in zip(axes[:, 0], ("Kaiming", "natural"), strict=True):
        axis.set_ylabel(label, fontsize=12)
    save_figure(figure, path)


def _sheet(weight: Tensor) -> Tensor:
    """Pixels of some kernels of a layer, in colour if they have three channels."""
    if weight.shape[1] != 3:
        return kernel_sheet(weight.flatten(0, 1)[:COUNT, None], COLUMNS, zoom=4)
    return colour_sheet(weight[:COUNT], COLUMNS, zoom=4)


if __name__ == "__main__":
    plot_natural(Path(sys.argv[1]))
