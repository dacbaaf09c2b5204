"""The results of record, as the templates take them: rows by the columns that tell them apart."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from training.engine.records import RESULTS, Row, read_table
from training.experiments.converge import BASELINES
from training.experiments.paired import Lead, leads_over
from training.starts.controls import XAVIER

SIZES = ("7x7", "5x5")  # of notMNIST's kernels, to which every family was fitted
FIRST_NETWORKS = ("resnet", "convmixer", "cifar", "convnext", "vgg", "mobilenet")  # of the benchmark of version 0.1.0
FIRST_VARIANTS = ("convmixer_1000_labels", "convmixer_frozen", "resnet_1000_labels", "cifar_frozen")
FIGURES = {"fig3a": "k", "fig3b": "k", "fig4a": "level", "fig4b": "level", "fig4c": "level"}  # and their columns
CURVES = {"fig4a": "vae_converge", "fig4b": "fig4b_curves", "fig4c": "fig4c_curves"}  # the records of their curves


class PaperFigure(NamedTuple):
    """A recorded figure of the paper.

    Attributes:
        rows: By initialisation and mark: a scale k of the widths, or a level that is reached.
        seeds: Number of seeds.
        leads: Over Xavier, by initialisation and mark; in points of accuracy, or in steps.
        first: The initialisations and marks of which a run was at the level when it was first looked at, so that its
            number of steps is an upper bound.
    """

    rows: dict[str, dict[str, Row]]
    seeds: int
    leads: dict[tuple[str, float | str], Lead]
    first: set[tuple[str, str]]


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
    """Returns how the paper's network trains on MNIST, by initialisation and step.

    A row has the leads over Kaiming's initialisation and over learned kernels too, as ``kaiming`` and ``learned``, with
    p-values adjusted over all rows.
    """
    found = by(read_record("converge_mnist"), "init", "step")
    for label, baseline in BASELINES.items():
        for (init, step), lead in recorded_leads("converge_mnist", baseline).items():
            found[init][step][label] = lead
    return found


def recorded_leads(
    name: str, baseline: str, measure: str = "accuracy", column: str = "step", above: float = -math.inf
) -> dict[tuple[str, float | str], Lead]:
    """Tests how far each initialisation of a record is above a baseline at each mark, by its runs.

    There is no test at a mark where a run has no value.

    Args:
        name: Name of the record.
        baseline: The initialisation to compare with.
        measure: Column of the values.
        column: Column of the marks.
        above: Values up to this one are only bounds, and count as none.
    """
    rows = [row | {measure: float(row[measure] or "nan")} for row in read_record(f"{name}_runs")]
    known = [row if row[measure] > above else row | {measure: math.nan} for row in rows]
    return leads_over(known, measure, baseline, column)


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


def figures() -> dict[str, PaperFigure]:
    """Returns the figures of the paper that are recorded."""
    return {name: _figure(name, column) for name, column in FIGURES.items() if (RESULTS / f"{name}.csv").exists()}


def _figure(name: str, column: str) -> PaperFigure:
    rows = read_record(name)
    found, seeds = by(rows, "init", column), int(rows[0]["seeds"])
    if name not in CURVES:
        return PaperFigure(found, seeds, recorded_leads(name, XAVIER, "accuracy", column), set())
    mark = min(int(row["step"]) for row in read_record(CURVES[name]))
    runs = read_record(f"{name}_runs")
    first = {(row["init"], row["level"]) for row in runs if float(row["steps"] or "inf") <= mark}
    return PaperFigure(found, seeds, recorded_leads(name, XAVIER, "steps", column, above=mark), first)
