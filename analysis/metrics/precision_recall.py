"""Precision and recall of a set of images against real ones, over features.

The manifold of a set is the union of the balls around its members that reach to their k-th nearest
other member. Precision: share of generated images in the manifold of the real ones (are they
plausible?). Recall: share of real images in the manifold of the generated ones (is anything lost?).

Source: [Kynkaanniemi2019], equations 1 to 3; k = 3.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.analysis.metrics.frechet import Features, check_features
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, whole
from advpure.statistics.rates import Rate, wilson

_BLOCK = 2**24  # distances at once


class PrecisionRecall(NamedTuple):
    """Two rates; the interval of each is conditional on the other set's manifold."""

    precision: Rate
    recall: Rate


def precision_recall(
    real: npt.ArrayLike, generated: npt.ArrayLike, k: int = 3, level: float = 0.95
) -> PrecisionRecall:
    """Measure precision and recall.

    A purified image lies near its own original, which is among the real images; so precision is
    higher than that of images that were generated from nothing, and compares among purifiers only.

    Args:
        real: Features [n, d], more than k.
        generated: Features [m, d], more than k.
        k: Which neighbour a ball reaches to, 1 or more.
        level: Confidence level of Wilson's intervals.

    Raises:
        BadInput: for sets that are too small, of other dimensions, or not finite.

    Example:
        >>> line = np.arange(6.0)[:, None]
        >>> both = precision_recall(line, line + 100.0)
        >>> both.precision.value, both.recall.value
        (0.0, 0.0)
    """
    inside = manifold_members(real, generated, k)
    level = number(level, "level", Range(above=0, below=1))
    rates = (wilson(int(each.sum()), len(each), level) for each in inside)
    return PrecisionRecall(*rates)


def manifold_members(
    real: npt.ArrayLike, generated: npt.ArrayLike, k: int = 3
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which images lie in the manifold of the other set.

    Args:
        real: As `precision_recall`.
        generated: Likewise.
        k: Likewise.

    Returns:
        Of the generated ones, [m], whose mean is the precision, and of the real ones, [n], the
        recall.

    Raises:
        BadInput: as `precision_recall`.
    """
    rows, others = check_features(real), check_features(generated)
    if rows.shape[1] != others.shape[1]:
        rule = f"and {others.shape[1]} are not the same"
        raise BadInput(f"dimensions {rows.shape[1]}", rule, "compare features of one network")
    k = whole(k, "k")
    if k < 1 or min(len(rows), len(others)) <= k:
        raise BadInput(
            f"sets of {len(rows)} and {len(others)} images",
            f"have no {k}-th nearest neighbour within them",
            f"use at least {max(k, 1) + 1} images, and k of 1 or more",
        )
    # Distances do not change with the origin, and the product form below cancels less near it.
    centre = np.concatenate([rows, others]).mean(axis=0)
    rows, others = rows - centre, others - centre
    return _inside(others, rows, _radii(rows, k)), _inside(rows, others, _radii(others, k))


def _radii(rows: Features, k: int) -> Features:
    """Return the squared distance of every row to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for start, stop in _blocks(len(rows), len(rows)):
        squares = _squares(rows[start:stop], rows)
        squares[np.arange(stop - start), np.arange(start, stop)] = np.inf  # not itself
        radii[start:stop] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return radii


def _inside(points: Features, centres: Features, radii: Features) -> npt.NDArray[np.bool_]:
    """Return whether each point lies in a ball."""
    inside = np.empty(len(points), dtype=bool)
    for start, stop in _blocks(len(points), len(centres)):
        inside[start:stop] = (_squares(points[start:stop], centres) <= radii).any(axis=1)
    return inside


def _squares(a: Features, b: Features) -> Features:
    squares: Features = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * a @ b.T
    return np.maximum(squares, 0.0)


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(_BLOCK // columns, 1)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
