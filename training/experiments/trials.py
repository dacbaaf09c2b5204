"""The settings of the optimizer that every start of a benchmark is tried with."""

from typing import NamedTuple

from scipy.stats import qmc

RATES = (5e-4, 2e-2)
DECAYS = (1e-3, 0.3)


class Trial(NamedTuple):
    """One setting of AdamW."""

    rate: float
    decay: float


def quasi_random_trials(count: int) -> tuple[Trial, ...]:
    """Returns the first points of Halton's sequence in bases 2 and 3, on logarithmic scales over RATES × DECAYS.

    A longer list begins with a shorter one, as in the external tuning of AlgoPerf (Dahl et al. 2023).

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"trials must be 1 or more; got {count}")
    points = qmc.Halton(2, scramble=False).random(count + 1)[1:].tolist()  # the first point is the corner (0, 0)
    return tuple(Trial(_between(*RATES, x), _between(*DECAYS, y)) for x, y in points)


def _between(least: float, most: float, share: float) -> float:
    return float(f"{least * (most / least) ** share:.3g}")
