"""The paper's values: those that it gives as pictures only are read off; accuracies in %, ELBOs and bounds in nats."""

from collections.abc import Mapping
from typing import TypeVar

from matplotlib.axes import Axes

from training.starts.base import STARTS
from training.starts.controls import XAVIER
from training.starts.learned import LEARNED, LEARNED_HE, LEARNED_OWN
from training.starts.priors import DWP, DWP_OWN

Value = TypeVar("Value")

CALLED = {DWP: "dwp", DWP_OWN: "dwp", XAVIER: "xavier", LEARNED_HE: "filters", LEARNED_OWN: "filters"}
"""What the paper calls a start; its scales are the source's own and, for dwp, the decoder's means."""
STARTS_OF_PAPER = {"dwp": STARTS[DWP], "filters": STARTS[LEARNED], "xavier": STARTS[XAVIER]}

FEW_LABELS: dict[str, dict[str, tuple[float, ...]]] = {
    "mnist": {
        "dwp": (80.0, 86.7, 91.5, 94.5, 96.1),
        "log-uniform": (76.6, 83.9, 89.4, 93.8, 95.8),
        "standard normal": (71.7, 81.6, 89.0, 93.8, 95.9),
    },
    "cifar10": {
        "dwp": (23.66, 30.30, 35.61),
        "log-uniform": (21.91, 28.74, 33.58),
        "standard normal": (22.46, 28.87, 35.25),
    },
}
"""Fig. 2 by data set and prior: test accuracy of an ensemble of 10; ±0.06 for CIFAR-10.

For MNIST it is from 50, 100, 200, 500 and 1,000 labels, from the legend of the authors' notebook; for CIFAR-10 from 50,
200 and 500.
"""

TABLE_1 = {"auxiliary": (-23_375, 230), "iwae": (-9_957, 0), "blind": (-128_325, 2_436)}
"""Table 1: L_aux, L_IWAE with K = 10,000, and L_aux with r(z|w) = p(z), each with its ± (0 where none is given)."""


def _by(keys: tuple[float, ...], **columns: tuple[Value, ...]) -> dict[str, dict[float, Value]]:
    """Gives each initialisation its values by key; those that end early have no values for the last keys."""
    return {name: dict(zip(keys, values, strict=False)) for name, values in columns.items()}


RANDOM_FEATURES: dict[str, dict[str, dict[float, tuple[float, float]]]] = {
    "mnist": _by(
        (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1),
        dwp=((95.65, 0.48), (97.0, 0.36), (97.63, 0.16), (97.96, 0.14), (98.26, 0.13)),
        xavier=((93.05, 0.84), (95.6, 0.46), (97.17, 0.24), (97.87, 0.2), (98.31, 0.08)),
        filters=((96.28, 0.26), (97.24, 0.3), (97.87, 0.21), (98.44, 0.21), (98.68, 0.13)),
    ),
    "cifar10": _by(
        (1 / 8, 1 / 4, 1 / 2, 1),
        dwp=((63.7, 0.55), (65.93, 0.74), (67.73, 0.62), (68.95, 0.63)),
        xavier=((62.15, 0.46), (63.86, 0.53), (64.95, 0.48), (65.6, 0.35)),
        filters=((65.29, 1.53), (68.04, 1.48), (70.28, 0.7), (71.02, 0.65)),
    ),
}
"""Fig. 3 by data set, initialisation and scale k: mean and standard deviation of ten runs; ±0.03."""

STEPS_TO: dict[str, dict[str, dict[float, float]]] = {
    "fig4a": _by(
        (-200, -180, -160, -140, -120, -110, -105, -100, -97, -95),
        dwp=(33, 54, 74, 109, 170, 239, 300, 393, 521, 634),
        filters=(35, 47, 66, 101, 175, 261, 332, 456, 603, 801),
        xavier=(101, 151, 200, 260, 366, 466, 542, 685, 837),
    ),
    "fig4b": _by(
        (92, 94, 95, 96, 96.5, 97, 97.5, 98),
        dwp=(19, 29, 36, 47, 54, 75, 119, 165),
        filters=(14, 20, 24, 34, 43, 56, 77, 142),
        xavier=(43, 61, 76, 92, 111, 139, 169, 244),
    ),
    "fig4c": _by(
        (20, 30, 40, 45, 50, 55, 60),
        dwp=(10, 24, 38, 50, 114, 222, 372),
        filters=(9, 21, 33, 52, 99, 152, 283),
        xavier=(44, 55, 126, 174, 294),
    ),
}
"""Fig. 4 by part, initialisation and level: steps to reach it; ±8 (a), ±3 to ±8 (b), ±8 to ±20 (c)."""


def plot_paper(axes: Axes, name: str, points: Mapping[float, float]) -> None:
    """Draws the paper's values for one of its initialisations as faint markers."""
    colour, label = STARTS_OF_PAPER[name].colour, f"the paper's {name}"
    axes.plot(list(points), list(points.values()), "x", alpha=0.4, markersize=5, color=colour, label=label)
