"""Statistics of paired runs: means, standard deviations, differences to a baseline, intervals and crossings.

Runs of one seed differ in nothing but what is compared. Means and standard deviations are those of float32, as in the
recorded tables, and are rounded to decimals.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from training.engine.records import Row

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.05  # p-values below it, adjusted over all that are compared, are taken as differences
_ROUNDING = 1e-9  # relative size of what counts as 0: differences of rounded values are not exact


def by_mark(rows: Sequence[Row], measure: str, marks: Sequence[float]) -> list[Row]:
    """Turns rows with a list of values, one for each mark, into a row per run and mark."""
    return [
        {key: row[key] for key in ("init", "seed") if key in row} | {"step": mark, measure: value}
        for row in rows
        for mark, value in zip(marks, row[measure], strict=True)
    ]


def curves(
    rows: Sequence[Row], measure: str, by: str = "step", dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Returns the values ``(seeds, marks)`` of each initialisation, seeds and marks in rising order.

    Args:
        rows: A row per run and mark, with ``init`` and ``seed``.
        measure: Column of the values.
        by: Column of the marks.
        dtype: Type of the values.

    Raises:
        ValueError: Two rows are of the same run and mark.
    """
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="seed", columns=["init", by], values=measure).sort_index(axis=1)
    return {init: torch.tensor(wide[init].to_numpy().copy(), dtype=dtype) for init in frame["init"].unique()}


def mean_sd(name: str, values: Tensor, digits: int = 3, sd: str = "") -> Row:
    """Returns mean and standard deviation of values ``(n,)`` as columns; empty where they are not finite.

    Args:
        name: Column of the mean.
        values: The values.
        digits: Decimals.
        sd: Column of the standard deviation; by default ``<name>_sd``.
    """
    spread = values.std().item() if len(values) > 1 else math.nan
    return {name: shown(values.mean().item(), digits), sd or f"{name}_sd": shown(spread, digits)}


def shown(value: float, digits: int) -> float | str:
    """Rounds a value for a table; empty where it is not finite."""
    return round(value, digits) if math.isfinite(value) else ""


def comparison(
    rows: Sequence[Row], measure: str, baselines: Mapping[str, str], by: str = "step", ahead: bool = True
) -> list[Row]:
    """Makes the table of a comparison: a row per initialisation and mark, with paired differences to the baselines.

    Args:
        rows: A row per run and mark, with ``init`` and ``seed``.
        measure: Column of the values, and of their mean over seeds; ``sd`` is that of their standard deviation.
        baselines: By the end of a column's name, such as ``kaiming`` in ``over_kaiming`` and ``ahead_of_kaiming``, the
            initialisation to compare with; those that were not run are left out.
        by: Column of the marks.
        ahead: Whether to count the seeds that are ahead.
    """
    found, marks = curves(rows, measure, by), sorted({row[by] for row in rows})
    table = []
    for init, values in found.items():
        for column, mark in enumerate(marks):
            row: Row = {"init": init, by: mark, **mean_sd(measure, values[:, column], sd="sd")}
            for label, baseline in baselines.items():
                if baseline in found:
                    over = values[:, column] - found[baseline][:, column]
                    row |= mean_sd(f"over_{label}", over)
                    row |= {f"ahead_of_{label}": number_ahead(over)} if ahead else {}
            table.append(row | {"seeds": len(values)})
    return table


def number_ahead(differences: Tensor) -> int:
    """Returns how many paired differences are above 0."""
    return int((differences > 0).sum())


def half_width(differences: Tensor, level: float = 0.95) -> float:
    """Returns the half width of the confidence interval of a mean of paired differences ``(n,)``.

    See :func:`half_widths`; NaN for a single difference.
    """
    return float(half_widths(differences, level)) if len(differences) > 1 else math.nan


def half_widths(differences: Tensor, level: float = 0.95) -> Tensor:
    """Returns the half widths t · s / √n of the confidence intervals of means of paired differences by Student's t.

    s is the standard deviation of n differences, and t the quantile of n - 1 degrees of freedom at (1 + level) / 2.

    Args:
        differences: ``(..., n)`` with n > 1.
        level: Share of intervals that contain the true mean.
    """
    n = differences.shape[-1]
    return half_width_from(1.0, n, level) * differences.double().std(-1)


def half_width_from(sd: float, n: int, level: float = 0.95) -> float:
    """Returns the half width t · s / √n of :func:`half_widths` from the standard deviation s of n > 1 values."""
    return _quantile(n, level) * sd / math.sqrt(n)


