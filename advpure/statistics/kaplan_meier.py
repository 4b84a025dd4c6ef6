"""The survival function of right-censored values, without assumptions about its shape.

S(t) = prod_{t_j <= t} (1 - d_j / n_j) of [Kaplan1958], with d_j events at t_j among n_j values that
are still at risk, estimates P(T > t). Without censoring before t it is the share of values above t.
Bands are pointwise: Greenwood's variance on the log(-log S) scale, which keeps them between 0 and 1
[Kalbfleisch1980]. That scale has no value at S = 1 and S = 0; there `scipy.stats.ecdf`, which gives
the rest, has NaN, and the band is

* before the first event [((1 - level) / 2)^(1 / n), 1], exact (Clopper and Pearson) for the n
  values still at risk;
* after the last [0, the upper end one event earlier], since S only falls; without censoring at most
  1 - ((1 - level) / 2)^(1 / n), exact for n values none of which is larger.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, ecdf

from advpure.base.errors import BadInput
from advpure.base.validation import Range, number

Array = npt.NDArray[np.float64]


class Survival(NamedTuple):
    """A survival probability P(T > eps) with its pointwise band."""

    eps: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class KaplanMeier:
    """A step function that falls at each event.

    Attributes:
        times: Distinct values [k], ascending, events and censorings.
        survival: The share that survives each, [k] in [0, 1].
        low: Lower ends of the pointwise bands, [k] in [0, 1].
        high: Upper ends, [k] in [0, 1].
        n: The number of values.
        level: Confidence level of the bands.
    """

    times: Array
    survival: Array
    low: Array
    high: Array
    n: int
    level: float = 0.95

    @property
    def last(self) -> float:
        """The largest value; survival beyond it is unknown if it is censored, else 0."""
        return float(self.times[-1])

    @property
    def ends(self) -> bool:
        """Whether nothing survives the largest value."""
        return bool(self.survival[-1] == 0.0)

    def at(self, eps: float) -> Survival:
        """Return the survival probability at a value, with its band.

        Raises:
            BadInput: for a negative value, or one beyond the last where that is censored.
        """
        eps = number(eps, "epsilon", Range(least=0.0), "use 0 or more")
        if eps > self.last and not self.ends:
            raise BadInput(
                f"epsilon {eps:g}",
                f"is beyond {self.last:g}, where the search ended and some images survived",
                "search further with a larger --top",
            )
        index = int(np.searchsorted(self.times, eps, side="right")) - 1
        if index < 0:
            return Survival(eps, 1.0, float(_least_share(self.n, self.level)), 1.0)
        columns = (self.survival, self.low, self.high)
        return Survival(eps, *(float(column[index]) for column in columns))


def kaplan_meier(
    values: Sequence[float] | npt.ArrayLike,
    observed: Sequence[bool] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> KaplanMeier:
    """Estimate a survival function.

    Args:
        values: Non-negative, finite numbers, at least one.
        observed: Which of them are events; the others are right-censored: larger than their value.
            None: all are events.
        level: Confidence level in (0, 1) of the pointwise bands.

    Raises:
        BadInput: for no values, unusable ones, or unequal lengths.

    Example:
        >>> curve = kaplan_meier([0.0, 0.1, 0.2, 0.3], [True, True, True, False])
        >>> [curve.at(eps).value for eps in (0.0, 0.15, 0.2, 0.3)]
        [0.75, 0.5, 0.25, 0.25]
    """
    data = np.asarray(values, dtype=np.float64)
    seen = np.ones(data.shape, dtype=bool) if observed is None else np.asarray(observed, dtype=bool)
    if data.ndim != 1 or not len(data) or seen.shape != data.shape:
        subject = f"{data.size} values and {seen.size} marks"
        raise BadInput(subject, "are no list of pairs", "give one mark for each, at least one")
    if not (np.isfinite(data).all() and data.min() >= 0.0):
        raise BadInput("a value", "is negative or not finite", "mark it as censored instead")
    level = number(level, "level", Range(above=0.0, below=1.0), "write 0.95")
    steps = ecdf(CensoredData(uncensored=data[seen], right=data[~seen])).sf
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of the NaN
        bands: Any = steps.confidence_interval(level, method="log-log")
    times, survival, n = steps.quantiles, steps.probabilities, len(data)
    low, high = bands.low.probabilities, bands.high.probabilities
    larger = n - np.searchsorted(np.sort(data), times, side="right")
    larger[-1] = (~seen[data == times[-1]]).sum()
    before, after = survival == 1.0, survival == 0.0
    low[before], high[before] = _least_share(larger[before], level), 1.0
    rest = 1.0 - float(_least_share(n, level)) if seen.all() else 1.0
    low[after], high[after] = 0.0, high[~after].min(initial=rest)
    return KaplanMeier(times, survival, low, high, n, level)


def _least_share(n: npt.ArrayLike, level: float) -> Array:
    """Bound a share from below (Clopper and Pearson) where all of `n` count."""
    bound: Array = ((1.0 - level) / 2.0) ** (1.0 / np.asarray(n, dtype=np.float64))
    return bound
