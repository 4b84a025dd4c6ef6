"""The Frechet distance between two sets of features, with its standard error.

d(a, b) = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared Wasserstein distance of
two Gaussians with the sets' means and covariances (n - 1). Over the 2048 pooled features of the FID
Inception network this is the FID [Heusel2017]; over other features it is not.

The last trace is the sum of the singular values of S_a^(1/2) S_b^(1/2), which no rounding turns
negative or complex. From samples it needs no root of a matrix at all: with X the centred rows over
sqrt(n - 1), S = X'X and the sum is that of the singular values of X_a X_b'. Fewer images than
dimensions are no trouble for the arithmetic; for the statistics they are: the value is biased
upwards, and compares at equal n only.

The standard error is the infinitesimal jackknife, the limit of the bootstrap for small changes of
the images' weights: 1/n times the root of the summed squares of the influence of every image. (The
bootstrap itself sees copies of images, which make two sets look further apart: for 50 to 400 images
its mean lies above the value by about as much as the value, and its spread is a third too large.)
It covers new images at this n; the bias stays.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from advpure.analysis.metrics.moments import Moments, check_sizes
from advpure.base.errors import BadInput
from advpure.base.validation import Range, floats, number, truth
from advpure.statistics.rates import Interval

Features = npt.NDArray[np.float64]


class Frechet(NamedTuple):
    """A distance between sets.

    Attributes:
        value: The squared distance, in squared units of the features, at least 0.
        n: Images of the smaller set.
        error: Standard error over images; None for fewer than 3.
        interval: 95 % interval of what other images would give at this n; None likewise.
        dims: Dimensions of the features; with n not above them the value is biased upwards.
    """

    value: float
    n: int
    error: float | None
    interval: Interval | None
    dims: int


class Influence(NamedTuple):
    """A distance, and how it changes with the weight of each image (mean 0)."""

    value: float
    of_a: Features
    of_b: Features


def frechet_distance(a: npt.ArrayLike | Moments, b: npt.ArrayLike | Moments) -> float:
    """Measure the Frechet distance between two sets.

    Args:
        a: Features [n, d], n at least 2, or their streamed `Moments`.
        b: The other set, [m, d] or moments.

    Returns:
        The squared distance, at least 0, in float64. Zero for equal sets up to rounding (1e-12
        relative to the variance).

    Raises:
        BadInput: for sets that are too small, not finite, or of different dimensions.

    Example:
        >>> a = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> round(frechet_distance(a, a + 3.0), 12)  # shifted: the squared mean shift
        18.0
    """
    if isinstance(a, Moments) or isinstance(b, Moments):
        first, second = (m if isinstance(m, Moments) else Moments.of(m) for m in (a, b))
        return _of_moments(first, second)
    return _influence(check_features(a), check_features(b), influence=False).value


def frechet_estimate(
    a: npt.ArrayLike, b: npt.ArrayLike, *, paired: bool = True, level: float = 0.95
) -> Frechet:
    """Measure the Frechet distance and how much it depends on the choice of images.

    Args:
        a: Features [n, d].
        b: Features [n, d], row by row of the same images where `paired`; else [m, d].
        paired: Whether an image counts in both sets at once, as a purified image and its original.
        level: Confidence level.

    Raises:
        BadInput: as `frechet_distance`, and for pairs of unequal number.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(200, 3))
        >>> distance = frechet_estimate(a, 1.5 * a + [1.0, 0.0, 0.0])
        >>> [round(each, 2) for each in (distance.value, *distance.interval)]
        [1.69, 1.52, 1.85]
    """
    left, right = check_features(a), check_features(b)
    level = number(level, "level", Range(above=0, below=1))
    if truth(paired, "paired"):
        check_pairs(left, right)
    influence = frechet_influence(left, right)
    n = min(len(left), len(right))
    if paired:
        error = standard_error(influence.of_a + influence.of_b)
    else:
        error = float(np.hypot(standard_error(influence.of_a), standard_error(influence.of_b)))
    if n < 3:
        return Frechet(influence.value, n, None, None, left.shape[1])
    reach = float(ndtri((1.0 + level) / 2.0)) * error
    interval = Interval(max(influence.value - reach, 0.0), influence.value + reach)
    return Frechet(influence.value, n, error, interval, left.shape[1])


def frechet_influence(a: Features, b: Features) -> Influence:
    """Return the distance and the influence of every image, [n] and [m].

    The influence of an image is the derivative of the distance by its share of the set, the
    shares of all images adding up to 1. Cost: two QR decompositions and one SVD of min(n, d) rows.
    """
    return _influence(a, b, influence=True)


def standard_error(influence: Features) -> float:
    """Return the infinitesimal jackknife's standard error of a value with this influence [n]."""
    n = len(influence)
    return float(np.sqrt(np.square(influence).sum() / max(n - 1, 1) / n))


