"""Choices among runs with few labels: settings by images that were held out, and the rows of some priors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.records import Row, print_table, read_config, read_done, write_table
from training.engine.stage import Context, Stage
from training.experiments.few_labels import (
    DWP_PRIOR,
    FROM_XAVIER,
    GAUSSIAN_PRIOR,
    LOG_UNIFORM_AUTHORS,
    STANDARD_NORMAL,
)
from training.experiments.few_labels_table import SETTINGS, SHOWN, plot_few_labels

CHOICE_COLUMNS = ("size", "prior", *SETTINGS, "accuracy", "accuracy_sd", "nll", "ece", "splits")


@dataclass(frozen=True)
class ChooseSettings(Stage):
    """Chooses, for each prior and number of labels, the steps and the temperature of the highest accuracy.

    Args:
        needs: :class:`training.experiments.classify.Classify` stages with ``hold_out``, so that no test image has a
            say; one for each pair of steps and temperature.
        name: Base name of the CSV file.
        temperatures: Those that may be chosen, all by default; ``(1.0,)`` for Bayes' rule. Networks without a
            divergence, on which it has no effect, may have been trained at one of them alone.
    """

    name: str = "choose_settings"
    temperatures: tuple[float, ...] = ()

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        for need in self.needs:
            if not read_config(context.out / need)["settings"]["hold_out"]:
                raise ValueError(f"{need} was tested on test images; choices need hold_out, training images in place")
        tables = (read_done(context.out / need)["table"] for need in self.needs)
        rows = [row for table in tables for row in table if row["init"] != FROM_XAVIER]
        allowed = [row for row in rows if not self.temperatures or row["temperature"] in self.temperatures]
        chosen = best_settings(allowed)
        if missing := {row["prior"] for row in rows} - {row["prior"] for row in chosen}:
            raise ValueError(
                f"{', '.join(sorted(missing))} has no run at a temperature of {self.temperatures}; add one to needs"
            )
        table = [{key: row[key] for key in CHOICE_COLUMNS} | {"chosen": row in chosen} for row in rows]
        write_table(folder / "record" / f"{self.name}.csv", table)
        print_table([row for row in table if row["chosen"]])
        return {"table": table, "chosen": chosen}


@dataclass(frozen=True)
class Selection(Stage):
    """Draws the results of some priors from a :class:`Classify` stage, or puts several such tables side by side.

    Args:
        needs: The stages with the runs; a figure is drawn where there is one.
        name: Base name of the CSV and PNG files.
        priors: The priors.
    """

    name: str = "fig5_gaussian"
    priors: tuple[str, ...] = (DWP_PRIOR, LOG_UNIFORM_AUTHORS, STANDARD_NORMAL, GAUSSIAN_PRIOR)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        table = []
        for need in self.needs:
            found = [row for row in read_done(context.out / need)["table"] if row["prior"] in self.priors]
            missing = set(self.priors) - {row["prior"] for row in found}
            if missing:
                raise ValueError(f"{need} has no runs of {', '.join(sorted(missing))}; add them to its priors")
            table += [{"runs": need, **row} if len(self.needs) > 1 else row for row in found]
        record = folder / "record"
        write_table(record / f"{self.name}.csv", table)
        if len(self.needs) == 1:
            plot_few_labels(table, record / f"{self.name}.png", f"{table[0]['splits']} splits")
        print_table([{key: row[key] for key in ("runs", *SHOWN) if key in row} for row in table])
        return {"table": table}


def best_settings(rows: Sequence[Row]) -> list[Row]:
    """Returns the row of the highest mean accuracy for each size and prior.

    Of equal ones the one nearest to Bayes' rule, then of fewest steps.
    """
    found: dict[tuple[int, str], Row] = {}
    for row in sorted(rows, key=lambda row: (-row["accuracy"], abs(1 - row["temperature"]), row["steps"])):
        found.setdefault((row["size"], row["prior"]), row)
    return list(found.values())
