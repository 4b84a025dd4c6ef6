"""Two versions of the same generated images against real ones: distances, scores, and the change.

The images before and after are paired: an image counts in both versions at once. The real images
are drawn apart. Intervals are 95 %, for other images at these numbers:

* Frechet distances and inception scores have the infinitesimal jackknife, see
  `advpure.analysis.metrics.frechet`; the influence of an image on a difference is the difference of
  its influences, for generated and for real images, whose errors add up in squares;
* precision and recall have Wilson's interval, and their differences Tango's of paired rates, of
  generated images and of real ones; all are conditional on the other set's manifold.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from advpure.analysis.metrics.frechet import frechet_influence, standard_error
from advpure.analysis.metrics.inception_score import inception_score, score_influence
from advpure.analysis.metrics.precision_recall import manifold_members
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, paired_difference, wilson

Array = npt.NDArray[np.float64]
NEIGHBOUR = 3
_REACH = float(ndtri(0.975))


class Change(NamedTuple):
    """A quantity of a set before and after.

    Attributes:
        before: Of the images as they were.
        after: Of the same images as they are.
        difference: After minus before, paired.
    """

    before: Estimate
    after: Estimate
    difference: Estimate


def set_changes(kind: str, real: Array, before: Array, after: Array) -> dict[str, Change]:
    """Compare two versions of a set of images with real images.

    Args:
        kind: ``frechet``, ``score`` or ``precision-recall``; see `metrics.choice.Metric`.
        real: Features of the real images, [m, d]; not used by scores.
        before: Features, or class probabilities, of the images before, [n, d].
        after: Of the same images after, row by row.

    Returns:
        The change by the part of the metric's name that it replaces: one without a name, or
        ``precision`` and ``recall``; nothing where the sets are too small.

    Cost: no network; a decomposition of min(n, d) rows for each Frechet distance.

    Example:
        >>> draw = np.random.default_rng(0).normal
        >>> real, made = draw(size=(500, 2)), draw(size=(200, 2)) + 1.0
        >>> change = set_changes("frechet", real, made, made - 1.0)[""]
        >>> change.difference.interval.high < 0.0
        True
    """
    n = len(before)
    if kind == "score":
        return {"": _scores(before, after)} if n > 1 else {}
    if kind == "frechet":
        return {"": _distances(real, before, after)} if min(n, len(real)) > 2 else {}
    if min(n, len(real)) <= NEIGHBOUR:
        return {}
    sides = [manifold_members(real, each, NEIGHBOUR) for each in (before, after)]
    return {
        name: _rates(sides[0][k], sides[1][k]) for k, name in enumerate(("precision", "recall"))
    }


def _distances(real: Array, before: Array, after: Array) -> Change:
    one, two = frechet_influence(real, before), frechet_influence(real, after)
    n = len(before)
    sides = [_within(each.value, _both(each.of_a, each.of_b), n, least=0.0) for each in (one, two)]
    error = _both(two.of_a - one.of_a, two.of_b - one.of_b)
    return Change(sides[0], sides[1], _within(two.value - one.value, error, n))


def _both(real: Array, made: Array) -> float:
    return float(np.hypot(standard_error(real), standard_error(made)))


def _within(value: float, error: float, n: int, least: float = -np.inf) -> Estimate:
    low, high = value - _REACH * error, value + _REACH * error
    return Estimate(value=value, n=n, interval=Interval(max(low, least), high))


def _scores(before: Array, after: Array) -> Change:
    sides = [inception_score(each) for each in (before, after)]
    (low, of_low), (high, of_high) = score_influence(before), score_influence(after)
    estimates = [Estimate(value=s.value, n=s.n, interval=s.interval) for s in sides]
    difference = _within(high - low, standard_error(of_high - of_low), len(before))
    return Change(estimates[0], estimates[1], difference)


def _rates(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> Change:
    sides = [Estimate.of(wilson(int(each.sum()), len(each))) for each in (before, after)]
    return Change(sides[0], sides[1], Estimate.of(paired_difference(after, before)))


def groups(labels: npt.NDArray[np.int64], least: int) -> Mapping[int, npt.NDArray[np.bool_]]:
    """Return which images are of each class that has at least so many.

    Example:
        >>> sorted(groups(np.array([0, 0, 2]), 2))
        [0]
    """
    counts = {label: labels == label for label in np.unique(labels).tolist()}
    return {label: rows for label, rows in counts.items() if int(rows.sum()) >= least}
