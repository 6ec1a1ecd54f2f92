"""How far a next window of the same normal distribution lies: quantiles of Hotelling's T^2, without a library.

Hotelling, "The generalization of Student's ratio", 1931; the incomplete beta function by its continued fraction,
Press et al., "Numerical Recipes", 6.4.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

LARGEST = 1e5
"""Degrees of freedom beyond which the covariance counts as known."""
DIGITS = 6
"""Digits of the curve's coefficients: what libraries of other machines round otherwise lies behind them."""


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    found = d
    for m in range(1, 2000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + step * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + step / c
            c = c if abs(c) > tiny else tiny
            found *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return found


def beta_share(a: float, b: float, x: float) -> float:
    """The share of the beta distribution (a, b) that lies below x: the regularised incomplete beta function."""
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


@cache
def limit(inputs: int, freedom: float, false_alarms: float) -> float:
    """What (x - mean)' covariance^-1 (x - mean) of a next window exceeds in this share of cases, for a known mean and
    a covariance of freedom + inputs - 1 windows."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1.0 - beta_share(inputs / 2, freedom / 2, middle) > false_alarms:
            low = middle
        else:
            high = middle
    # a beta quantile q is one of F = (q / inputs) / ((1 - q) / freedom)
    return low / (1.0 - low) * (freedom + inputs - 1)


def curve(inputs: int, least_freedom: float, false_alarms: float) -> tuple[float, ...]:
    """c0 to c4: the limit is e^(c0 + c1 u + ... + c4 u^4), u = 1 / freedom, from the least freedom on, within 1 %."""
    freedom = np.geomspace(least_freedom, max(LARGEST, 10 * least_freedom), 80)
    powers = (1.0 / freedom)[:, None] ** np.arange(5)
    wanted = np.log([limit(inputs, float(each), false_alarms) for each in freedom])
    scale = powers.max(axis=0)
    found = np.linalg.lstsq(powers / scale, wanted, rcond=None)[0] / scale
    return tuple(float(f"{each:.{DIGITS}g}") for each in found)
