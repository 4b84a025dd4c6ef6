"""Is one value of a table larger than another? With an interval, paired where it can be.

Values of the same images are compared image by image: Tango's score interval for rates whose
images are right or wrong, Student's t for differences of other means, and a betting confidence
sequence for shares of a run that stopped when it had its answer. Distances between sets have the
infinitesimal jackknife of their difference, in which a case of both sets counts in both at once.
Where there is none of these, the interval of the difference is put together from the two intervals
([Zou2008], "MOVER", which takes the two as independent).
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from advpure.analysis.metrics.frechet import standard_error
from advpure.analysis.until import keyed_order
from advpure.statistics.estimates import ByImage, Estimate, Influence
from advpure.statistics.rates import Interval, mean_interval, paired_difference
from advpure.statistics.sequences import DifferenceSequence

Verdict = Literal["holds", "does not hold", "undecided"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNDECIDED: Verdict = "undecided"
_HORIZON = 500  # images after which the interval is narrow; no choice that the data may make


class Difference(NamedTuple):
    """A difference of two values.

    Attributes:
        value: First minus second.
        interval: Its interval at the level that was asked for; None where nothing is known of the
            spread.
        n: Images behind it; None where not known.
    """

    value: float
    interval: Interval | None
    n: int | None

    @property
    def verdict(self) -> Verdict:
        """Whether the first is larger than the second, as far as the interval tells."""
        if self.interval is None:
            return UNDECIDED
        if self.interval.low > 0:
            return HOLDS
        return FAILS if self.interval.high < 0 else UNDECIDED


def subtract(first: Estimate, second: Estimate, level: float) -> Difference:
    """Compare two values.

    Args:
        first: A value with its 95 % interval.
        second: Another.
        level: Confidence level of the interval in (0, 1).

    Example:
        >>> a = Estimate(value=0.6, by_image={0: 0.5, 1: 0.6, 2: 0.7})
        >>> b = Estimate(value=0.8, by_image={0: 0.4, 1: 0.5, 2: 0.7})
        >>> difference = subtract(a, b, 0.95)
        >>> round(difference.value, 4), difference.n, difference.verdict
        (0.0667, 3, 'undecided')
    """
    one, two = first.images(), second.images()
    if one and two:
        shared = sorted(one.keys() & two.keys())
        if shared and (first.anytime or second.anytime):
            return _anytime(one, two, level)
        if len(shared) > 1:
            return _paired([one[i] for i in shared], [two[i] for i in shared], level)
    if first.influence and second.influence:
        return _jackknife(first, second, level)
    return Difference(first.value - second.value, _mover(first, second, level), first.n)


def together(verdicts: list[Verdict]) -> Verdict:
    """Join verdicts on the parts of a claim: it fails with one part, and holds with all.

    Example:
        >>> together(["holds", "undecided"]), together(["holds", "does not hold", "undecided"])
        ('undecided', 'does not hold')
    """
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and all(each == HOLDS for each in verdicts) else UNDECIDED


def _paired(left: list[float], right: list[float], level: float) -> Difference:
    if {*left, *right} <= {0.0, 1.0}:
        difference = paired_difference(left, right, level)
        return Difference(difference.value, Interval(difference.low, difference.high), difference.n)
    mean = mean_interval([a - b for a, b in zip(left, right, strict=True)], level)
    # Differences that are all equal have no deviation for an interval, however few they are.
    return Difference(mean.value, mean.interval if mean.std else None, mean.n)


def _jackknife(first: Estimate, second: Estimate, level: float) -> Difference:
    assert first.influence
    assert second.influence
    error = math.hypot(*_errors(first.influence, second.influence))
    value, reach = first.value - second.value, float(ndtri((1 + level) / 2)) * error
    return Difference(value, Interval(value - reach, value + reach), first.n)


def _errors(one: Influence, two: Influence) -> Iterator[float]:
    """Yield the standard errors by sample: of the difference where both have the same cases."""
    for name in {**one, **two}:
        left, right = one.get(name, {}), two.get(name, {})
        if left.keys() == right.keys():
            yield standard_error(np.array([left[i] - right[i] for i in left]))
        else:
            yield from (standard_error(np.array([*x.values()])) for x in (left, right) if x)


def shares_cases(first: Estimate, second: Estimate) -> bool:
    """Return True if `subtract` pairs some of the cases of two values."""
    one, two = first.images() or {}, second.images() or {}
    if len(one.keys() & two.keys()) > 1:
        return True
    left, right = first.influence or {}, second.influence or {}
    return any(left[name].keys() == right[name].keys() for name in left.keys() & right.keys())


def _anytime(one: ByImage, two: ByImage, level: float) -> Difference:
    """Compare on the images in common, in the order in which such runs meet them."""
    sequence = DifferenceSequence(horizon=_HORIZON, level=level)
    differences = [one[i] - two[i] for i in keyed_order(one.keys() & two.keys())]
    if max(map(abs, differences)) > 1.0:  # no shares
        mean = sum(differences) / len(differences)
        return Difference(mean, None, len(differences))
    for difference in differences:
        sequence.add(difference)
    return Difference(sequence.mean, sequence.interval, sequence.n)


def widened(value: Estimate, level: float) -> Interval | None:
    """Return a value's interval at another level than the 95 % at which it is reported.

    The arms grow with the normal quantile of the level.

    Example:
        >>> rate = Estimate(value=0.5, interval=Interval(0.4, 0.6))
        >>> [round(end, 3) for end in widened(rate, 0.99)]
        [0.369, 0.631]
    """
    if value.interval is None:
        return None
    scale = float(ndtri((1 + level) / 2) / ndtri(0.975))
    low, high = value.interval
    return Interval(
        value.value - scale * (value.value - low), value.value + scale * (high - value.value)
    )


def _mover(first: Estimate, second: Estimate, level: float) -> Interval | None:
    left, right = widened(first, level), widened(second, level)
    if left is None or right is None:
        return None
    down, up = first.value - left.low, left.high - first.value
    low, high = second.value - right.low, right.high - second.value
    value = first.value - second.value
    return Interval(value - math.hypot(down, high), value + math.hypot(up, low))
