"""How much perturbation a classifier survives: S(eps), the share of images with r* > eps.

From the smallest perturbations that were found (`minimum_radius`), one row an image. S rests on the
upper ends, which are proofs: S(eps) is the accuracy that is left when every image is replaced by
the worst that was found within eps. The true survival is at most that.

Three views: the Kaplan-Meier step function with bands; its value at any eps up to the end of the
search; and the zero-inflated Gaussian. All of them take an image for its upper end, so that they
differ by the form of the curve alone: a fit to the intervals would lie below the steps by about
half of the resolution.

Source: [Wei2025], figures 3b and S1.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from advpure.analysis.survival.minimum_radius import RadiusRow
from advpure.base.errors import BadInput
from advpure.runs.schema import Count, Length, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.kaplan_meier import KaplanMeier, Survival, kaplan_meier
from advpure.statistics.quantiles import Quantile, quantile
from advpure.statistics.rates import Interval, Rate, wilson
from advpure.statistics.zero_inflated import ZeroInflatedGaussian, fit_zero_inflated

SURVIVAL_SCHEMA = Schema(
    "survival",
    keys={"id": Count},
    values={
        "lower": Length,
        "upper": Length | None,
        "attacks": Count,
        "misses": Count,
        "forwards": Count,
        "backwards": Count,
        "zero_gradient": bool,
        "moved": float | None,
        "clipped": float | None,
    },
)


@dataclass(frozen=True)
class SurvivalResult:
    """Minimum perturbations and what follows from them.

    Attributes:
        rows: One per image, in any order; kept sorted by id.
        settings: What they depend on, as JSON values.

    Raises:
        BadInput: for no rows, or two rows of one image.

    Example:
        >>> rows = [RadiusRow(i, u, u, 1, 0, 1, 1, False) for i, u in enumerate([0.0, 0.1, 0.2])]
        >>> result = SurvivalResult(tuple(rows))
        >>> round(result.accuracy.value, 3), round(result.at(0.15).value, 3), result.median.value
        (0.667, 0.333, 0.1)
    """

    rows: tuple[RadiusRow, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows."""
        ordered = tuple(sorted(self.rows, key=lambda row: row.id))
        if not ordered:
            raise BadInput("a survival function", "has no rows", "measure at least one image")
        if len({row.id for row in ordered}) != len(ordered):
            raise BadInput("a survival function", "has an image twice", "give every image once")
        object.__setattr__(self, "rows", ordered)

    @classmethod
    def from_records(
        cls, records: Iterable[Row], settings: dict[str, Any] | None = None
    ) -> "SurvivalResult":
        """Read rows that were stored with `SURVIVAL_SCHEMA`."""
        rows = (RadiusRow(**{name: row[name] for name in RadiusRow._fields}) for row in records)
        return cls(tuple(rows), settings or {})

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.rows)

    @property
    def accuracy(self) -> Rate:
        """The share of images that are classified rightly without a perturbation."""
        return wilson(sum(row.upper != 0.0 for row in self.rows), self.n)

    @property
    def censored(self) -> int:
        """Images that no attack fooled up to the end of the bracket."""
        return sum(row.upper is None for row in self.rows)

    @property
    def misses(self) -> int:
        """Attacks that failed although a perturbation of that size was found otherwise."""
        return sum(row.misses for row in self.rows)

    @property
    def lower(self) -> npt.NDArray[np.float64]:
        """Lower ends, [n]."""
        return np.array([row.lower for row in self.rows])

    @property
    def upper(self) -> npt.NDArray[np.float64]:
        """Upper ends, [n]; infinite where censored."""
        return np.array([math.inf if row.upper is None else row.upper for row in self.rows])

    @property
    def resolution(self) -> float:
        """The widest interval of an image that was fooled; 0 where there is none."""
        return float((self.upper - self.lower)[np.isfinite(self.upper)].max(initial=0.0))

    @property
    def median(self) -> Quantile:
        """The median of r* over images, infinite where more than half survive the search."""
        return quantile(self.upper.tolist())

    @cached_property
    def curve(self) -> KaplanMeier:
        """The survival function of the upper ends."""
        seen = np.isfinite(self.upper)
        return kaplan_meier(np.where(seen, self.upper, self.lower), seen)

    @cached_property
    def fit(self) -> ZeroInflatedGaussian | None:
        """The zero-inflated Gaussian; None where the images do not determine one."""
        upper = self.upper
        return fit_zero_inflated(np.where(np.isfinite(upper), upper, self.lower), upper)

    @property
    def gap(self) -> float | None:
        """The largest distance between the step function and the fit (Kolmogorov's)."""
        if self.fit is None:
            return None
        fitted = self.fit.survival(self.curve.times)
        before = np.concatenate([[1.0], self.curve.survival[:-1]])
        above = np.abs(before - fitted)[self.curve.times > 0.0]
        return float(max(np.abs(self.curve.survival - fitted).max(), above.max(initial=0.0)))

    def at(self, eps: float) -> Survival:
        """Return S(eps) with its band.

        Raises:
            BadInput: beyond the end of the bracket, where survival is unknown.
        """
        return self.curve.at(eps)

    def is_known(self, eps: float) -> bool:
        """Return whether the search went as far as a radius."""
        return self.curve.ends or eps <= self.curve.last

    def survivors(self, eps: float) -> dict[int, float]:
        """Return by sample id 1 for an image whose r* exceeds a radius within the search, else 0.

        Their mean is S(eps).
        """
        return {row.id: float(row.upper is None or row.upper > eps) for row in self.rows}

    def tree(self, radii: Sequence[float]) -> dict[str, Any]:
        """Return accuracy, median, fit, and S at some radii; see `Estimate`."""
        fit, median = self.fit, self.median
        low, high = _finite(median.low), _finite(median.high)
        return {
            "n": self.n,
            "accuracy": Estimate.of(self.accuracy, self.survivors(0.0), style="beside"),
            "median": self._estimate(median.value, low, high, style="alone"),
            "median_interval": [low, high],
            "censored": self.censored,
            "misses": self.misses,
            "resolution": self.resolution,
            "plateau": fit and self._estimate(fit.plateau, *fit.plateau_interval),
            "mu": fit and self._estimate(fit.mean, *fit.mean_interval),
            "s": fit and self._estimate(fit.std, *fit.std_interval),
            "gap": self.gap,
            "survival": [
                {
                    "eps": eps,
                    "survival": self._measured(eps) if self.is_known(eps) else None,
                    "fitted": fit and self._estimate(*fit.at(eps)[1:]),
                }
                for eps in radii
            ],
        }

    def _measured(self, eps: float) -> Estimate | None:
        return self._estimate(*self.at(eps)[1:], by_image=self.survivors(eps))

    def _estimate(
        self, value: float, low: float | None, high: float | None, **more: Any
    ) -> Estimate | None:
        """Return a value with its interval; None for a value beyond the search."""
        if math.isinf(value):
            return None
        interval = None if low is None or high is None else Interval(low, high)
        return Estimate(value=value, n=self.n, interval=interval, **{"style": "beside", **more})


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
