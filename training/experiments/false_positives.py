"""How often the benchmark finds a difference where there is none, and how small a difference it can find."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from training.engine.records import Row
from training.experiments.choice import shrunken
from training.experiments.paired import half_widths, shown

DIVERGED = 100.0  # log loss in nats above which a run counts as diverged when a trial is chosen
MEASURES = {"accuracy": "", "log_loss": "loss_"}  # with what the names of their columns begin


def false_positives(
    bank: Sequence[Row],
    *,
    seeds: int = 8,
    chosen_by: Sequence[str] = ("log_loss", "accuracy"),
    choosing_seeds: Sequence[int] = (1, 2),
    repeats: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Repeats the benchmark's comparison of two starts on parts of a bank of runs whose two starts are of one law.

    Each repeat draws choosing seeds and paired seeds from the bank and exchanges the two runs of a seed at random, so
    that no start is ahead of the other. Each arm takes the trial with the best mean score on held-out images, over its
    choosing seeds; the arms are then compared at these trials. Where there are two choosing seeds or more, the scores
    are also shrunken before the choice, as the benchmark's are, towards those of further starts, which are the runs
    that are left in the bank. A repeat is a false positive if p < 0.05 in the paired t-test, which is if the 95 %
    interval leaves out 0. Two arms that chose different trials do differ: such a finding is false because the starts
    are the same.

    The repeats share the runs of the bank, so the shares are less certain than those of independent repeats.

    Args:
        bank: A row for each of two starts, each seed and each trial, with ``held_accuracy`` and ``held_log_loss`` on
            held-out images, and ``accuracy`` and ``log_loss`` on test images.
        seeds: Paired seeds of a comparison.
        chosen_by: The held-out scores that trials are chosen by: ``log_loss``, ``accuracy``.
        choosing_seeds: How many runs of each trial they are chosen by.
        repeats: Number of repeats.
        seed: Seed of the repeats.

    Returns:
        A row for each score and number of runs to choose by, without and with shrinking. ``other_trials`` is the share
        of repeats in which the arms chose different trials, ``false_positives`` that of false positives in accuracy,
        and ``half_width`` the median half width of the 95 % interval; ``loss_false_positives`` and ``loss_half_width``
        are those of the log loss. Repeats with a run that diverged have no difference of log losses; ``diverged`` is
        their share.

    Raises:
        ValueError: The bank lacks runs, or a score to choose by is unknown.
    """
    unknown = [score for score in chosen_by if score not in MEASURES]
    if unknown:
        raise ValueError(f"chosen_by must be some of {', '.join(MEASURES)}; got {', '.join(unknown)}")
    scores = _scores(bank)
    there, most = scores["accuracy"].shape[1], max(choosing_seeds) + seeds
    if there < most:
        raise ValueError(
            f"{max(choosing_seeds)} choosing and {seeds} paired seeds take a bank of at least {most}; got {there}: "
            "train more, or ask for less"
        )
    generator = torch.Generator().manual_seed(seed)
    ways = [(count, shrink) for count in choosing_seeds for shrink in ((False, True) if count > 1 else (False,))]
    table = []
    for score in chosen_by:
        for choosing, shrink in ways:
            order = torch.rand(repeats, there, generator=generator).argsort(1)
            swapped = torch.randint(2, order.shape, generator=generator)
            held = scores["held_accuracy"] if score == "accuracy" else -scores["held_log_loss"].clamp_max(DIVERGED)
            trials = _choices(held, order, swapped, choosing, seeds, shrink)
            paired = slice(choosing, choosing + seeds)
            first, second = (
                {measure: scores[measure][arms, order[:, paired], trial[:, None]] for measure in MEASURES}
                for arms, trial in ((swapped[:, paired], trials[:, 0]), (1 - swapped[:, paired], trials[:, 1]))
            )
            row: Row = {"chosen_by": score, "choosing_seeds": choosing, "shrunken": shrink}
            row |= {"seeds": seeds, "repeats": repeats, "other_trials": _share(trials[:, 0] != trials[:, 1])}
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


def _choices(held: Tensor, order: Tensor, swapped: Tensor, choosing: int, seeds: int, shrink: bool) -> Tensor:
    """The trials ``(repeats, 2)`` that the two arms choose.

    Args:
        held: Scores ``(2, seeds, trials)`` on held-out images, the higher the better.
        order: The seeds ``(repeats, seeds)`` by their places in the bank. The first choose, those after the paired ones
            are of further starts.
        swapped: Which of the bank's two runs of each of them the first arm takes.
        choosing: The number of seeds to choose by.
        seeds: The number of paired seeds.
        shrink: Whether the scores are shrunken.
    """
    arms = torch.stack([swapped, 1 - swapped], 1)  # (repeats, 2, seeds)
    found = held[arms, order[:, None]]  # (repeats, 2, seeds, trials)
    if not shrink:
        return found[:, :, :choosing].mean(2).argmax(2)
    further = found[:, :, choosing + seeds :]
    further = further[:, :, : further.shape[2] // choosing * choosing]
    groups = torch.cat([found[:, :, :choosing], further], 2).unflatten(2, (-1, choosing)).transpose(1, 2).flatten(1, 2)
    chosen = [shrunken(each).argmax(1)[:2] for each in groups.numpy()]  # both arms of a group follow each other
    return torch.from_numpy(np.stack(chosen))


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
