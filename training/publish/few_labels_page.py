"""What the page of few labels gets: means and paired differences over splits, by prior, initialisation and labels."""

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.engine.records import Row
from training.experiments.few_labels import (
    DWP_PRIOR,
    FROM_DWP,
    FROM_XAVIER,
    GAUSSIAN_PRIOR,
    NORMAL,
    STANDARD_NORMAL,
)
from training.experiments.paired import Lead, half_width, paired_leads
from training.publish.results import by, read_record

_SCORES = ("accuracy", "nll", "ece", "ood_auroc")
_DWP = (DWP_PRIOR, FROM_DWP)

PriorFrom = tuple[str, str]
"""A prior, and whose draws its networks start from."""
_Runs = dict[PriorFrom, dict[str, dict[str, Row]]]
"""By number of labels and split."""


class FewLabels(NamedTuple):
    """A record of few labels.

    Attributes:
        rows: The rows of the table, by prior and number of labels.
        splits: Number of splits.
        half_widths: Those of the 95 % intervals of the mean accuracy, by prior and number of labels.
        leads: By score, pair and number of labels; p-values are adjusted over the pairs and numbers of a score.
        divergences: KL divergence of the whole network in nats, mean over splits, by prior and number of labels.
    """

    rows: dict[PriorFrom, dict[str, Row]]
    splits: int
    half_widths: dict[PriorFrom, dict[str, float]]
    leads: dict[str, dict[tuple[PriorFrom, PriorFrom], dict[str, Lead]]]
    divergences: dict[PriorFrom, dict[str, float]]


def read_few_labels(name: str) -> FewLabels:
    """Reads the table of a record and its runs."""
    rows = by(read_record(name), ("prior", "init"), "size")
    runs: _Runs = by(read_record(f"{name}_runs"), ("prior", "init"), "size", "split")
    widths = {
        prior: {size: half_width(_values(runs, prior, size, "accuracy")) for size in found}
        for prior, found in runs.items()
    }
    splits = len(next(iter(runs[_DWP].values())))
    return FewLabels(rows, splits, widths, {score: _leads(runs, score) for score in _SCORES}, _divergences(runs))


def pairs(found: list[PriorFrom]) -> list[tuple[PriorFrom, PriorFrom]]:
    """Returns what is compared: dwp with each other prior, the initialisations, and the shape and scale of a normal."""
    others = [(_DWP, each) for each in found if each[1] == FROM_DWP and each != _DWP]
    inits = [((prior, FROM_DWP), (prior, init)) for prior, init in found if init == FROM_XAVIER]
    return others + inits + [((prior, FROM_DWP), (NORMAL, FROM_DWP)) for prior in (GAUSSIAN_PRIOR, STANDARD_NORMAL)]


def _leads(runs: _Runs, score: str) -> dict[Any, dict[str, Lead]]:
    over = {
        (pair, size): _values(runs, pair[0], size, score) - _values(runs, pair[1], size, score)
        for pair in pairs(list(runs))
        for size in runs[_DWP]
    }
    found: dict[Any, dict[str, Lead]] = {}
    for (pair, size), lead in paired_leads(over).items():
        found.setdefault(pair, {})[size] = lead
    return found


def _values(runs: _Runs, prior: PriorFrom, size: str, score: str) -> Tensor:
    """Returns a score by split, in the order of their numbers."""
    splits = runs[prior][size]
    return torch.tensor([float(splits[key][score]) for key in sorted(splits, key=int)], dtype=torch.float64)


def _divergences(runs: _Runs) -> dict[PriorFrom, dict[str, float]]:
    found: dict[PriorFrom, dict[str, float]] = {}
    for prior, sizes in runs.items():
        for size, splits in sizes.items():
            layers = [json.loads(row["kl"]) for row in splits.values()]
            if all(layers):
                found.setdefault(prior, {})[size] = sum(map(sum, layers)) / len(layers)
    return found
