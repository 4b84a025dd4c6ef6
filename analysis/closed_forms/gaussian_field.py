"""Compression by descent on the score of a Gaussian: x_{k+1} = x_k - h Sigma^-1 (x_k - mu).

A perturbation along the principal direction with variance s_i^2 is multiplied by 1 - h / s_i^2 in
every step. Directions across the data (small variance) die out and those along it stay, so the rate
of later steps rises towards the slowest direction's.

Source: [Wei2025], equations 11-14 and figure 4b.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.base.validation import Range, floats, number

Floats = npt.NDArray[np.float64]
_LEAST, _MOST = 1e-101, 1e101  # squares of the ratio of a step to them stay in float64


class DivergingStep(UserWarning):
    """A step size of 2 s_i^2 or more: the iteration does not converge in direction i."""


@dataclass(frozen=True)
class GaussianField:
    """The compression of a Gaussian score field.

    Attributes:
        factors: 1 - h / s_i^2 for every direction, [d]; their absolute values are the rates.
        exact: Root mean square rate of one step for isotropic perturbations,
            sqrt(mean_i (1 - h / s_i^2)^2).
        approximate: Its expansion to first order in h, 1 - (h / d) sum_i 1 / s_i^2.
        valid: Whether h < 2 s_i^2 in all directions.
    """

    factors: Floats
    exact: float
    approximate: float
    valid: bool

    def step_rates(self, steps: int) -> Floats:
        """Return the root mean square rate of each of the first steps, [steps].

        The perturbation is isotropic before the first step, and after k steps has the variance
        factor_i^(2 k) in direction i.

        Args:
            steps: Number of steps, at least 1.
        """
        if steps < 1:
            raise BadInput(f"{steps} steps", "compress nothing", "use 1 or more")
        totals = self._log_energies(np.arange(steps + 1))
        if not np.isfinite(totals).all():
            raise BadInput(
                "a perturbation that is zero after one step", "has no further rate", "use 1 step"
            )
        rates: Floats = np.exp(0.5 * np.diff(totals))
        return rates

    def total_rate(self, steps: int) -> float:
        """Return the root mean square rate of all steps together."""
        return float(np.exp(0.5 * self._log_energies(np.array([steps]))[0]))

    def _log_energies(self, steps: npt.NDArray[np.int64]) -> Floats:
        """Return log mean_i factor_i^(2 k) for every k, without underflow."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = 2.0 * np.log(np.abs(self.factors))
            powers = np.where(steps[:, None] == 0, 0.0, steps[:, None] * logs)
            top = powers.max(axis=1, keepdims=True)
            shift = np.where(np.isfinite(top), top, 0.0)
            energies: Floats = np.log(np.exp(powers - shift).mean(axis=1)) + shift[:, 0]
        return energies


def gaussian_field_compression(variances: Sequence[float] | Floats, h: float) -> GaussianField:
    """Compute the compression of a Gaussian score field in closed form.

    Args:
        variances: s_i^2, the eigenvalues of Sigma, positive: one for every dimension, [d]. They
            are variances, not standard deviations (the published figure confuses them).
        h: Step size, positive, in the units of the variances.

    Warns:
        DivergingStep: when h >= 2 s_i^2 in some direction.

    Raises:
        BadInput: for variances or a step size that are not positive and finite.

    Example:
        >>> field = gaussian_field_compression([1.0] * 40 + [0.01] * 3032, 1e-3)
        >>> round(field.exact, 6), round(field.approximate, 6)
        (0.901359, 0.901289)
    """
    values, h = floats(variances, "variances"), number(h, "h", Range(most=1e50))
    if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise BadInput("variances", "are not all positive and finite", "give one per dimension")
    low, high = float(values.min()), float(values.max())
    if low < _LEAST or high > _MOST:
        rule = f"are not all from {_LEAST:g} to {_MOST:g}, and their ratios leave float64"
        raise BadInput(f"variances from {low:g} to {high:g}", rule, "choose another unit")
    if not (math.isfinite(h) and h > 0):
        raise BadInput(f"step size {h}", "is not positive and finite", "use for example 1e-3")
    factors = 1.0 - h / values
    valid = bool(h < 2 * values.min())
    if not valid:
        warnings.warn(
            f"step size {h:g} is not below 2 s^2 = {2 * values.min():g}: the iteration does not "
            f"converge there (factor {factors.min():g})",
            DivergingStep,
            stacklevel=2,
        )
    return GaussianField(
        factors=factors,
        exact=float(np.sqrt(np.square(factors).mean())),
        approximate=float(1.0 - h * (1.0 / values).mean()),
        valid=valid,
    )
