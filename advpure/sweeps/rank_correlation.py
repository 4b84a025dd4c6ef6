"""Rank correlation of two columns over the rows of a table, with a bootstrap over images.

The rows (purifiers) are what they are; what would differ in another experiment are the images. So
whole images are drawn with replacement, the same ones for all rows, and for both columns where they
are measured on the same images; every value is computed anew from the drawn images, and the
correlation from these.

Noise in the values mixes up ranks and so pulls the correlation towards 0; drawing images once more
pulls again, by about as much. Percentiles of the drawn correlations therefore miss a law that is
nearly perfect (in simulated tables of fifteen purifiers and fifty images they never held a true
value of -1). The interval is their hull with their reflection about the value (the basic
bootstrap), which undoes the pull. It is approximate where true values are tied or nearly so.

Where the values themselves are hardly known, such as rates under an attack that nearly all images
fall to, drawing images anew knows no better, and denied perfect laws in most simulated tables. So
the interval is also carried to -1, or to 1, where true values in perfect order are within the
values' own simultaneous intervals (Clopper-Pearson's for rates, Student's for other means, each at
1 - 0.05 / rows).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from advpure.core.randomness import RandomnessConfig
from advpure.statistics.estimates import ByImage
from advpure.statistics.rates import Interval, clopper_pearson, mean_interval

DRAWS = 2000
Array = npt.NDArray[np.float64]


class RankCorrelation(NamedTuple):
    """Spearman's correlation.

    Attributes:
        value: Over the rows; ties have mean ranks.
        interval: About 95 %, over drawn images, see the module; it holds the value. None without
            values of images.
        n: Number of images; None likewise.
    """

    value: float
    interval: Interval | None = None
    n: int | None = None


def rank_correlation(
    first: Sequence[float],
    second: Sequence[float],
    first_samples: Sequence[ByImage | None] = (None,),
    second_samples: Sequence[ByImage | None] = (None,),
) -> RankCorrelation | None:
    """Correlate the ranks of two columns.

    Args:
        first: Values of the rows in one column.
        second: Values in the other.
        first_samples: For each row its values by sample id.
        second_samples: Likewise.

    Returns:
        The correlation; None for fewer than three rows, or a column whose values are all equal.

    Example:
        >>> rank_correlation([0.1, 0.2, 0.4], [0.9, 0.8, 0.3]).value
        -1.0
    """
    if len(first) < 3:
        return None
    value = _spearman(np.array([first]), np.array([second]))[0]
    if not np.isfinite(value):
        return None
    left, right = _matrix(first_samples), _matrix(second_samples)
    if left is None or right is None:
        return RankCorrelation(float(value))
    n = min(len(left[1]), len(right[1]))
    weights = [
        _weights(len(ids), 0 if left[1] == right[1] else k)
        for k, (_, ids) in enumerate((left, right))
    ]
    drawn = _spearman(weights[0] @ left[0].T, weights[1] @ right[0].T)
    kept = drawn[np.isfinite(drawn)]
    if len(kept) < DRAWS / 2:
        return RankCorrelation(float(value), None, n)
    low, high = _interval(float(value), kept)
    if _may_be_ordered(first, left[0], second, right[0], -1):
        low = -1.0
    if _may_be_ordered(first, left[0], second, right[0], 1):
        high = 1.0
    return RankCorrelation(float(value), Interval(low, high), n)


def _may_be_ordered(
    first: Sequence[float],
    first_images: Array,
    second: Sequence[float],
    second_images: Array,
    sign: int,
) -> bool:
    """Tell whether true values of one column may follow the order of the other perfectly.

    Args:
        first: Values of the rows.
        first_images: Their values of images, [rows, images].
        second: Likewise.
        second_images: Likewise.
        sign: 1 for the same order, -1 for the opposite one.
    """
    for known, images in ((first, second_images), (second, first_images)):
        boxes, least = _boxes(images), -np.inf
        for row in np.argsort(sign * np.asarray(known), kind="stable"):
            least = max(least, boxes[row].low)
            if least > boxes[row].high:
                break
        else:
            return True
    return False


def _boxes(images: Array) -> list[Interval]:
    """Return an interval of every row's true value, all of them together at 95 %."""
    level, n = 1.0 - 0.05 / len(images), images.shape[1]
    if np.isin(images, (0.0, 1.0)).all():
        rates = [clopper_pearson(int(row.sum()), n, level) for row in images]
        return [Interval(rate.low, rate.high) for rate in rates]
    whole = Interval(-np.inf, np.inf)
    return [mean_interval(row.tolist(), level).interval or whole for row in images]


def _interval(value: float, drawn: Array) -> Interval:
    """Join percentiles with their reflection about the value, within [-1, 1]."""
    low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    ends = [value, low, high, 2.0 * value - low, 2.0 * value - high]
    return Interval(max(min(ends), -1.0), min(max(ends), 1.0))


def _weights(n: int, stream: int) -> Array:
    """Return how often each of n images is drawn, as shares [draws, n]."""
    xi = RandomnessConfig(0, "counter").fold("bootstrap", stream)
    shares = xi.uniform(list(range(DRAWS)), 0, (n,)).numpy()
    chosen = np.minimum((shares * n).astype(np.int64), n - 1)
    return np.stack([np.bincount(draw, minlength=n) for draw in chosen]) / n


def _matrix(samples: Sequence[ByImage | None]) -> tuple[Array, list[int]] | None:
    """Return values [rows, images] and the ids; None if a row lacks an image."""
    if not samples or any(not each for each in samples):
        return None
    ids = sorted(samples[0] or {})
    if any(sorted(each or {}) != ids for each in samples):
        return None
    return np.array([[each[i] for i in ids] for each in samples if each]), ids


def _spearman(first: Array, second: Array) -> Array:
    """Correlate the ranks of matching rows of two matrices [draws, values]."""
    # Sums of the same images in another order differ in the last bits; such values are ties.
    ranks = [rankdata(np.round(each, 12), axis=1) for each in (first, second)]
    a, b = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    with np.errstate(invalid="ignore"):  # a column of ties has no correlation: NaN
        return np.asarray((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1)))