def weighted_distance(a: Features, b: Features, weights: Features) -> float:
    """Return the distance where image k counts `weights[k]` times in both sets (a resample).

    Args:
        a: Features [n, d].
        b: Features [n, d] of the same images.
        weights: How often each image is there, [n], whole numbers that are 0 or more.
    """
    kept = weights > 0
    return _influence(a[kept], b[kept], weights[kept], influence=False).value


def _influence(
    a: Features, b: Features, weights: Features | None = None, *, influence: bool
) -> Influence:
    if a.shape[1] != b.shape[1]:
        rule = f"and {b.shape[1]} are not the same"
        raise BadInput(f"dimensions {a.shape[1]}", rule, "compare features of one network")
    (mean_a, x), (mean_b, y) = (_centred(each, weights) for each in (a, b))
    (q_a, r_a), (q_b, r_b) = np.linalg.qr(x), np.linalg.qr(y)
    u, s, v = np.linalg.svd(r_a @ r_b.T, full_matrices=False)
    shift = mean_a - mean_b
    value = shift @ shift + np.square(x).sum() + np.square(y).sum() - 2.0 * s.sum()
    value = max(float(value), 0.0)
    if not influence:
        return Influence(value, np.empty(0), np.empty(0))
    rounding = 1e-12 * (np.square(x).sum() + np.square(y).sum())
    parts = []
    for sign, rows, centre, scaled, basis in (
        (1.0, a, mean_a, x, q_a @ u),
        (-1.0, b, mean_b, y, q_b @ v.T),
    ):
        trace = np.square(scaled).sum(axis=1) - (basis * s * basis).sum(axis=1)
        each = 2.0 * sign * (rows - centre) @ shift + len(rows) * trace
        each = each - each.mean()
        parts.append(np.where(np.abs(each) > rounding, each, 0.0))
    return Influence(value, *parts)


def _centred(rows: Features, weights: Features | None) -> tuple[Features, Features]:
    """Return the mean, and rows X with X'X the covariance (n - 1)."""
    if weights is None:
        mean = rows.mean(axis=0)
        return mean, (rows - mean) / np.sqrt(len(rows) - 1)
    total = weights.sum()
    mean = weights @ rows / total
    return mean, (rows - mean) * np.sqrt(weights / (total - 1))[:, None]


def _of_moments(a: Moments, b: Moments) -> float:
    if a.dims != b.dims:
        rule = f"and {b.dims} are not the same"
        raise BadInput(f"dimensions {a.dims}", rule, "compare features of one network")
    shift, cov_a, cov_b = a.mean - b.mean, a.covariance, b.covariance
    s = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False)
    return max(float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * s.sum()), 0.0)


def _root(covariance: Features) -> Features:
    """Return the symmetric root; eigenvalues that are rounding count as zero, not as its root."""
    values, vectors = np.linalg.eigh(covariance)
    floor = values[-1] * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(values > floor, values, 0.0))
    root: Features = (vectors * roots) @ vectors.T
    return root


def check_features(features: npt.ArrayLike) -> Features:
    """Return features as float64 [n, d].

    Raises:
        BadInput: for another shape, fewer than 2 images, or values that are not finite.
    """
    rows = floats(features, "features")
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise BadInput(
            f"features of shape {list(rows.shape)}",
            "are not [n, d] of at least 2 images",
            "give one row an image",
        )
    if not np.isfinite(rows).all():
        wrong = int((~np.isfinite(rows).all(axis=1)).sum())
        raise BadInput(
            f"features of {wrong} of {len(rows)} images", "are not finite", "leave those images out"
        )
    check_sizes(rows)
    return rows


def check_pairs(a: Features, b: Features) -> None:
    """Refuse two sets that cannot be of the same images."""
    if len(a) != len(b):
        raise BadInput(f"sets of {len(a)} and {len(b)} images", "are no pairs", "use paired=False")
