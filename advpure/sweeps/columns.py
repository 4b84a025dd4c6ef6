"""Values with n and interval out of a verb's report, by a path into its JSON.

A path is names and places joined by dots, such as `stages.clean.mean` or `rows.0`; brackets choose
the entry of a list whose fields have given values, as in `rows[norm=l2,place=end]`. Where it ends
at a mapping, that is an estimate: its `value` (or `mean`), `std`, `n`, and its `interval` (or `low`
and `high`) are read. Where it ends at a number `x`, that number's `x_std`, `x_n` and `x_interval`
beside it are read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from advpure.analysis.certification.radius import round_down
from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.units import as_number
from advpure.base.validation import choose
from advpure.statistics.rates import Interval

Unit = Literal["percent", "number", "radius"]
_PART = re.compile(r"([\w-]+)(?:\[([^\]]*)\])?(?:\.|$)")
_CENTRE = ("value", "mean")


class Value(NamedTuple):
    """A measured value; what a report does not say is None.

    Attributes:
        value: The value; a rate is a share in [0, 1].
        std: Standard deviation over images.
        n: Number of images.
        interval: 95 % interval.
    """

    value: float
    std: float | None = None
    n: int | None = None
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where a value is found.

    Args:
        block: The block of the sweep whose runs report it.
        at: Path to the value or estimate; the empty path is the whole report.
        interval: Path to the interval, where the value is a bare number.
        n: Path to the number of images, likewise.
        unit: ``percent``: a share in [0, 1], printed in per cent. ``radius``: a certified one,
            rounded down wherever it is printed.
        where: Only points with these values on the axes, dotted option to value; so one block can
            fill several columns.
        optional: Whether a report may lack the value, as where a metric cannot be had.
        about: What the value is.
    """

    block: str
    at: str = ""
    interval: str | None = None
    n: str | None = None
    unit: Unit = "number"
    where: Mapping[str, Any] | None = None
    optional: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        """Check the unit."""
        choose(self.unit, get_args(Unit), "unit")

    def read(self, report: Mapping[str, Any]) -> Value | None:
        """Read the value out of a report; None where the report says that there is none.

        Raises:
            BadInput: when the path leads nowhere.

        Example:
            >>> Column(block="cr", at="rows.0").read({"rows": [{"mean": 0.4, "n": 9}]})
            Value(value=0.4, std=None, n=9, interval=None)
        """
        try:
            found = follow(report, self.at)
        except BadInput:
            if self.optional:
                return None
            raise
        value = _estimate(found) if isinstance(found, Mapping) else _bare(report, self.at, found)
        if value is None:
            return None
        if self.interval is not None:
            value = value._replace(interval=_interval(follow(report, self.interval)))
        if self.n is not None:
            value = value._replace(n=int(follow(report, self.n)))
        return value


def written(value: float, unit: Unit) -> str:
    """Write a value as tables do: four digits, a share in per cent, a radius rounded down.

    Example:
        >>> written(0.32279, "number"), written(0.32279, "radius"), written(0.32279, "percent")
        ('0.3228', '0.3227', '32.3')
    """
    if unit == "percent":
        return f"{100.0 * value:.1f}"
    return round_down(value, 4) if unit == "radius" else f"{value:.4g}"


# What `advpure sweep` shows of a verb that no experiment has chosen columns for.
HEADLINES: dict[str, dict[str, dict[str, Any]]] = {
    "cr": {"compression rate": {"at": "rows.0"}},
    "certify": {
        "certified": {"at": "best.0", "unit": "percent"},
        "average radius": {"at": "curves.0.average_certified_radius", "unit": "radius"},
    },
    "attack": {
        "clean": {"at": "clean_accuracy", "unit": "percent"},
        "robust": {"at": "robust_accuracy", "interval": "interval", "n": "n", "unit": "percent"},
    },
    "snr": {"internal / input": {"at": "internal_to_input_unbiased"}},
    "distances": {"l2 before": {"at": "rows.0.l2_initial"}, "l2 after": {"at": "rows.0.l2_final"}},
    "randomness": {
        "fixed": {"at": "rows[randomness=fixed].attacked", "unit": "percent"},
        "fresh": {"at": "rows[randomness=fresh].attacked", "unit": "percent"},
    },
    "gradients": {"gradient SNR": {"at": "snr"}},
}


