"""What a report shows to a reader: a line, tables and remarks, as plain data."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        columns: The heads.
        rows: One text a column.
        title: What it shows; None where the heads say so.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None


class Display(NamedTuple):
    """What a report shows.

    Attributes:
        headline: The result in one line.
        parts: Tables, and lines between them, in their order.
    """

    headline: str
    parts: Sequence[Table | str] = ()


def written(estimate: Any, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write an estimate with its interval; what is absent is an empty text.

    Args:
        estimate: Anything with a `value` and an `interval` or ends `low` and `high`, a number, or
            None.
        form: The format of the numbers.
        scale: Factor of the numbers, such as 1e3.

    Example:
        >>> from advpure.statistics.rates import mean_interval
        >>> written(mean_interval([1.0, 2.0, 3.0]), ".2f"), written(None), written(0.5)
        ('2.00 [-0.48, 4.48]', '', '0.5')
    """
    value = getattr(estimate, "value", estimate)
    if value is None:
        return ""
    return " ".join(filter(None, (f"{scale * value:{form}}", ends(estimate, form, scale=scale))))


def ends(estimate: Any, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write the interval of an estimate, an empty text where there is none.

    Example:
        >>> from advpure.statistics.rates import wilson
        >>> ends(wilson(1, 2), ".3f"), ends(None)
        ('[0.095, 0.905]', '')
    """
    interval = _interval(estimate)
    if interval is None:
        return ""
    low, high = (f"{scale * end:{form}}" for end in interval)
    return f"[{low}, {high}]"


def _interval(estimate: Any) -> Sequence[float] | None:
    """Return the interval of an estimate, or its ends `low` and `high`."""
    interval: Sequence[float] | None = getattr(estimate, "interval", None)
    if interval is None and getattr(estimate, "low", None) is not None:
        return estimate.low, estimate.high
    return interval


def number(value: float | None, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write a number, an empty text for None.

    Example:
        >>> number(0.25, ".3f"), number(None)
        ('0.250', '')
    """
    return "" if value is None else f"{scale * value:{form}}"


def percent(value: float) -> str:
    """Write a rate as per cent with one decimal.

    Example:
        >>> percent(0.4567)
        '45.7'
    """
    return f"{100 * value:.1f}"


def percent_interval(rate: Any) -> str:
    """Write a rate and its interval in per cent, the ends rounded outwards; empty for None.

    Example:
        >>> from advpure.statistics.rates import wilson
        >>> percent_interval(wilson(9, 20)), percent_interval(None)
        ('45.0 [25.8, 65.8]', '')
    """
    if rate is None:
        return ""
    return " ".join(filter(None, (percent(rate.value), percent_ends(rate))))


def percent_ends(rate: Any) -> str:
    """Write the interval of a rate in per cent, rounded outwards; empty where there is none."""
    interval = _interval(rate)
    if interval is None:
        return ""
    low, high = math.floor(1000 * interval[0]) / 10, math.ceil(1000 * interval[1]) / 10
    return f"[{low:.1f}, {high:.1f}]"
