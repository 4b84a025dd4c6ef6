"""How probable it is that repeated looks at a growing number of successes reach a boundary.

The distribution of the successes is carried from look to look; what has reached the boundary is
taken out and counted.

Source: [Armitage1969].
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

_NEGLIGIBLE = 1e-18
"""Probabilities below it are not carried on; they count as having reached the boundary."""

_ROUNDING = 1e-9
"""More than the relative error of 1,000 looks, whose sums and products have positive terms."""


def crossing_probability(
    enough: ArrayLike, looks: Sequence[int] | NDArray[np.int64], p: float
) -> float:
    """Return the probability that at some look the successes reach what is enough there.

    Args:
        enough: Successes at each look that reach the boundary; more than the look has samples where
            nothing does.
        looks: Samples at each look, increasing, each from 1 on.
        p: Probability of a success, in (0, 1).

    Returns:
        The probability, rounded up.

    Example:
        >>> crossing_probability([5, 9], [5, 10], 0.5)  # (1 + 5 / 32) / 32, but for the rounding
        0.0361...
    """
    alive, least, before = np.ones(1), 0, 0  # of `least`, `least` + 1, ... successes
    crossed = 0.0
    for wanted, n in zip(np.asarray(enough).tolist(), np.asarray(looks).tolist(), strict=True):
        step = binom.pmf(np.arange(n - before + 1), n - before, p)
        step, fewest, lost = _without_tails(step)
        crossed += lost * float(alive.sum())
        alive, least, before = np.convolve(alive, step), least + fewest, n
        inside = max(wanted - least, 0)
        crossed += float(alive[inside:].sum())
        if inside == 0:
            break
        alive, fewest, lost = _without_tails(alive[:inside])
        crossed, least = crossed + lost, least + fewest
        if not len(alive):
            break
    return crossed * (1.0 + _ROUNDING)


def _without_tails(masses: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, float]:
    """Return masses without the negligible ends, how many the first end had, and what both held."""
    (kept,) = np.nonzero(masses > _NEGLIGIBLE)
    if not len(kept):
        return masses[:0], 0, float(masses.sum())
    first, last = int(kept[0]), int(kept[-1]) + 1
    return masses[first:last], first, float(masses[:first].sum() + masses[last:].sum())
