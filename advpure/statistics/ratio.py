"""A ratio of two means over images, with a bootstrap interval.

Images are drawn again with replacement, numerator and denominator together; the interval is the
bias-corrected and accelerated one (BCa [Efron1987]), second-order accurate. With few images (below
about 15) every bootstrap covers less than its level; Student's intervals of the two means say more.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, bootstrap

from advpure.base.errors import BadInput
from advpure.statistics.rates import Interval

Array = npt.NDArray[np.float64]

_RESAMPLES = 9999
_AT_ONCE = 2**18  # indices


class Ratio(NamedTuple):
    """A ratio of means over `n` images; `interval` is None where there is none."""

    value: float
    n: int
    interval: Interval | None


def ratio_of_means(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, level: float = 0.95
) -> Ratio | None:
    """Estimate mean(numerators) / mean(denominators) over paired cases.

    Args:
        numerators: One finite number per image.
        denominators: Those of the same images, in the same order.
        level: Confidence level in (0, 0.999]; the resamples resolve no more.

    Returns:
        The ratio; None where the mean of the denominators is not above 0. Its interval is None
        for one image, and where a resample has a denominator that is not above 0. The same input
        gives the same interval: the resamples have a fixed key.

    Raises:
        BadInput: for unequal lengths, none at all, values that are not finite, or a bad level.

    Example:
        >>> ratio = ratio_of_means([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
        >>> ratio.value, ratio.interval
        (0.5, Interval(low=0.5, high=0.5))
    """
    top, bottom = (np.asarray(each, dtype=np.float64) for each in (numerators, denominators))
    if top.ndim != 1 or top.shape != bottom.shape or not len(top):
        subject = f"{top.size} numerators and {bottom.size} denominators"
        raise BadInput(subject, "are not pairs", "give one of each per image, at least one")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        raise BadInput("a value of a ratio", "is not finite", "leave out what is absent")
    if not 0.0 < level <= 0.999:
        raise BadInput(f"level {level}", "is outside (0, 0.999]", "write 0.95")
    n = len(top)
    if not bottom.mean() > 0.0:
        return None
    value = float(top.mean() / bottom.mean())
    return Ratio(value, n, _interval(top, bottom, value, level) if n > 1 else None)


def _interval(top: Array, bottom: Array, value: float, level: float) -> Interval | None:
    n = len(top)

    def ratio(chosen: npt.NDArray[np.int64], axis: int) -> Array:
        below = bottom[chosen].mean(axis=axis)
        ratios: Array = top[chosen].mean(axis=axis) / np.where(below > 0.0, below, np.nan)
        return ratios

    rest = np.array([top.sum() - top, bottom.sum() - bottom])
    if (rest[1] > 0.0).all() and np.ptp(rest[0] / rest[1]) <= 1e-14 * abs(value):
        return Interval(value, value)  # all images agree
    with warnings.catch_warnings(action="ignore", category=DegenerateDataWarning):
        bounds = bootstrap(
            (np.arange(n),),
            ratio,
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=max(_AT_ONCE // n, 1),
            confidence_level=level,
            method="BCa",
            rng=np.random.Generator(np.random.Philox(key=[n, 0])),
        ).confidence_interval
    low, high = float(bounds.low), float(bounds.high)
    return None if math.isnan(low + high) else Interval(low, high)