def _quantile(n: int, level: float) -> float:
    """The quantile of Student's t for the mean of n values."""
    return float(stats.t.ppf((1 + level) / 2, n - 1))


def bootstrap_levels(n: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the quantiles of bootstrapped values between which the interval of the percentile bootstrap lies.

    They are expanded as of n values: Φ(± t √(n / (n − 1))), because the plain ones make intervals too short (Hesterberg
    2015). t is the quantile of Student's t with n - 1 degrees of freedom, Φ the normal distribution function.
    """
    reach = _quantile(n, level) * math.sqrt(n / (n - 1))
    return float(stats.norm.cdf(-reach)), float(stats.norm.cdf(reach))


def p_value(differences: Tensor) -> float:
    """Returns the two-sided p-value of Student's paired t-test.

    1 if there is only one difference or all are 0, and 0 if all are the same otherwise.
    """
    found = differences.double()
    if len(found) < 2 or found.std() <= _ROUNDING * found.mean().abs():
        return 1.0 if len(found) < 2 or found.mean() == 0 else 0.0
    return float(stats.ttest_1samp(found.numpy(), 0.0).pvalue)


def seeds_needed(differences: Tensor, level: float = 0.95) -> int | None:
    """Returns how many seeds it takes until the confidence interval leaves out 0, at the mean and spread found so far.

    The smallest n with t · s / √n < |mean|, where t has n - 1 degrees of freedom. ``None`` if no number suffices
    because the mean is 0, or if it is unknown because there are fewer than two differences or one is not finite.
    """
    found = differences.double()
    if len(found) < 2 or not found.isfinite().all():
        return None
    effect, spread = abs(found.mean().item()), found.std().item()
    if effect <= _ROUNDING * spread:
        return None

    def leaves_out_0(n: int) -> bool:
        return _quantile(n, level) * spread / math.sqrt(n) < effect

    most = 2
    while not leaves_out_0(most):
        most *= 2
    return bisect_left(range(most + 1), True, lo=2, key=leaves_out_0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values of a family of tests by the step-down method of Holm (1979)."""
    adjusted, least = list(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = least
    return adjusted


class Lead(NamedTuple):
    """The mean of n paired differences, the half width of its 95 % interval, and its p-value among others."""

    mean: float
    half_width: float
    p: float
    n: int

    @property
    def differs(self) -> bool:
        """Whether the p-value, adjusted over all that were compared with it, is below ``LEVEL``."""
        return self.p < LEVEL


def paired_leads(differences: Mapping[Key, Tensor]) -> dict[Key, Lead]:
    """Tests a family of paired differences ``(n,)`` against 0, with p-values adjusted by :func:`holm` over the family.

    Those with a value that is not finite, or with only one, are left out.
    """
    known = {key: each.double() for key, each in differences.items() if len(each) > 1 and each.isfinite().all()}
    adjusted = holm([p_value(each) for each in known.values()])
    tested = zip(known.items(), adjusted, strict=True)
    return {key: Lead(each.mean().item(), half_width(each), p, len(each)) for (key, each), p in tested}


def leads_over(
    rows: Sequence[Row], measure: str, baseline: str, by: str = "step"
) -> dict[tuple[str, float | str], Lead]:
    """Tests how far each initialisation is above a baseline at each mark, all of them as one family.

    Args:
        rows: A row per run and mark, with ``init`` and ``seed``.
        measure: Column of the values.
        baseline: The initialisation to compare with.
        by: Column of the marks.

    Returns:
        The leads by initialisation and mark.

    Raises:
        ValueError: An initialisation lacks a mark.
    """
    marks = sorted({row[by] for row in rows})
    if lacking := {(row["init"], mark) for row in rows for mark in marks} - {(row["init"], row[by]) for row in rows}:
        raise ValueError(f"all initialisations must have all marks; {min(lacking)} is missing")
    found = curves(rows, measure, by, torch.float64)
    over = {init: values - found[baseline] for init, values in found.items() if init != baseline}
    return paired_leads({(init, mark): over[init][:, place] for init in over for place, mark in enumerate(marks)})


def first_crossing(steps: Sequence[float], values: Sequence[float], level: float) -> float:
    """Returns the step at which a curve first reaches a level, by linear interpolation between its points.

    If the first point is at the level already, it is that step, an upper bound; NaN if no point is.
    """
    before: tuple[float, float] | None = None
    for step, value in zip(steps, values, strict=True):
        if value >= level:
            if before is None or not math.isfinite(before[1]):
                return float(step)
            return before[0] + (level - before[1]) / (value - before[1]) * (step - before[0])
        before = (step, value)
    return math.nan
