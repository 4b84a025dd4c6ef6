"""A ratio of two means over images, with a bootstrap interval.

Images are drawn again with replacement, numerator and denominator together; the interval is the
bias-corrected and accelerated one (BCa; Efron 1987), second-order accurate. With few images (below
about 15) every bootstrap covers less than its level; Student's intervals of the two means say more.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from advpure.base.errors import BadInput
from advpure.statistics.rates import Interval

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
        level: Confidence level in (0, 1).

    Returns:
        The ratio; None where the mean of the denominators is not above 0. Its interval is None
        for one image, and where a resample has a denominator that is not above 0. The same input
        gives the same interval: the resamples have a fixed key.

    Raises:
        BadInput: for unequal lengths, none at all, values that are not finite, or a bad level.

    Example:
        >>> found = ratio_of_means([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
        >>> found.value, found.interval
        (0.5, Interval(low=0.5, high=0.5))
    """
    top, bottom = (np.asarray(each, dtype=np.float64) for each in (numerators, denominators))
    if top.ndim != 1 or top.shape != bottom.shape or not len(top):
        subject = f"{top.size} numerators and {bottom.size} denominators"
        raise BadInput(subject, "are not pairs", "give one of each per image, at least one")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        raise BadInput("a value of a ratio", "is not finite", "leave out what is absent")
    if not 0.0 < level < 1.0:
        raise BadInput(f"level {level}", "is outside (0, 1)", "write 0.95")
    n = len(top)
    if not bottom.mean() > 0.0:
        return None
    value = float(top.mean() / bottom.mean())
    return Ratio(value, n, _interval(top, bottom, value, level) if n > 1 else None)


def _interval(
    top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64], value: float, level: float
) -> Interval | None:
    means = _resampled(top, bottom)
    if not (means[1] > 0.0).all():
        return None
    ratios = means[0] / means[1]
    rest = np.array([top.sum() - top, bottom.sum() - bottom])
    if not (rest[1] > 0.0).all():
        return None
    jackknife = rest[0] / rest[1]
    if np.ptp(jackknife) <= 1e-14 * abs(value):  # all images agree
        return Interval(value, value)
    shift = jackknife.mean() - jackknife
    acceleration = np.power(shift, 3).sum() / (6.0 * np.square(shift).sum() ** 1.5)
    # Ties count half, so that a value of several resamples does not shift the bias.
    below = ((ratios < value).sum() + 0.5 * (ratios == value).sum() + 0.5) / (len(ratios) + 1)
    bias = ndtri(below)
    tails = []
    for z in bias + ndtri((1.0 + level * np.array([-1.0, 1.0])) / 2.0):
        stretch = 1.0 - acceleration * z
        tails.append(ndtr(bias + z / stretch) if stretch > 0.0 else float(z > 0.0))
    low, high = np.quantile(ratios, tails)
    return Interval(float(low), float(high))


def _resampled(
    top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the means of both over every resample, [2, resamples]."""
    n = len(top)
    generator = np.random.Generator(np.random.Philox(key=[n, 0]))
    means, step = np.empty((2, _RESAMPLES)), max(_AT_ONCE // n, 1)
    for start in range(0, _RESAMPLES, step):
        stop = min(start + step, _RESAMPLES)
        chosen = generator.integers(0, n, (stop - start, n))
        means[0, start:stop] = top[chosen].mean(axis=1)
        means[1, start:stop] = bottom[chosen].mean(axis=1)
    return means
