"""The zero-inflated Gaussian: the shape that minimum perturbations were found to have.

With probability 1 - a the value is 0 (a misclassified image), else it is drawn from N(m, s^2), and
a draw below 0 counts as 0 too. So, for eps >= 0,

    S(eps) = P(r* > eps) = a (1 - Phi((eps - m) / s)),

and P(r* = 0) = 1 - a Phi(m / s). Values are known exactly, within an interval (found above, not
found below) or only as larger than where the search ended; each has its probability in the
likelihood. For given m and s the best a is p / Phi(m / s), with p the share of values above 0, at
most 1; the other two are found by a simplex search and a Newton step.

Source: [Wei2025], section 5.2 and figure 3b.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr, ndtri

from advpure.base.errors import BadInput
from advpure.statistics.kaplan_meier import Survival
from advpure.statistics.rates import Interval, wilson

Array = npt.NDArray[np.float64]
_STEP = 1e-4  # of second differences, in units of the parameters (m / scale, log s)


@dataclass(frozen=True, kw_only=True)
class ZeroInflatedGaussian:
    """A fitted distribution; its survival function is S of the module.

    Attributes:
        plateau: a, in (0, 1]: the accuracy, as far as no draw is below 0.
        mean: m, in the unit of the values.
        std: s, likewise.
        n: Values behind the fit.
        positive: How many of them are above 0.
        covariance: Of the estimates of m and log s, [2, 2].
        log_likelihood: Its maximum.
        level: Confidence level of bands and intervals.
    """

    plateau: float
    mean: float
    std: float
    n: int
    positive: int
    covariance: tuple[tuple[float, float], tuple[float, float]]
    log_likelihood: float
    level: float = 0.95

    def survival(self, eps: float | npt.ArrayLike) -> Array:
        """Return S(eps), without a band."""
        here = (self.mean - np.asarray(eps, dtype=np.float64)) / self.std
        share: Array = self.plateau * ndtr(here)
        return share

    def at(self, eps: float) -> Survival:
        """Return S(eps) with a pointwise band.

        S is the product of the share above 0, with Wilson's interval, and the survival given that,
        with an interval from the likelihood's curvature on the log(-log) scale; the two estimates
        are independent, and their intervals are joined by recovering variances ([Zou2008]),
        which stays honest where all values are above 0.
        """
        share = wilson(self.positive, self.n, self.level)
        top = self.mean / self.std
        z, here = float(ndtri((1.0 + self.level) / 2.0)), (self.mean - eps) / self.std
        given = float(log_ndtr(here) - log_ndtr(top))
        ratio_here, ratio_top = _inverse_mills(here), _inverse_mills(top)
        slope = np.array(
            [(ratio_here - ratio_top) / self.std, -here * ratio_here + top * ratio_top]
        )
        spread = math.sqrt(max(float(slope @ np.array(self.covariance) @ slope), 0.0))
        low = high = 0.0
        if given < 0.0:
            reach = min(z * spread / -given, 700.0)
            low, high = given * (math.exp(reach) - 1.0), given * (math.exp(-reach) - 1.0)
        # In logarithms: far beyond the mean the value is 0 in doubles, and its band is wide.
        value, whole = _log(self.plateau) + float(log_ndtr(here)), float(self.survival(0.0))
        floor, ceiling = _log(share.low / whole), _log(share.high / whole)
        return Survival(
            eps,
            math.exp(value),
            math.exp(value - math.hypot(low, floor)),
            math.exp(min(value + math.hypot(high, ceiling), 0.0)),
        )

    @property
    def mean_interval(self) -> Interval:
        """The interval of m."""
        reach = float(ndtri((1.0 + self.level) / 2.0)) * math.sqrt(self.covariance[0][0])
        return Interval(self.mean - reach, self.mean + reach)

    @property
    def std_interval(self) -> Interval:
        """The interval of s."""
        reach = float(ndtri((1.0 + self.level) / 2.0)) * math.sqrt(self.covariance[1][1])
        return Interval(self.std * math.exp(-reach), self.std * math.exp(reach))

    @property
    def plateau_interval(self) -> Interval:
        """The interval of a, for given m and s."""
        share, inside = wilson(self.positive, self.n, self.level), float(ndtr(self.mean / self.std))
        return Interval(min(share.low / inside, 1.0), min(share.high / inside, 1.0))


def fit_zero_inflated(
    lower: Sequence[float] | npt.ArrayLike,
    upper: Sequence[float] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> ZeroInflatedGaussian | None:
    """Fit by maximum likelihood.

    Args:
        lower: Lower ends, finite and at least 0.
        upper: Upper ends: equal to the lower end for an exact value, infinite for a right-censored
            one. None: all values are exact.
        level: Confidence level in (0, 1) of bands and intervals.

    Returns:
        The fit; None where the values do not determine one: fewer than two that are above 0 and
        not censored, or all of these equal.

    Raises:
        BadInput: for no values, or ends that are out of order or negative.

    Example:
        >>> fit = fit_zero_inflated([0.0, 0.1, 0.2, 0.3], [0.0, 0.11, 0.21, 0.31])
        >>> round(fit.plateau, 3), round(fit.mean, 3), round(fit.std, 3)
        (0.756, 0.203, 0.084)
    """
    low = np.asarray(lower, dtype=np.float64)
    high = low if upper is None else np.asarray(upper, dtype=np.float64)
    _check(low, high, level)
    zero = high == 0.0
    inside = ~zero & np.isfinite(high)
    middle = (low[inside] + high[inside]) / 2
    if len(middle) < 2 or not np.ptp(middle) > 0.0:
        return None
    scale = float(middle.std())
    model = _Likelihood(low[~zero] / scale, high[~zero] / scale, int(zero.sum()))
    start = np.array([float(middle.mean()) / scale, 0.0])
    options = {"xatol": 1e-4, "fatol": 1e-4}
    descend: Any = minimize
    rough = descend(lambda p: -model(p), start, method="Nelder-Mead", options=options).x
    best = model.improve(rough)
    covariance = model.covariance(best)
    if covariance is None:
        return None
    mean, std = float(best[0]) * scale, math.exp(best[1]) * scale
    units = np.array([scale, 1.0])
    matrix = (covariance * np.outer(units, units)).tolist()
    n, positive = len(low), int((~zero).sum())
    return ZeroInflatedGaussian(
        plateau=model.plateau(best),
        mean=mean,
        std=std,
        n=n,
        positive=positive,
        covariance=(tuple(matrix[0]), tuple(matrix[1])),
        log_likelihood=model(best),
        level=level,
    )


@dataclass(frozen=True)
class _Likelihood:
    """The log-likelihood of (m, log s) with the best a, in units of the data's spread."""

    low: Array
    high: Array
    zeros: int

    def __call__(self, parameters: Array) -> float:
        mean, std = parameters[0], math.exp(parameters[1])
        exact = self.low == self.high
        below, above = (self.low - mean) / std, (self.high[~exact] - mean) / std
        density = -0.5 * below[exact] ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
        total = float(density.sum() + _log_between(below[~exact], above).sum())
        plateau = self.plateau(parameters)
        total += len(self.low) * math.log(plateau)
        if self.zeros:
            total += self.zeros * _log(1.0 - plateau * float(ndtr(mean / std)))
        return total

    def plateau(self, parameters: Array) -> float:
        share = len(self.low) / (len(self.low) + self.zeros)
        inside = float(ndtr(parameters[0] / math.exp(parameters[1])))
        return min(share / inside, 1.0) if inside > 0.0 else 1.0

    def improve(self, rough: Array) -> Array:
        """Return the better of a point and what Newton's step makes of it."""
        covariance = self.covariance(rough)
        if covariance is None:
            return rough
        steps = np.eye(2) * _STEP
        slope = np.array([self(rough + step) - self(rough - step) for step in steps]) / (2 * _STEP)
        moved: Array = np.asarray(rough + covariance @ slope, dtype=np.float64)
        return moved if self(moved) > self(rough) else rough

    def covariance(self, best: Array) -> Array | None:
        """Return the inverse of the observed information, None where it has none."""
        steps, information = np.eye(2) * _STEP, np.empty((2, 2))
        for i, a in enumerate(steps):
            for j, b in enumerate(steps):
                corners = [self(best + p * a + q * b) * p * q for p in (1, -1) for q in (1, -1)]
                information[i, j] = -sum(corners) / (4 * _STEP**2)
        if not np.isfinite(information).all() or not (np.linalg.eigvalsh(information) > 0.0).all():
            return None
        return np.asarray(np.linalg.inv(information), dtype=np.float64)


def _log_between(below: Array, above: Array) -> Array:
    """Return log(Phi(above) - Phi(below)) without cancellation, whichever tail they are in."""
    flip = below > 0.0
    left, right = np.where(flip, -above, below), np.where(flip, -below, above)
    upper, lower = log_ndtr(right), log_ndtr(left)
    with np.errstate(divide="ignore"):
        log: Array = upper + np.log(-np.expm1(np.minimum(lower - upper, 0.0)))
    return log


def _inverse_mills(z: float) -> float:
    """Return phi(z) / Phi(z)."""
    return math.exp(-0.5 * z * z - 0.5 * math.log(2 * math.pi) - float(log_ndtr(z)))


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf


def _check(low: Array, high: Array, level: float) -> None:
    if low.ndim != 1 or not len(low) or low.shape != high.shape:
        raise BadInput(
            f"{low.size} lower and {high.size} upper ends", "are no list of pairs", "give both"
        )
    ordered = np.isfinite(low).all() and (low >= 0.0).all() and (high >= low).all()
    if not ordered:
        raise BadInput("an interval", "is negative or out of order", "give 0 <= lower <= upper")
    if not 0.0 < level < 1.0:
        raise BadInput(f"level {level}", "is outside (0, 1)", "write 0.95")