def headlines(block: str, verb: str) -> dict[str, Column]:
    """Return the columns that are shown for a verb, none for one that has no headline."""
    return {name: Column(block=block, **spec) for name, spec in HEADLINES.get(verb, {}).items()}


def follow(report: Any, path: str) -> Any:
    """Walk a path.

    Raises:
        BadInput: naming the part that is missing and what is there.

    Example:
        >>> follow({"rows": [{"t": 1, "x": 5}, {"t": 2, "x": 6}]}, "rows[t=2].x")
        6
    """
    place = report
    position = 0
    while position < len(path):
        part = _PART.match(path, position)
        if part is None:
            raise BadInput(f"path {path!r}", "is no path", "write names joined by dots, rows[t=2]")
        place = _step(place, part[1], path)
        if part[2] is not None:
            place = _choose_entry(place, part[2], path)
        position = part.end()
    return place


def _step(place: Any, name: str, path: str) -> Any:
    if isinstance(place, Mapping):
        if name in place:
            return place[name]
        known = ", ".join(map(str, place))
        raise BadInput(f"path {path!r}", f"has no {name!r} in the report", f"known: {known}")
    if isinstance(place, Sequence) and not isinstance(place, str):
        index = digits(name)
        if index is not None and index < len(place):
            return place[index]
        raise BadInput(
            f"path {path!r}", f"has no place {name!r}", f"there are {len(place)} entries"
        )
    raise BadInput(f"path {path!r}", f"goes on with {name!r} below {place!r}", "end it there")


def _choose_entry(entries: Any, conditions: str, path: str) -> Any:
    wanted = dict(each.split("=", 1) for each in conditions.split(",") if "=" in each)
    found = [
        entry for entry in entries if all(_same(entry.get(k), v) for k, v in wanted.items())
    ]  # fmt: skip
    if len(found) != 1:
        rule = f"fits {len(found)} entries" if found else "fits no entry"
        fields = ", ".join(wanted) or "the fields"
        known = "; ".join(" ".join(f"{k}={e.get(k)}" for k in wanted) for e in list(entries)[:6])
        raise BadInput(f"path {path!r}", rule, f"choose by {fields}; there are {known}")
    return found[0]


def _same(there: Any, wanted: str) -> bool:
    left, right = as_number(there), as_number(wanted)
    if left is not None and right is not None:
        return abs(left - right) <= 1e-9 * max(abs(left), abs(right))
    return str(there) == wanted


def _estimate(found: Mapping[str, Any]) -> Value | None:
    for name in _CENTRE:
        if name in found:
            break
    else:
        known = ", ".join(map(str, found))
        raise BadInput("an estimate", "has neither value nor mean", f"known: {known}")
    if found[name] is None:
        return None
    interval = found.get("interval")
    if interval is None and found.get("low") is not None:
        interval = (found["low"], found["high"])
    n = found.get("n")
    return Value(
        float(found[name]), found.get("std"), None if n is None else int(n), _interval(interval)
    )


def _bare(report: Mapping[str, Any], path: str, found: Any) -> Value | None:
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadInput(f"path {path!r}", f"ends at {found!r}", "end it at a number or an estimate")
    outer, _, name = path.rpartition(".")
    beside = follow(report, outer)
    if not isinstance(beside, Mapping):
        return Value(float(found))
    n = beside.get(f"{name}_n")
    return Value(
        float(found), beside.get(f"{name}_std"), None if n is None else int(n),
        _interval(beside.get(f"{name}_interval")),
    )  # fmt: skip


def _interval(found: Any) -> Interval | None:
    return None if found is None else Interval(float(found[0]), float(found[1]))
