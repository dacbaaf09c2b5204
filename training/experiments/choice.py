"""The setting of the optimizer for each start: noise in this choice would pass for a difference between starts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from training.engine.records import Row

_LEVEL = 0.05
_ROUNDING = 1e-9  # below any variance of accuracies in % to three digits


def rule() -> str:
    """Returns a digest of the code of this module: where it changes, a finished task may have to choose again."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def chosen_trials(rows: Sequence[Row]) -> dict[str, int]:
    """Returns by start the trial of the highest accuracy on held-out images, after shrinking towards all starts.

    A few runs do not tell the best of several good settings. Two starts of one law then take different settings, and
    differ. What is common to the starts is known better. So for each trial, the deviation of a start from the median
    of the starts is multiplied by the share of the variance of such deviations that is not noise between seeds, as in
    empirical Bayes (James & Stein 1961); by 0 where an F-test at 5 % finds no more than noise. Where starts do not
    differ in what suits them, all take the same setting; where they do, each takes its own. With runs of one seed alone
    the noise is not known, and nothing is shrunk.

    Args:
        rows: A row per start, seed and trial, with ``accuracy`` on held-out images.

    Raises:
        ValueError: A start lacks runs that another has.
    """
    wide = pd.DataFrame(rows).pivot(index=["start", "seed"], columns="trial", values="accuracy")
    starts, seeds = (wide.index.unique(level) for level in ("start", "seed"))
    values = wide.reindex(pd.MultiIndex.from_product([starts, seeds])).to_numpy(dtype=float)
    if lacking := np.argwhere(np.isnan(values.reshape(len(starts), len(seeds), -1))).tolist():
        start, seed, trial = (
            names[place] for names, place in zip((starts, seeds, wide.columns), lacking[0], strict=True)
        )
        raise ValueError(
            f"each of {len(starts)} starts needs runs of the {len(seeds)} choosing seeds at every trial; "
            f"{len(lacking)} are missing, such as {start!r}, seed {seed}, trial {trial}: run these first"
        )
    scores = shrunken(values.reshape(len(starts), len(seeds), -1))
    return {start: int(wide.columns[place]) for start, place in zip(starts, scores.argmax(1), strict=True)}


def shrunken(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the scores ``(starts, trials)`` of accuracies ``(starts, seeds, trials)``, see :func:`chosen_trials`."""
    relative = values - np.median(values, axis=2, keepdims=True)  # a trial that fails does not move the others
    starts, seeds, _ = values.shape
    means = relative.mean(1)
    if starts == 1 or seeds == 1:
        return np.asarray(means)
    common = np.median(means, axis=0)
    of_seeds = relative.mean(0) - relative.mean((0, 1))
    rest = relative - means[:, None] - of_seeds
    free = starts - 1, (starts - 1) * (seeds - 1)  # degrees of freedom
    noise = np.square(rest).sum((0, 1)) / free[1] / seeds
    spread = np.square(means - common).sum(0) / free[0]
    ratio = spread / np.maximum(noise, _ROUNDING)
    share = np.where(stats.f.sf(ratio, *free) < _LEVEL, 1 - 1 / np.maximum(ratio, 1), 0)
    scores: NDArray[np.float64] = common + share * (means - common)
    return scores
