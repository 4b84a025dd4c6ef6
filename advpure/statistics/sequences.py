"""Intervals for a mean that may be looked at after every value: betting confidence sequences.

For every candidate mean m in (0, 1) a gambler bets on each value x in [0, 1] at odds that are fair
if m is the mean; the wealth after n values,

    K+(m) = prod (1 + l (x_i - m)),        K-(m) = prod (1 - l (x_i - m)),

is a non-negative martingale with mean 1 under m whatever the values are, as long as every bet l in
[0, 1/m) or [0, 1/(1-m)) depends on earlier values alone. By Ville's inequality the set of m whose
wealth never reached 2 / alpha on either side contains the mean at all times together with
probability 1 - alpha at least: for any rule that stops, any number of looks, and shares of draws as
well as right or wrong. K+ falls and K- grows with m for the bets below, so the set is an interval.

The bets aim at one moment, since a sequence cannot be narrow at all times. With v the variance
that the values would have under m, m (1 - m) times how far the values so far fall short of being
0 or 1,

    l(m) = width / (2 v),                    to be narrow when the interval has that width, or
    l(m) = sqrt(2 log(2 / alpha) / (N v)),   to be narrow after N values,

for values that are all 0 or 1 the first is the likelihood ratio of m + width / 2 against m. Several
multiples of a bet share the stake where larger effects should be seen sooner.

Guarantee: independent values of one mean, or any order of draws whose conditional mean is that.
Accuracy: ends are rounded outwards to a grid of 1 / cells. Cost: `cells` operations a value.

Source: [WaudbySmith2024] (hedged capital; several bets at once, "diversified"); [Ville1939].
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, whole
from advpure.statistics.rates import Interval, Rate

_BOLDEST = 0.9
"""The largest share of its wealth that a gambler can lose at once."""
_LEAST = 0.02
"""The smallest share of m (1 - m) that a variance is taken for."""
_PRIOR = 4.0  # values that are 0 or 1, before there are any
METHOD = "betting confidence sequence"


class BettingSequence:
    """The interval of a mean in [0, 1] after each of a sequence of values.

    The interval never grows, but where the mean of the values left it: that is always inside.

    Args:
        width: The width of the interval, in (0, 1), at which it is to be narrow; or None.
        horizon: Instead, after how many values.
        level: Confidence level in (0, 1), of all times together.
        multiples: Bets as multiples of the one above, with equal stakes.
        cells: Cells of the grid of candidate means.

    Raises:
        BadInput: for a number out of range, or both or none of width and horizon.

    Example:
        >>> sequence = BettingSequence(width=0.2)
        >>> for value in [1.0] * 30:
        ...     interval = sequence.add(value)
        >>> sequence.n, round(interval.low, 2), interval.high
        (30, 0.76, 1.0)
    """

    def __init__(
        self,
        *,
        width: float | None = None,
        horizon: int | None = None,
        level: float = 0.95,
        multiples: Sequence[float] = (1.0,),
        cells: int = 4000,
    ) -> None:
        """Begin without values."""
        if (width is None) == (horizon is None):
            rule = "are both given" if width is not None else "are both missing"
            raise BadInput("width and horizon", rule, "give one of them")
        inside = Range(above=0.0, below=1.0)
        alpha = 1.0 - number(level, "level", inside)
        cells = whole(cells, "cells", 2)
        self._m = np.arange(1, cells) / cells
        self._null = self._m * (1.0 - self._m)
        self._wanted = math.log(2.0 / alpha)
        self._reach = None if width is None else number(width, "width", inside) / 2.0
        self._spread = 0.0
        if horizon is not None:
            self._spread = math.sqrt(2.0 * self._wanted / whole(horizon, "horizon", 1))
        stakes = [number(each, "multiple", Range(above=0.0)) for each in multiples]
        if not stakes:
            raise BadInput("no multiple", "makes no bet", "give one or more, such as 1")
        self._multiples = np.array(stakes)[:, None]
        self._log = np.zeros((2, len(stakes), cells - 1))
        self._total, self._inner, self.n = 0.0, 0.0, 0
        self._low, self._high = 0.0, 1.0

    @property
    def mean(self) -> float:
        """The mean of the values, 1/2 without any."""
        return self._total / self.n if self.n else 0.5

    @property
    def interval(self) -> Interval:
        """The interval after the values so far; [0, 1] before the first."""
        if not self.n:
            return Interval(0.0, 1.0)
        return Interval(min(self._low, self.mean), max(self._high, self.mean))

    def add(self, value: float) -> Interval:
        """Bet on a value and return the interval.

        Raises:
            BadInput: for a value outside [0, 1].
        """
        x = number(value, "value", Range(least=0.0, most=1.0))
        bets = self._multiples * self._bet()
        up = np.minimum(bets, _BOLDEST / self._m)
        down = np.minimum(bets, _BOLDEST / (1.0 - self._m))
        self._log[0] += np.log1p(up * (x - self._m))
        self._log[1] += np.log1p(-down * (x - self._m))
        self._total, self._inner, self.n = self._total + x, self._inner + x * (1.0 - x), self.n + 1
        count = len(self._multiples)
        wealth = np.logaddexp.reduce(self._log, axis=1) - math.log(count)
        rejected = wealth >= self._wanted
        if rejected[0].any():
            self._low = max(self._low, float(self._m[rejected[0]].max()))
        if rejected[1].any():
            self._high = min(self._high, float(self._m[rejected[1]].min()))
        return self.interval

    def _bet(self) -> npt.NDArray[np.float64]:
        """Return the bet for every candidate mean, from the values so far."""
        mean = (0.5 + self._total) / (1.0 + self.n)
        short = self._inner / (_PRIOR + self.n) / (mean * (1.0 - mean))
        variance = min(max(1.0 - short, _LEAST), 1.0) * self._null
        bet = self._reach / variance if self._reach is not None else None
        return self._spread / np.sqrt(variance) if bet is None else bet


def anytime_rate(values: Iterable[float] | npt.ArrayLike, width: float, **more: Any) -> Rate:
    """Estimate a rate from shares in [0, 1] that were looked at one by one.

    Args:
        values: One share an image, in the order in which they were looked at.
        width: The width of the interval at which it is to be narrow.
        more: As for `BettingSequence`.

    Raises:
        BadInput: for no values, or one outside [0, 1].

    Example:
        >>> rate = anytime_rate([0.0] * 150, width=0.05)
        >>> rate.value, rate.n, rate.low, round(rate.high, 3)
        (0.0, 150, 0.0, 0.027)
    """
    sequence = BettingSequence(width=width, **more)
    for value in np.asarray(values, dtype=np.float64).tolist():
        sequence.add(value)
    return rate_of(sequence)


def rate_of(sequence: BettingSequence) -> Rate:
    """Return where a sequence stands, as a rate.

    Raises:
        BadInput: where it has no value yet.
    """
    if not sequence.n:
        raise BadInput("no values", "have no rate", "give at least one")
    return Rate(sequence.mean, sequence.n, *sequence.interval, METHOD)


class DifferenceSequence:
    """The interval of a mean difference in [-1, 1] after each of a sequence of differences.

    Args:
        horizon: After how many values it is to be narrow, such as all that there are.
        level: Confidence level in (0, 1), of all times together.
        cells: Cells of the grid.

    Example:
        >>> sequence = DifferenceSequence(horizon=100)
        >>> for difference in [1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 4:
        ...     interval = sequence.add(difference)
        >>> round(sequence.mean, 3), interval.low > 0
        (0.667, True)
    """

    _MULTIPLES = (1.0, 2.0, 4.0)  # a difference of twice or four times what was planned for ends it

    def __init__(self, *, horizon: int, level: float = 0.95, cells: int = 4000) -> None:
        """Begin without differences."""
        self._half = BettingSequence(
            horizon=horizon, level=level, multiples=self._MULTIPLES, cells=cells
        )

    @property
    def n(self) -> int:
        """Differences so far."""
        return self._half.n

    @property
    def mean(self) -> float:
        """Their mean, 0 without any."""
        return 2.0 * self._half.mean - 1.0

    @property
    def interval(self) -> Interval:
        """The interval after the differences so far."""
        low, high = self._half.interval
        return Interval(2.0 * low - 1.0, 2.0 * high - 1.0)

    def add(self, difference: float) -> Interval:
        """Bet on a difference and return the interval.

        Raises:
            BadInput: for one outside [-1, 1].
        """
        self._half.add((1.0 + number(difference, "difference", Range(least=-1.0, most=1.0))) / 2.0)
        return self.interval
