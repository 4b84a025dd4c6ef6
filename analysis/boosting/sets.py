"""Two versions of the same generated images against real ones: distances, scores, and the change.

The images before and after are paired: an image counts in both versions at once. The real images
are drawn apart. Intervals are 95 %, for other images at these numbers:

* Frechet distances and inception scores have the infinitesimal jackknife, see
  `advpure.analysis.metrics.frechet`; the influence of an image on a difference is the difference of
  its influences, for generated and for real images, whose errors add up in squares;
* precision and recall have Wilson's interval, and their differences Tango's of paired rates, of
  generated images and of real ones; all are conditional on the other set's manifold.

The estimates carry the influences, or the values, of the images behind them, so that the sets of
two runs can be compared in the same way.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from advpure.analysis.metrics.frechet import frechet_influence, standard_error
from advpure.analysis.metrics.inception_score import inception_score, score_influence
from advpure.analysis.metrics.precision_recall import manifold_members
from advpure.statistics.estimates import ByImage, Estimate
from advpure.statistics.rates import Interval, paired_difference, wilson

Array = npt.NDArray[np.float64]
NEIGHBOUR = 3
_REACH = float(ndtri(0.975))
MADE, REAL = "generated", "real"


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


class Ids(NamedTuple):
    """What the images of two sets are called.

    Attributes:
        made: Ids of the generated images, [n].
        real: Ids of the real images, [m].
        reference: The set that the real images are of.
    """

    made: Sequence[int]
    real: Sequence[int]
    reference: str = ""


def set_changes(
    kind: str, real: Array, before: Array, after: Array, ids: Ids | None = None
) -> dict[str, Change]:
    """Compare two versions of a set of images with real images.

    Args:
        kind: ``frechet``, ``score`` or ``precision-recall``; see `metrics.choice.Metric`.
        real: Features of the real images, [m, d]; not used by scores.
        before: Features, or class probabilities, of the images before, [n, d].
        after: Of the same images after, row by row.
        ids: What they are called, by which sets of two runs are paired; None for 0, 1, ...

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
    ids = Ids(range(n), range(len(real))) if ids is None else ids
    if kind == "score":
        return {"": _scores(before, after, ids)} if n > 1 else {}
    if kind == "frechet":
        return {"": _distances(real, before, after, ids)} if min(n, len(real)) > 2 else {}
    if min(n, len(real)) <= NEIGHBOUR:
        return {}
    sides = [manifold_members(real, each, NEIGHBOUR) for each in (before, after)]
    return {
        name: _rates(sides[0][k], sides[1][k], own)
        for k, (name, own) in enumerate((("precision", ids.made), ("recall", ids.real)))
    }


def _distances(real: Array, before: Array, after: Array, ids: Ids) -> Change:
    one, two = frechet_influence(real, before), frechet_influence(real, after)
    n = len(before)
    return Change(
        _within(one.value, n, _by_sample(one.of_a, one.of_b, ids), least=0.0),
        _within(two.value, n, _by_sample(two.of_a, two.of_b, ids), least=0.0),
        _within(
            two.value - one.value,
            n,
            _by_sample(two.of_a - one.of_a, two.of_b - one.of_b, ids),
        ),
    )


def _by_sample(real: Array, made: Array, ids: Ids) -> dict[str, ByImage]:
    name = f"{REAL} {ids.reference}".rstrip()
    return {name: _named(ids.real, real), MADE: _named(ids.made, made)}


def _named(ids: Sequence[int], values: npt.NDArray[Any]) -> dict[int, float]:
    return dict(zip(ids, values.astype(float).tolist(), strict=True))


def _within(
    value: float, n: int, influence: Mapping[str, ByImage], least: float = -np.inf
) -> Estimate:
    errors = (standard_error(np.array([*own.values()])) for own in influence.values())
    reach = _REACH * math.hypot(*errors)
    interval = Interval(max(value - reach, least), value + reach)
    return Estimate(value=value, n=n, interval=interval, influence=influence)


def _scores(before: Array, after: Array, ids: Ids) -> Change:
    sides = [inception_score(each) for each in (before, after)]
    (low, of_low), (high, of_high) = score_influence(before), score_influence(after)
    estimates = [
        Estimate(
            value=s.value,
            n=s.n,
            interval=s.interval,
            influence={MADE: _named(ids.made, own)},
        )
        for s, own in zip(sides, (of_low, of_high), strict=True)
    ]
    influence = {MADE: _named(ids.made, of_high - of_low)}
    difference = _within(high - low, len(before), influence)
    return Change(estimates[0], estimates[1], difference)


def _rates(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], ids: Sequence[int]
) -> Change:
    sides = [
        Estimate.of(wilson(int(each.sum()), len(each)), _named(ids, each))
        for each in (before, after)
    ]
    change = _named(ids, after.astype(float) - before)
    return Change(sides[0], sides[1], Estimate.of(paired_difference(after, before), change))


def groups(labels: npt.NDArray[np.int64], least: int) -> Mapping[int, npt.NDArray[np.bool_]]:
    """Return which images are of each class that has at least so many.

    Example:
        >>> sorted(groups(np.array([0, 0, 2]), 2))
        [0]
    """
    counts = {label: labels == label for label in np.unique(labels).tolist()}
    return {label: rows for label, rows in counts.items() if int(rows.sum()) >= least}
