"""Confidence intervals of means over a few paired runs."""

import math
from collections.abc import Sequence


def paired_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Returns the mean of paired differences and the half width of its confidence interval by Student's t.

    It is t · s / √n, with s the standard deviation of the n differences and t the quantile of n - 1 degrees of freedom
    at (1 + level) / 2; NaN for a single difference.
    """
    n = len(differences)
    mean = sum(differences) / n
    if n == 1:
        return mean, math.nan
    sd = math.sqrt(sum((difference - mean) ** 2 for difference in differences) / (n - 1))
    return mean, t_bound(n - 1, level) * sd / math.sqrt(n)


def t_bound(degrees: int, level: float = 0.95) -> float:
    """Returns the t with P(|T| ≤ t) = level for whole degrees of freedom, by bisection of the closed form."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, degrees) < level else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Returns P(|T| ≤ √ν · tan(angle)) (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = degrees % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return (2 / math.pi) * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
