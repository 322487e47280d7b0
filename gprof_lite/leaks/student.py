"""Student's t distribution, without scipy: scipy costs more memory than the whole agent may take."""

from __future__ import annotations

import math
from typing import Final

_MAX_STEPS: Final = 300
_TINY: Final = 1e-300
_ENOUGH: Final = 1e-12


def t_upper_tail(t: float, n_degrees: float) -> float:
    """P(T > t) for a t-distributed T with ``n_degrees`` degrees of freedom.

    By the regularized incomplete beta function: P(|T| > t) = I(n/(n+t^2); n/2, 1/2).
    Source: Abramowitz and Stegun, 26.7.1 and 26.5.27.
    """
    if n_degrees <= 0:
        raise ValueError("no degrees of freedom")
    two_sided = _incomplete_beta(n_degrees / (n_degrees + t * t), n_degrees / 2, 0.5)
    return two_sided / 2 if t >= 0 else 1 - two_sided / 2


def normal_upper_tail(z: float) -> float:
    """P(Z > z) for a standard normal Z."""
    return math.erfc(z / math.sqrt(2)) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I(x; a, b), by the continued fraction on the side where it converges fast.

    Source: Abramowitz and Stegun, 26.5.8 (fraction) and 26.5.2 (the other side).
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The fraction 1/(1+ d1/(1+ d2/(1+ ...))), evaluated from the front (Lentz 1976)."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _ENOUGH:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
