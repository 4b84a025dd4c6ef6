"""The survival function of right-censored values, without assumptions about its shape.

Kaplan and Meier's estimate S(t) = prod_{t_j <= t} (1 - d_j / n_j), with d_j events at t_j among n_j
values that are still at risk, estimates P(T > t). Without censoring before t it is the share of
values above t. Bands are pointwise: Greenwood's variance on the log(-log S) scale, which keeps them
within [0, 1] (Kalbfleisch and Prentice 1980). That scale has no value at S = 1 and S = 0; there the
band is

* before the first event [((1 - level) / 2)^(1 / n), 1], exact (Clopper and Pearson) for the n
  values still at risk;
* after the last [0, the upper end one event earlier], since S only falls; without censoring at most
  1 - ((1 - level) / 2)^(1 / n), exact for n values none of which is larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

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
        at_risk: Values that are not smaller, [k].
        events: Events at each, [k].
        last: The largest value.
        ends: Whether the largest value is an event, so that nothing survives it.
        level: Confidence level of the bands.
    """

    times: Array
    at_risk: Array
    events: Array
    level: float = 0.95
    survival: Array = field(init=False)
    _low: Array = field(init=False, repr=False)
    _high: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Multiply the steps, and put the bands beside them."""
        left = self.at_risk - self.events
        survival = np.cumprod(left / self.at_risk)
        with np.errstate(divide="ignore", invalid="ignore"):
            hazard = np.cumsum(self.events / (self.at_risk * left))
            reach = float(ndtri((1.0 + self.level) / 2.0)) * np.sqrt(hazard) / -np.log(survival)
            low, high = survival ** np.exp(reach), survival ** np.exp(-reach)
        before, after = survival == 1.0, left == 0
        known = np.append(self.at_risk[1:], left[-1:])  # larger for certain, up to the next time
        low[before] = ((1.0 - self.level) / 2.0) ** (1.0 / known[before])
        high[before] = 1.0
        low[after] = 0.0
        whole = self.events.sum() == self.at_risk[0]
        rest = 1.0 - ((1.0 - self.level) / 2.0) ** (1.0 / self.at_risk[0]) if whole else 1.0
        high[after] = high[~after].min(initial=rest)
        for name, values in (("survival", survival), ("_low", low), ("_high", high)):
            object.__setattr__(self, name, values)

    @property
    def n(self) -> int:
        """The number of values."""
        return int(self.at_risk[0])

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
        place = int(np.searchsorted(self.times, eps, side="right")) - 1
        if place < 0:
            low = ((1.0 - self.level) / 2.0) ** (1.0 / self.n)
            return Survival(eps, 1.0, low, 1.0)
        return Survival(
            eps, float(self.survival[place]), float(self._low[place]), float(self._high[place])
        )


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
    times, places = np.unique(data, return_inverse=True)
    counts = np.bincount(places, minlength=len(times)).astype(np.float64)
    events = np.bincount(places, weights=seen, minlength=len(times)).astype(np.float64)
    return KaplanMeier(times, len(data) - np.cumsum(counts) + counts, events, level)
