"""Rates and means with their n and their interval: absent is absent, never 0.0.

Sources: [Wilson1927] (score interval); [Clopper1934] (exact interval, as beta quantiles);
[Tango1998] (score interval for a difference of paired proportions); [McNemar1947] in its exact,
binomial form. Levels are two-sided and 0.95 unless said otherwise.

`scipy.stats.binomtest(...).proportion_ci` does not replace the two intervals of a rate: it refuses
shares of draws, which are no whole number of successes, and its exact bounds are good to 2e-12
absolutely (0.5 % too high for 1 success among 10^7), not rounded outwards.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta, binomtest
from scipy.stats import t as student

from advpure.base.errors import BadInput

# Beta quantiles are good to about 1e-14; exact bounds move outwards by more than that.
_GUARD = 1e-12


NOT_NEGATIVE = (0.0, math.inf)
"""What sizes and rates of compression cannot leave."""
COSINES = (-1.0, 1.0)
"""What cosines, correlations and differences of rates cannot leave."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Rate(NamedTuple):
    """A rate in [0, 1] among `n` independent cases, with its interval and how that was made."""

    value: float
    n: int
    low: float
    high: float
    method: str


class Mean(NamedTuple):
    """A mean of `n` values; standard deviation and interval are None where n = 1."""

    value: float
    n: int
    std: float | None
    interval: Interval | None


class Difference(NamedTuple):
    """A difference of two paired rates among `n` cases, its interval and exact p-value."""

    value: float
    n: int
    low: float
    high: float
    p_value: float
    method: str


class RandomizedSummary(NamedTuple):
    """The four accuracies of a random defense, among the same images.

    Attributes:
        one_shot: Draw 0 is right: what a single query gives.
        mean: Mean over draws of the share of right draws.
        worst: Every draw is right: what an attacker who may retry leaves.
        majority: The most frequent prediction is right; ties go to the lowest class.
    """

    one_shot: Rate
    mean: Rate
    worst: Rate
    majority: Rate


def wilson(successes: int, n: int, level: float = 0.95) -> Rate:
    """Estimate a rate, with Wilson's score interval.

    Covers the true rate with probability close to the level on average over rates, not for
    each of them; see `clopper_pearson` for a guarantee.

    Args:
        successes: Cases that count, 0..n.
        n: Cases, at least 1.
        level: Confidence level in (0, 1).

    Raises:
        BadInput: for n below 1, successes outside 0..n, or a level outside (0, 1).

    Example:
        >>> rate = wilson(45, 50)
        >>> f"{rate.value:.2f} in [{rate.low:.4f}, {rate.high:.4f}]"
        '0.90 in [0.7864, 0.9565]'
    """
    successes, n = _check_counts(successes, n)
    return _wilson(successes / n, n, level, "wilson")


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Rate:
    """Estimate a rate, with the exact interval of Clopper and Pearson.

    Covers every true rate with at least the level; the bounds are rounded outwards.

    Args:
        successes: Cases that count, 0..n.
        n: Cases, at least 1.
        level: Confidence level in (0, 1).

    Raises:
        BadInput: as `wilson`.

    Example:
        >>> rate = clopper_pearson(0, 10)
        >>> f"[{rate.low:.4f}, {rate.high:.4f}]"
        '[0.0000, 0.3085]'
    """
    successes, n = _check_counts(successes, n)
    tail = (1.0 - _check_level(level)) / 2.0
    low = clopper_pearson_lower(successes, n, tail)
    high = 1.0 - clopper_pearson_lower(n - successes, n, tail)
    return Rate(successes / n, n, low, high, "clopper-pearson")


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """Bound a rate from below, one-sided: wrong with probability at most alpha.

    Args:
        successes: Cases that count, 0..n.
        n: Cases, at least 1.
        alpha: Probability of error in (0, 1).

    Returns:
        The bound, rounded down (relative 1e-12).

    Raises:
        BadInput: as `wilson`, and for alpha outside (0, 1).

    Example:
        With all of n right the bound is alpha ** (1 / n):

        >>> f"{clopper_pearson_lower(100, 100, 0.001):.6f}"
        '0.933254'
    """
    successes, n = _check_counts(successes, n)
    alpha = _check_level(alpha, "alpha")
    if successes == 0:
        return 0.0
    return float(beta.ppf(alpha, successes, n - successes + 1)) * (1.0 - _GUARD)


