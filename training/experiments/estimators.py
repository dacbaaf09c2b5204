"""What drawing weights or outputs in training is worth: the estimators of Bayesian layers, on paired splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from dwp_init.bayes import Estimator
from training.engine.records import Row, print_table, read_config, read_metrics, write_table
from training.engine.stage import Context, Stage
from training.experiments.paired import half_width, number_ahead, shown

_SCORES = {"accuracy": 2, "accuracy_mean_weights": 2, "nll": 4, "ece": 2}  # with their decimals
_SETTINGS = ("network", "data", "temperature")
_GROUP = (*_SETTINGS, "size", "prior", "init")


@dataclass(frozen=True)
class CompareEstimators(Stage):
    """Compares runs that differ in nothing but the estimator, split by split.

    Records ``<name>.csv``: a row for each network, data set, temperature, number of labels, prior and start. It has the
    means of each score by estimator, and how far Flipout is over local reparametrisation: the mean of the paired
    differences, ± half the width of its 95 % t interval, and the splits in which it is above it. Scores of networks
    without a divergence, which have no estimator, are those of the stage that ran them.

    Args:
        needs: Stages of :class:`training.experiments.classify.Classify`.
        name: Base name of the CSV file.
    """

    name: str = "estimators"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        found: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = {}
        for need in self.needs:
            settings = read_config(context.out / need)["settings"]
            for row in read_metrics(context.out / need):
                group = tuple((settings | row)[key] for key in _GROUP)
                found.setdefault(group, {}).setdefault(settings.get("estimator", "local"), {})[row["split"]] = row
        table = [dict(zip(_GROUP, group, strict=True)) | _compared(runs) for group, runs in found.items()]
        write_table(folder / "record" / f"{self.name}.csv", table)
        print_table(table)
        return {"table": table}


def _compared(runs: dict[str, dict[int, Row]]) -> Row:
    """Returns means and paired differences of runs by estimator and split; empty for an estimator that was not run."""
    found: Row = {}
    for score, digits in _SCORES.items():
        values = {name: _values(runs.get(name, {}), score) for name in get_args(Estimator)}
        over = values["flipout"] - values["local"] if runs.keys() == values.keys() else torch.empty(0)
        means = {f"{score}_{name}": shown(each.mean().item(), digits) for name, each in values.items()}
        found |= means | {
            f"{score}_over": shown(over.mean().item(), digits),
            f"{score}_over_half_width": shown(half_width(over), digits),
            f"{score}_higher": number_ahead(over) if len(over) else "",
        }
    return found | {"splits": max(map(len, runs.values()))}


def _values(runs: dict[int, Row], score: str) -> Tensor:
    return torch.tensor([runs[split][score] for split in sorted(runs)], dtype=torch.float64)
