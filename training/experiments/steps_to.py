"""Steps that networks need to reach a level of accuracy or of the ELBO (Section 4.3, Fig. 4), beside the paper's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.records import print_table, read_config, read_done, read_metrics, write_table
from training.engine.stage import Context, Stage
from training.experiments.paper import LABELS, STEPS_TO
from training.figures.experiments import plot_steps
from training.starts.fills import KAIMING, XAVIER

MEASURES = {"accuracy": "accuracy, %", "elbo": "ELBO, nats per image"}


@dataclass(frozen=True)
class StepsTo(Stage):
    """Reads the curves of paired runs and finds where each first reaches each level.

    Records ``<name>.csv``, ``<name>_runs.csv`` and ``<name>.png``. A mean stands only where every seed got there. How
    many times faster than Xavier's and Kaiming's is the mean, over seeds, of the ratio of the steps.

    Args:
        needs: The stage with the runs, of :class:`training.experiments.converge.Converge` or
            :class:`training.experiments.vae_converge.VAEConverge`.
        name: Of the record.
        measure: ``accuracy`` in %, or ``elbo`` in nats.
        levels: What is to be reached.
        figure: The paper's, of ``training.experiments.paper.STEPS_TO``, whose values stand beside; none if empty.
        title: Of the picture.
    """

    needs: tuple[str, ...] = ("converge",)
    name: str = "steps_to"
    measure: str = "accuracy"
    levels: tuple[float, ...] = (92.0, 94.0, 95.0, 96.0, 97.0, 98.0)
    figure: str = ""
    title: str = "MNIST: the paper's ConvNet"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        self._check()
        source = context.out / self.needs[0]
        marks = read_config(source)["settings"]["marks"]
        rows = {(row["init"], row["seed"]): row for row in read_metrics(source)}
        if not all(self.measure in row for row in rows.values()):
            raise ValueError(
                f"the runs of {self.needs[0]} have no {self.measure!r}; they have {', '.join(_keys(rows))}"
            )
        inits = list(dict.fromkeys(row["init"] for row in read_done(source)["table"]))
        seeds = sorted({seed for _, seed in rows})
        values = {init: [rows[init, seed][self.measure] for seed in seeds] for init in inits}
        curves = {init: torch.tensor(each, dtype=torch.float64) for init, each in values.items()}
        steps = {init: torch.tensor([self._steps(marks, curve) for curve in curves[init]]) for init in inits}
        table = [self._table_row(init, column, steps) for init in inits for column in range(len(self.levels))]
        flat = [
            {"init": init, "seed": seed, "level": level, "steps": _shown(found)}
            for init in inits
            for seed, run in zip(seeds, steps[init].tolist(), strict=True)
            for level, found in zip(self.levels, run, strict=True)
        ]
        record = folder / "record"
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", flat)
        paper = STEPS_TO.get(self.figure, {})
        labels = {"ylabel": MEASURES[self.measure], "title": self.title}
        plot_steps(curves, marks, self.levels, paper, record / f"{self.name}.png", **labels)
        print_table([{key: row[key] for key in _PRINTED} for row in table])
        return {"table": table}

    def _check(self) -> None:
        if len(self.needs) != 1:
            raise ValueError(f"needs names the one stage with the runs; got {len(self.needs)}: {self.needs}")
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {self.measure!r}")
        if self.figure and self.figure not in STEPS_TO:
            raise ValueError(f"figure must be one of {', '.join(STEPS_TO)}, or empty; got {self.figure!r}")
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must rise, each once; got {self.levels}")

    def _steps(self, marks: Sequence[int], curve: Tensor) -> list[float]:
        return [first_crossing(marks, curve.tolist(), level) for level in self.levels]

    def _table_row(self, init: str, column: int, steps: dict[str, Tensor]) -> dict[str, Any]:
        level, found = self.levels[column], steps[init][:, column]
        row: dict[str, Any] = {"init": init, "level": level, **_spread("steps", found, digits=1)}
        row["reached"] = int(found.isfinite().sum())
        for label, baseline in (("xavier", XAVIER), ("kaiming", KAIMING)):
            over = steps[baseline][:, column] / found if baseline in steps else torch.tensor([math.nan])
            row |= _spread(f"faster_than_{label}", over, digits=2)
        paper = STEPS_TO.get(self.figure, {})
        theirs = paper.get(LABELS.get(init, ""), {}).get(level, math.nan)
        faster = paper.get("xavier", {}).get(level, math.nan) / theirs
        return row | {
            "paper_steps": _shown(theirs),
            "paper_faster_than_xavier": _shown(faster, 2),
            "seeds": len(found),
        }


_PRINTED = ("init", "level", "steps", "steps_sd", "reached", "faster_than_xavier", "faster_than_kaiming", "paper_steps")


def first_crossing(steps: Sequence[int], values: Sequence[float], level: float) -> float:
    """Returns the step at which a curve first reaches a level, by linear interpolation between its points.

    Where the first point is there already it is that step, an upper bound; NaN where no point is.
    """
    before: tuple[int, float] | None = None
    for step, value in zip(steps, values, strict=True):
        if value >= level:
            if before is None or not math.isfinite(before[1]):
                return float(step)
            return before[0] + (level - before[1]) / (value - before[1]) * (step - before[0])
        before = (step, value)
    return math.nan


def _spread(name: str, values: Tensor, digits: int) -> dict[str, Any]:
    """Returns mean and standard deviation, rounded; empty where a value is missing."""
    sd = values.std().item() if len(values) > 1 else math.nan
    return {name: _shown(values.mean().item(), digits), f"{name}_sd": _shown(sd, digits)}


def _shown(value: float, digits: int = 1) -> float | str:
    return round(value, digits) if math.isfinite(value) else ""


def _keys(rows: dict[Any, dict[str, Any]]) -> list[str]:
    return sorted({key for row in rows.values() for key in row} - {"init", "seed"}) or ["none"]
