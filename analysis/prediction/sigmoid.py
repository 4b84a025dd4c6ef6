"""The sigmoid of robust accuracy against compression rate, over purifiers.

    R(c) = A / (1 + exp((c - m) / w)),

with plateau A in (0, 1), midpoint m and width w > 0; fitted by least squares to the points (mean
CR, robust accuracy) of several purifiers. R(0) is what the points say of a purifier that lets
nothing through; the source compares it with the clean accuracy. Since all points use the same
images, bands come from resampling images for all at once.

How well the law carries over to a new purifier is asked by leaving one out: the sigmoid through the
others predicts all its strengths.

Source: [Wei2025], figure 3a.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import leastsq
from scipy.special import expit, logit

from advpure.analysis.prediction.predict import Estimated, PredictionInput, estimated, resamples
from advpure.base.validation import instance, listed

Array = npt.NDArray[np.float64]
_WIDTHS = (-12.0, 5.0)  # of the logarithm of the width
_FEWEST = 4  # points, for three parameters
_REFITS = 400
_MINIMA = (1, 2, 3, 4)  # MINPACK's answers that mean convergence


class Sigmoid(NamedTuple):
    """Plateau, midpoint and width of R(c)."""

    plateau: float
    middle: float
    width: float

    def at(self, cr: float | npt.ArrayLike) -> Array:
        """Return R(c).

        Example:
            >>> Sigmoid(0.8, 0.3, 0.1).at([0.3, 9.0]).round(6).tolist()
            [0.4, 0.0]
        """
        values: Array = self.plateau * expit(
            (self.middle - np.asarray(cr, dtype=np.float64)) / self.width
        )
        return values


@dataclass(frozen=True)
class SigmoidFit:
    """A fit with what resampling the images makes of it.

    Attributes:
        best: The fit to all images.
        draws: Fits to resampled images, [draws, 3].
        n: Images.
        points: Points.
        rms: Root mean square of R(c) - robust accuracy over the points.
        astray: Fits, of all images and resampled, that found no minimum, or one whose midpoint is
            farther from the points than they reach: points that do not bend leave it open.
    """

    best: Sigmoid
    draws: Array
    n: int
    points: int
    rms: float
    astray: int = 0

    def parameter(self, name: str) -> Estimated:
        """Return a parameter with its 95 % percentile interval."""
        index = Sigmoid._fields.index(name)
        return estimated(self.best[index], self.draws[:, index])

    def at(self, cr: float) -> Estimated:
        """Return R(c) with its 95 % percentile interval."""
        return estimated(float(self.best.at(cr)), Sigmoid(*self.draws.T).at(cr))


class LeftOut(NamedTuple):
    """How well the purifiers that remain predict one that is left out.

    Attributes:
        purifier: The one left out.
        settings: Its settings.
        predicted: Robust accuracy of each by the sigmoid through the others.
        measured: Robust accuracy of each.
        error: Mean of |predicted - measured| over its settings, with the percentile interval of
            drawing the images anew (see `mean_error`).
        bias: Mean of predicted - measured, likewise.
    """

    purifier: str
    settings: tuple[str, ...]
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    error: Estimated
    bias: Estimated


def fit_points(cr: Array, robust: Array, start: Sigmoid | None = None) -> Sigmoid | None:
    """Fit the sigmoid to points by least squares.

    Args:
        cr: Compression rates [k].
        robust: Robust accuracies [k].
        start: Where to begin; None for a start from the points.

    Returns:
        The fit; None for fewer than four points, or accuracies that do not differ.

    Example:
        >>> cr = np.linspace(0.1, 0.6, 6)
        >>> [round(p, 4) for p in fit_points(cr, Sigmoid(0.9, 0.3, 0.05).at(cr))]
        [0.9, 0.3, 0.05]
    """
    fit = _fit(cr, robust, start)
    return None if fit is None else fit[0]


def _fit(cr: Array, robust: Array, start: Sigmoid | None) -> tuple[Sigmoid, bool] | None:
    """Return the fit, and whether the search ended at a minimum where the points are."""
    if len(cr) < _FEWEST or not np.ptp(robust) > 0.0:
        return None
    if start is None:
        high = min(max(float(robust.max()), 0.05), 0.98)
        # The midpoint is about where accuracies are half of the highest: weigh those most.
        weights = np.maximum(robust, 1e-3) * (1.001 * high - np.minimum(robust, high)) + 1e-6
        start = Sigmoid(high, float(np.average(cr, weights=weights)), float(cr.std()) / 3 + 1e-3)

    def residuals(p: Array) -> Array:
        return _of(p).at(cr) - robust

    began = [logit(min(max(start.plateau, 1e-4), 1 - 1e-4)), start.middle, np.log(start.width)]
    with np.errstate(over="ignore", invalid="ignore"):  # in a covariance that is not used
        parameters, _, _, _, how = leastsq(residuals, began, maxfev=2000, full_output=True)
    fit = _of(parameters)
    reach = float(np.ptp(cr))
    bends = cr.min() - reach <= fit.middle <= cr.max() + reach
    return fit, how in _MINIMA and bends and _WIDTHS[0] < parameters[2] < _WIDTHS[1]


def fit_sigmoid(settings: Sequence[PredictionInput]) -> SigmoidFit | None:
    """Fit the sigmoid through measured settings of the same images, with bands.

    Args:
        settings: Settings, restricted to common images; those that were not measured are left out.

    Returns:
        The fit; None where `fit_points` has none.
    """
    known = _known(settings)
    cr, robust = points(known)
    first = _fit(cr, robust, None)
    if first is None:
        return None
    best = first[0]
    # Where resampled accuracies do not differ there is no fit; one of those tells nothing.
    again = [each for drawn in _drawn(known) if (each := _fit(*drawn, best)) is not None]
    draws = np.array([each for each, _ in again] or [best])
    astray = sum(not settled for _, settled in (first, *again))
    rms = float(np.sqrt(np.mean((best.at(cr) - robust) ** 2)))
    return SigmoidFit(best, draws, known[0].n, len(known), rms, astray)


def _known(settings: Sequence[PredictionInput]) -> list[PredictionInput]:
    """Return the settings that were measured."""
    values = listed(settings)
    for each in values:
        instance(each, PredictionInput, "setting", "pass PredictionInput(...)")
    return [each for each in values if each.robust is not None]


def points(settings: Sequence[PredictionInput]) -> tuple[Array, Array]:
    """Return mean CR and robust accuracy of each measured setting, [k] both."""
    known = [(each.cr.mean(), each.robust.mean()) for each in settings if each.robust is not None]
    cr, robust = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return cr, robust


def _drawn(settings: Sequence[PredictionInput]) -> list[tuple[Array, Array]]:
    """Return `points` for resampled images, the same ones for every setting."""
    indices = resamples(settings[0].n, _REFITS)
    cr = np.stack([each.cr[indices].mean(axis=1) for each in settings], axis=1)
    robust = np.stack(
        [each.robust[indices].mean(axis=1) for each in settings if each.robust is not None], axis=1
    )
    return list(zip(cr, robust, strict=True))


def leave_one_out(settings: Sequence[PredictionInput]) -> list[LeftOut]:
    """Predict every purifier by the sigmoid through the others.

    Args:
        settings: Settings, restricted to common images; those that were not measured are left out.

    Returns:
        One entry for each purifier whose others give a fit.
    """
    known = _known(settings)
    cr, robust = points(known)
    resampled = _drawn(known) if known else []
    left_out = []
    for name in dict.fromkeys(each.purifier for each in known):
        own = np.array([each.purifier == name for each in known])
        fit = fit_points(cr[~own], robust[~own])
        if fit is None:
            continue
        gaps = fit.at(cr[own]) - robust[own]
        drawn = []
        for each, accuracies in resampled:
            again = fit_points(each[~own], accuracies[~own], fit) or fit
            drawn.append(again.at(each[own]) - accuracies[own])
        left_out.append(
            LeftOut(
                name,
                tuple(each.label for each in known if each.purifier == name),
                tuple(fit.at(cr[own]).tolist()),
                tuple(robust[own].tolist()),
                estimated(float(np.abs(gaps).mean()), np.abs(drawn).mean(axis=1)),
                estimated(float(gaps.mean()), np.mean(drawn, axis=1)),
            )
        )
    return left_out


def _of(parameters: Array) -> Sigmoid:
    plateau, middle, width = parameters
    return Sigmoid(float(expit(plateau)), float(middle), float(np.exp(np.clip(width, *_WIDTHS))))
