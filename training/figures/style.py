"""What all pictures share: how curves and axes are drawn, and how a figure is saved."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dwp_init.storage import make_folder, write_bytes


def mean_and_sd(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of runs ``(runs, m)``, with n - 1 as in tables; 0 for a single run."""
    return values.mean(0), values.std(0) if len(values) > 1 else values[0] * 0


def plot_band(axes: Axes, x: Sequence[float], values: Tensor, label: str, colour: str | None, **style: Any) -> None:
    """Draws the mean of several runs as a line and one standard deviation each way as a band.

    Args:
        axes: Where to draw.
        x: The ``m`` positions.
        values: ``(runs, m)``.
        label: Entry of the legend.
        colour: Colour of both; matplotlib's next one if None.
        style: Other options of the line.
    """
    mean, sd = mean_and_sd(values)
    (line,) = axes.plot(x, mean, color=colour, label=label, **style)
    axes.fill_between(x, mean - sd, mean + sd, color=line.get_color(), alpha=0.12, linewidth=0)


def log_ticks(axes: Axes, ticks: Sequence[float], labels: Sequence[str] | None = None, base: int = 10) -> None:
    """Makes the x axis logarithmic, with ticks at the given values and nowhere else.

    Args:
        axes: The axes.
        ticks: The values.
        labels: Their texts; by default the values themselves.
        base: Base of the logarithm.
    """
    axes.set_xscale("log", base=base)
    axes.set_xticks(ticks, list(map(str, ticks)) if labels is None else labels, minor=False)
    axes.minorticks_off()


def add_legend(axes: Axes, fontsize: int = 8) -> None:
    """Adds a faint grid, and a legend at the lower right."""
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=fontsize)


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG at 130 dots per inch; the file is replaced as a whole or not at all."""
    content = io.BytesIO()
    figure.tight_layout()
    figure.savefig(content, format="png", dpi=130, pil_kwargs={"optimize": True})
    make_folder(path.parent)
    write_bytes(path, content.getvalue())
