"""The results of record, as the templates take them: rows by the columns that tell them apart."""

from collections.abc import Sequence
from typing import Any

from training.engine.records import RESULTS, Row, read_table

SIZES = ("7x7", "5x5")  # of notMNIST's kernels, to which every family was fitted
FIRST_NETWORKS = ("resnet", "convmixer", "cifar", "convnext", "vgg", "mobilenet")  # of the benchmark of version 0.1.0
FIRST_VARIANTS = ("convmixer_1000_labels", "convmixer_frozen", "resnet_1000_labels", "cifar_frozen")
FIGURES = {"fig3a": "k", "fig3b": "k", "fig4a": "level", "fig4b": "level", "fig4c": "level"}  # and their columns


def read_record(name: str) -> list[Row]:
    """Reads a table of record; ``FileNotFoundError`` where it is missing."""
    return read_table(RESULTS / f"{name}.csv")


def by(rows: Sequence[Row], *columns: str | tuple[str, ...]) -> dict[Any, Any]:
    """Groups rows by the values of columns, or of tuples of columns, one level of the mapping for each.

    The last row of equal values counts: ``by(rows, "init", "step")["dwp"]["25"]`` is a row.
    """
    found: dict[Any, Any] = {}
    for row in rows:
        level = found
        keys = [row[name] if isinstance(name, str) else tuple(row[each] for each in name) for name in columns]
        for key in keys[:-1]:
            level = level.setdefault(key, {})
        level[keys[-1]] = row
    return found


def densities(size: str) -> dict[str, Row]:
    """Returns the densities of all families on kernels of a size, by the prior's name."""
    return by(read_record(f"density_notmnist_{size}"), "prior")


def size_of_record(name: str) -> str | None:
    """Returns the one of ``SIZES`` in whose table of densities a prior is; None for a prior that is in none."""
    return next((size for size in SIZES if name in densities(size)), None)


def effects() -> dict[str, dict[str, Row]]:
    """Returns how the paper's network trains on MNIST, by initialisation and step."""
    return by(read_record("converge_mnist"), "init", "step")


def first_benchmarks(variants: bool = True) -> dict[str, dict[str, dict[str, Row]]]:
    """Returns the first benchmark, of 200 steps, by network, initialisation and step.

    Args:
        variants: Whether those with few labels or frozen convolutions are returned too.
    """
    names = FIRST_NETWORKS + (FIRST_VARIANTS if variants else ())
    return {name: by(read_record(f"benchmark_{name}"), "init", "step") for name in names}


def first_scales() -> dict[str, dict[str, dict[str, Row]]]:
    """Returns how networks train for 200 steps at each scale of draws, by network, baseline and initialisation."""
    return by(read_record("scale_default"), "network", "baseline", "init")


def figures() -> dict[str, dict[str, dict[str, Row]]]:
    """Returns the figures of the paper that are recorded, by initialisation and scale or level."""
    found = {name: column for name, column in FIGURES.items() if (RESULTS / f"{name}.csv").exists()}
    return {name: by(read_record(name), "init", column) for name, column in found.items()}
