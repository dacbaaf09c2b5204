"""How often the benchmark finds a difference where there is none, and how small a difference it can find."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.engine.records import Row
from training.experiments.paired import half_widths, shown

DIVERGED = 100.0  # log loss in nats above which a run counts as diverged when a trial is chosen
MEASURES = {"accuracy": "", "log_loss": "loss_"}  # with what the names of their columns begin


def false_positives(
    bank: Sequence[Row],
    *,
    seeds: int = 8,
    chosen_by: Sequence[str] = ("log_loss", "accuracy"),
    finalists: Sequence[int] = (1, 2),
    repeats: int = 10_000,
    seed: int = 0,
) -> list[Row]:
    """Repeats the benchmark's comparison of two starts on parts of a bank of runs whose two starts are of one law.

    Each repeat draws a seed that screens and paired seeds from the bank, and exchanges the two runs of a seed at
    random, so that no start is ahead of the other. Each arm keeps the trials of the best scores on held-out images at
    the seed that screens; of these it takes the one of the best mean score over all seeds. The arms are then compared
    at these trials. A repeat is a false positive if p < 0.05 in the paired t-test, which is if the 95 % interval leaves
    out 0. Two arms that chose different trials do differ: such a finding is false because the starts are the same.

    The repeats share the runs of the bank, so the shares are less certain than those of independent repeats.

    Args:
        bank: A row for each of two starts, each seed and each trial, with ``held_accuracy`` and ``held_log_loss`` on
            held-out images, and ``accuracy`` and ``log_loss`` on test images.
        seeds: Paired seeds of a comparison.
        chosen_by: The held-out scores that trials are chosen by: ``log_loss``, ``accuracy``.
        finalists: How many trials are run at the paired seeds.
        repeats: Number of repeats.
        seed: Seed of the repeats.

    Returns:
        A row for each score and number of finalists. ``other_trials`` is the share of repeats in which the arms chose
        different trials, ``false_positives`` that of false positives in accuracy, and ``half_width`` the median half
        width of the 95 % interval; ``loss_false_positives`` and ``loss_half_width`` are those of the log loss. Repeats
        with a run that diverged have no difference of log losses; ``diverged`` is their share.

    Raises:
        ValueError: The bank lacks runs, or a score to choose by is unknown.
    """
    unknown = [score for score in chosen_by if score not in MEASURES]
    if unknown:
        raise ValueError(f"chosen_by must be some of {', '.join(MEASURES)}; got {', '.join(unknown)}")
    scores = _scores(bank)
    there = scores["accuracy"].shape[1]
    if there <= seeds:
        raise ValueError(
            f"a seed that screens and {seeds} paired seeds take a bank of at least {seeds + 1}; got {there}: "
            "train more, or ask for less"
        )
    generator = torch.Generator().manual_seed(seed)
    table = []
    for score in chosen_by:
        held = scores["held_accuracy"] if score == "accuracy" else -scores["held_log_loss"].clamp_max(DIVERGED)
        for count in finalists:
            order = torch.rand(repeats, there, generator=generator).argsort(1)[:, : 1 + seeds]
            swapped = torch.randint(2, order.shape, generator=generator)
            arms = [(arm, order, choices(held[arm, order], count)) for arm in (swapped, 1 - swapped)]
            first, second = (
                {measure: scores[measure][arm[:, 1:], places[:, 1:], trials] for measure in MEASURES}
                for arm, places, trials in arms
            )
            row: Row = {"chosen_by": score, "finalists": count, "seeds": seeds, "repeats": repeats}
            row |= {"other_trials": _share(arms[0][2] != arms[1][2])}
            table.append(row | _found(first, second))
    return table


def _scores(bank: Sequence[Row]) -> dict[str, Tensor]:
    """The four scores ``(2, seeds, trials)``; log losses that are not finite are infinite."""
    starts, seeds, trials = (sorted({row[key] for row in bank}) for key in ("start", "seed", "trial"))
    if len(starts) != 2:
        raise ValueError(f"the bank must have runs of two starts; got {len(starts)}: {', '.join(starts) or 'none'}")
    runs = {(row["start"], row["seed"], row["trial"]): row for row in bank}
    cells = [(start, seed, trial) for start in starts for seed in seeds for trial in trials]
    missing = [cell for cell in cells if cell not in runs]
    if missing or len(bank) != len(cells):
        lacks = f"it lacks {len(missing)}, such as {missing[0]}" if missing else f"it has {len(bank)} rows"
        raise ValueError(f"the bank must have one run of each start, seed and trial, {len(cells)} in all; {lacks}")
    names = [held + measure for held in ("", "held_") for measure in MEASURES]
    found = {name: torch.tensor([runs[cell][name] for cell in cells], dtype=torch.float64) for name in names}
    shape = (len(starts), len(seeds), len(trials))
    return {name: values.nan_to_num(torch.inf, torch.inf).view(shape) for name, values in found.items()}


def choices(held: Tensor, finalists: int) -> Tensor:
    """The trials ``(repeats, 1)`` that an arm chooses by scores ``(repeats, seeds, trials)``, the higher the better.

    The first seed screens. Of equal scores the first trial wins, as in :mod:`training.experiments.choice`.
    """
    kept = held[:, 0].sort(stable=True, dim=1, descending=True).indices[:, :finalists].sort(1).values
    means = held.mean(1).gather(1, kept)
    return kept.gather(1, means.sort(stable=True, dim=1, descending=True).indices[:, :1])


def _found(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Row:
    row: Row = {}
    over = {measure: first[measure] - second[measure] for measure in MEASURES}
    for measure, beginning in MEASURES.items():
        widths = half_widths(over[measure])
        leaves_out_0 = over[measure].mean(1).abs() > widths
        row[f"{beginning}false_positives"] = _share(leaves_out_0[widths.isfinite()])
        row[f"{beginning}half_width"] = shown(widths.nanmedian().item(), 5)
    return row | {"diverged": _share(~over["log_loss"].isfinite().all(1))}


def _share(which: Tensor) -> float | str:
    return shown(which.double().mean().item(), 4)