def mean_interval(
    values: Sequence[float] | npt.ArrayLike,
    level: float = 0.95,
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Mean:
    """Estimate a mean, with Student's interval (exact for normal values, else for large n).

    Args:
        values: Independent, finite numbers, at least one.
        level: Confidence level in (0, 1).
        within: What the values cannot leave; the interval is cut to it.

    Returns:
        The mean, n, the standard deviation with n - 1, the interval; the last two are None
        for a single value.

    Raises:
        BadInput: for no values, values that are not finite, or a level outside (0, 1).

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> found.value, found.std, round(found.interval.high, 4)
        (2.0, 1.0, 4.4841)
        >>> mean_interval([1.0])
        Mean(value=1.0, n=1, std=None, interval=None)
    """
    data = _check_values(values)
    level, n, value = _check_level(level), len(data), float(data.mean())
    if n == 1:
        return Mean(value, n, None, None)
    std = float(data.std(ddof=1))
    reach = float(student.ppf((1.0 + level) / 2.0, n - 1)) * std / math.sqrt(n)
    ends = Interval(max(value - reach, within[0]), min(value + reach, within[1]))
    return Mean(value, n, std, ends)


def rate_of_means(fractions: Sequence[float] | npt.ArrayLike, level: float = 0.95) -> Rate:
    """Estimate a rate from each image's share of successful draws.

    The interval is Wilson's with n the number of images, not of draws, since the draws of one
    image are not independent cases. It is conservative: a share in [0, 1] with mean p has a
    variance of at most p (1 - p), which is what Wilson's interval assumes.

    Args:
        fractions: One share in [0, 1] per image.
        level: Confidence level in (0, 1).

    Raises:
        BadInput: for no images, shares outside [0, 1], or a level outside (0, 1).

    Example:
        >>> rate = rate_of_means([1.0, 0.5, 0.75, 0.75])
        >>> f"{rate.value:.2f} in [{rate.low:.2f}, {rate.high:.2f}], n = {rate.n}"
        '0.75 in [0.30, 0.95], n = 4'
    """
    data = _check_values(fractions)
    if data.min() < 0.0 or data.max() > 1.0:
        wrong = data[(data < 0.0) | (data > 1.0)][0]
        raise BadInput(f"share {wrong}", "is outside [0, 1]", "give successes / draws")
    return _wilson(float(data.mean()), len(data), level, "wilson over images")


def paired_difference(
    first: Sequence[int] | npt.ArrayLike, second: Sequence[int] | npt.ArrayLike, level: float = 0.95
) -> Difference:
    """Compare two rates on the same cases: rate of the first minus rate of the second.

    The interval is Tango's score interval, which stays sensible for few or no discordant pairs
    and excludes 0 exactly when McNemar's statistic |b - c| / sqrt(b + c) is beyond the normal
    quantile. The p-value is that of the exact (binomial) McNemar test, two-sided.

    Args:
        first: 0/1 or boolean outcomes.
        second: Outcomes of the same cases in the same order.
        level: Confidence level in (0, 1).

    Raises:
        BadInput: for no cases, unequal lengths, outcomes other than 0 and 1, or a bad level.

    Example:
        >>> found = paired_difference([1, 1, 1, 1, 0, 1], [0, 1, 0, 0, 0, 0])
        >>> round(found.value, 4), found.p_value, found.low > 0.0
        (0.6667, 0.125, True)
    """
    left, right = _check_values(first), _check_values(second)
    z = _quantile(level)
    if len(left) != len(right):
        subject = f"{len(left)} and {len(right)} outcomes"
        raise BadInput(subject, "are not pairs", "compare on the same images")
    if not (np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all()):
        raise BadInput("outcomes", "are not all 0 or 1", "give right or wrong per image")
    n, b, c = len(left), int((left > right).sum()), int((left < right).sum())
    low, high = _tango(b, c, n, z), -_tango(c, b, n, z)
    p_value = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    return Difference((b - c) / n, n, low, high, p_value, "tango, exact mcnemar")


def randomized_summary(
    predictions: Any,
    labels: Any,
    level: float = 0.95,
    rate: Callable[[Sequence[float]], Rate] | None = None,
) -> RandomizedSummary:
    """Summarise the decisions of a random defense over independent draws.

    Args:
        predictions: Classes, integers [samples, draws], draw 0 first (arrays or CPU tensors).
        labels: True classes, integers [samples].
        level: Confidence level in (0, 1) of the intervals, all of them with n = samples.
        rate: From one share per sample to a rate with its interval, instead of Wilson's.

    Raises:
        BadInput: for other shapes or types, or no samples or draws.

    Example:
        >>> summary = randomized_summary([[1, 1, 2], [0, 3, 3]], [1, 3])
        >>> [rate.value for rate in summary]
        [0.5, 0.6666666666666666, 0.0, 1.0]
    """
    decided, truth = np.asarray(predictions), np.asarray(labels)
    shapes = f"predictions {list(decided.shape)} and labels {list(truth.shape)}"
    if decided.ndim != 2 or truth.shape != decided.shape[:1] or not decided.size:
        raise BadInput(shapes, "do not match", "give [samples, draws] and [samples], none empty")
    if decided.dtype.kind not in "iu" or truth.dtype.kind not in "iu":
        raise BadInput(shapes, "are not all integers", "give classes, not scores")
    right = decided == truth[:, None]
    classes = np.unique(decided)
    votes = np.stack([(decided == each).sum(axis=1) for each in classes], axis=1)
    majority = classes[votes.argmax(axis=1)] == truth
    n = len(truth)
    if rate is not None:
        shares = (right[:, 0], right.mean(axis=1), right.all(axis=1), majority)
        return RandomizedSummary(*(rate(each.astype(float).tolist()) for each in shares))
    return RandomizedSummary(
        one_shot=wilson(int(right[:, 0].sum()), n, level),
        mean=rate_of_means(right.mean(axis=1), level),
        worst=wilson(int(right.all(axis=1).sum()), n, level),
        majority=wilson(int(majority.sum()), n, level),
    )


def _wilson(p: float, n: int, level: float, method: str) -> Rate:
    z2 = _quantile(level) ** 2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = centre - reach if p > 0.0 else 0.0
    high = centre + reach if p < 1.0 else 1.0
    return Rate(p, n, max(low, 0.0), min(high, 1.0), method)


def _tango(b: int, c: int, n: int, z: float) -> float:
    """Bound the difference (b - c) / n from below: where its score statistic equals z."""

    def excess(delta: float) -> float:
        # q: the probability of the second kind of discordance that is likeliest given delta.
        linear = (2 * n - b + c) * delta - b - c
        inner = max(linear**2 + 8 * n * c * delta * (1 - delta), 0.0)
        q = (math.sqrt(inner) - linear) / (4 * n)
        spread = math.sqrt(max(n * (2 * q + delta * (1 - delta)), 0.0))
        return b - c - n * delta - z * spread

    value = (b - c) / n
    if value == -1.0:
        return -1.0
    # Without discordant pairs of the second kind the statistic is 0/0 at the value itself.
    top = value - 1e-9
    return float(brentq(excess, -1.0, top, xtol=1e-13)) if excess(top) < 0.0 else value


def _quantile(level: float) -> float:
    return float(ndtri((1.0 + _check_level(level)) / 2.0))


def _check_level(level: float, name: str = "level") -> float:
    if not 0.0 < level < 1.0:
        raise BadInput(f"{name} {level}", "is outside (0, 1)", "write 0.95, or 0.05 for alpha")
    return float(level)


def _check_counts(successes: int, n: int) -> tuple[int, int]:
    whole_n, whole = int(n) if n == n else 0, int(successes) if successes == successes else -1
    if whole_n != n or whole_n < 1:
        raise BadInput(f"n = {n}", "is no positive whole number", "a rate needs cases")
    if whole != successes or not 0 <= whole <= whole_n:
        rule = f"is no whole number from 0 to n = {whole_n}"
        raise BadInput(f"successes = {successes}", rule, "count cases among the n")
    return whole, whole_n


def _check_values(values: Any) -> npt.NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise BadInput(f"values of shape {list(data.shape)}", "are no list of numbers", _LIST)
    if not np.isfinite(data).all():
        index = int(np.flatnonzero(~np.isfinite(data))[0])
        raise BadInput(f"value {data[index]} at {index}", "is not finite", _LIST)
    return data


_LIST = "give at least one finite number"
