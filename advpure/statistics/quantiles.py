"""Quantiles over images, with intervals that assume nothing about the distribution.

The j-th smallest of n values lies below the q-quantile with probability P(Binomial(n, q) >= j), so
two order statistics enclose the quantile at a level that is exact for continuous distributions and
larger for others. Infinite values (more than was measured) take part like any others.

Source: [Thompson1936].
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binom

from advpure.base.errors import BadInput


class Quantile(NamedTuple):
    """A quantile of n values.

    Attributes:
        value: The smallest value that at least a share q of the values does not exceed; it may be
            infinite.
        n: Number of values.
        low: Lower end of its interval, None where n is too small for one.
        high: Upper end, likewise; it may be infinite.
    """

    value: float
    n: int
    low: float | None
    high: float | None


def quantile(values: Sequence[float], q: float = 0.5, level: float = 0.95) -> Quantile:
    """Estimate a quantile, the median by default.

    Args:
        values: Numbers, infinite ones allowed, at least one.
        q: Which quantile, in (0, 1).
        level: Least confidence of the interval, in (0, 1).

    Raises:
        BadInput: for no values, NaN, or shares outside (0, 1).

    Example:
        >>> quantile([3.0, 1.0, math.inf, 2.0, 5.0, 4.0])
        Quantile(value=3.0, n=6, low=1.0, high=inf)
    """
    ordered = sorted(values)
    if not ordered or any(math.isnan(value) for value in ordered):
        raise BadInput(f"{len(ordered)} values", "have no quantile", "give numbers, at least one")
    for name, share in (("quantile", q), ("level", level)):
        if not 0 < share < 1:
            raise BadInput(f"{name} {share}", "is outside (0, 1)", "write 0.5 or 0.95")
    n = len(ordered)
    tail = (1.0 - level) / 2.0
    below, above = int(binom.ppf(tail, n, q)), int(binom.isf(tail, n, q)) + 1
    return Quantile(
        ordered[max(0, math.ceil(q * n * (1 - 1e-12)) - 1)],
        n,
        ordered[below - 1] if below >= 1 else None,
        ordered[above - 1] if above <= n else None,
    )
