"""A number that a report prints, with all that is known of it, and reports as trees of such.

A report is a tree: mappings and lists of plain JSON values and of estimates. `plain` writes it as
JSON; `find` reads what stands at a path; two estimates are compared image by image where both are
means over images.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final, overload

from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.units import as_number
from advpure.statistics.rates import Interval

ByImage = Mapping[int, float]
Influence = Mapping[str, ByImage]
_PART = re.compile(r"([\w-]+)(?:\[([^\]]*)\])?(?:\.|$)")


class Statistic(Protocol):
    """What the functions of `advpure.statistics` return."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def n(self) -> int:
        """Number of cases."""


@final
@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value that was measured.

    Attributes:
        value: The value; a rate is a share in [0, 1]. Where there is none, there is no estimate.
        n: Number of independent cases, most often images; None where that is not known.
        interval: 95 % interval; None where there is none.
        std: Standard deviation over the cases; None where there is none.
        by_image: Value of each image by sample id, or a function that computes it, where the value
            is their mean; so that two estimates can be paired. None for what is no mean.
        influence: Of a smooth function of samples, such as a distance between two sets: how it
            changes with the weight of each case, mean 0, by the name of the sample and the id of
            the case; so that two such values can be paired.
        style: How JSON has it under its name x. ``nested``: as an object. ``beside``: x with x_n,
            x_interval and, of a mean, x_std beside it. ``alone``: x only.
        key: Name of the value in a nested object.
        is_mean: Whether JSON has the standard deviation too.
        extra: What else stands in a nested object.
        anytime: Whether the cases were looked at one by one and ended with an answer: then their
            number is no choice made before, and intervals for a fixed number do not hold.
    """

    value: float
    n: int | None = None
    interval: Interval | None = None
    std: float | None = None
    by_image: ByImage | Callable[[], ByImage | None] | None = None
    influence: Influence | None = None
    style: Literal["nested", "beside", "alone"] = "nested"
    key: str = "value"
    is_mean: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    anytime: bool = False

    @overload
    @classmethod
    def of(cls, statistic: None, by_image: Any = None, **more: Any) -> None: ...
    @overload
    @classmethod
    def of(cls, statistic: Statistic, by_image: Any = None, **more: Any) -> "Estimate": ...
    @classmethod
    def of(
        cls,
        statistic: Statistic | None,
        by_image: ByImage | Callable[[], ByImage | None] | None = None,
        **more: Any,
    ) -> "Estimate | None":
        """Take over a statistic of `advpure.statistics`: a mean, a rate, a ratio; None for none.

        Args:
            statistic: A tuple with `value`, `n` and an `interval` or its ends `low` and `high`.
            by_image: The values of the images, as above.
            more: Other attributes.

        Example:
            >>> from advpure.statistics.rates import mean_interval, wilson
            >>> Estimate.of(wilson(1, 2)).interval == wilson(1, 2)[2:4]
            True
            >>> Estimate.of(None) is None
            True
        """
        if statistic is None:
            return None
        interval = getattr(statistic, "interval", None)
        low, high = (getattr(statistic, end, None) for end in ("low", "high"))
        if interval is None and low is not None and high is not None:
            interval = Interval(low, high)
        more = {"is_mean": hasattr(statistic, "std"), **more}
        return cls(
            value=statistic.value,
            n=statistic.n,
            interval=interval,
            std=getattr(statistic, "std", None),
            by_image=by_image,
            **more,
        )

    def images(self) -> ByImage | None:
        """Return the value of each image; None for what is no mean over images."""
        return self.by_image() if callable(self.by_image) else self.by_image

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as an object of JSON values.

        Example:
            >>> Estimate(value=0.5, n=2, extra={"eps": 0.1}).to_json()
            {'eps': 0.1, 'value': 0.5, 'n': 2, 'interval': None}
        """
        spread = {"std": self.std} if self.is_mean else {}
        interval = None if self.interval is None else list(self.interval)
        return {
            **plain(self.extra),
            self.key: self.value,
            "n": self.n,
            **spread,
            "interval": interval,
        }


def plain(tree: Any) -> Any:
    """Return a tree as JSON values.

    Example:
        >>> plain({"cr": Estimate(value=0.5, n=2, style="beside"), "t": (1, 2)})
        {'cr': 0.5, 'cr_n': 2, 'cr_interval': None, 't': [1, 2]}
    """
    if isinstance(tree, Estimate):
        return tree.to_json()
    if isinstance(tree, Mapping):
        values: dict[str, Any] = {}
        for name, leaf in tree.items():
            values |= _named(name, leaf)
        return values
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [plain(each) for each in tree]
    return tree


def _named(name: str, leaf: Any) -> dict[str, Any]:
    if not isinstance(leaf, Estimate) or leaf.style == "nested":
        return {name: plain(leaf)}
    if leaf.style == "alone":
        return {name: leaf.value}
    beside: dict[str, Any] = {
        "n": leaf.n,
        "interval": None if leaf.interval is None else list(leaf.interval),
    }
    if leaf.is_mean:
        beside["std"] = leaf.std
    return {name: leaf.value, **{f"{name}_{part}": value for part, value in beside.items()}}


def flat_rows(tree: Any) -> list[dict[str, Any]]:
    """Return the numbers of a tree as rows of one table.

    Every estimate is a row, with its name, what tells it apart, and value, n, low, high and std. In
    an entry of a list that holds estimates the plain values say which entry it is; a plain number
    elsewhere is a row of its own, without an interval.

    Example:
        >>> rows = flat_rows({"rows": [{"t": 5, "cr": Estimate(value=0.5, n=2)}], "draws": 3})
        >>> [(row["name"], row.get("t"), row["value"], row["n"]) for row in rows]
        [('rows.cr', 5, 0.5, 2), ('draws', None, 3, None)]
    """
    return [row for row, _ in _flat(tree, (), {})]


def by_image_rows(tree: Any) -> list[dict[str, Any]]:
    """Return the value of every image of every estimate that is a mean over images.

    Example:
        >>> by_image_rows({"cr": Estimate(value=0.5, by_image={3: 0.4, 4: 0.6})})
        [{'name': 'cr', 'sample': 3, 'value': 0.4}, {'name': 'cr', 'sample': 4, 'value': 0.6}]
    """
    rows = []
    for row, estimate in _flat(tree, (), {}):
        keys = {key: value for key, value in row.items() if key not in _NUMBERS}
        images = None if estimate is None else estimate.images()
        rows += [{**keys, "sample": i, "value": v} for i, v in sorted((images or {}).items())]
    return rows


_NUMBERS = ("value", "n", "low", "high", "std")


def _flat(
    tree: Any, path: tuple[str, ...], keys: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Estimate | None]]:
    """Yield rows, each with the estimate that it is of."""
    name = ".".join(path)
    if isinstance(tree, Estimate):
        low, high = (None, None) if tree.interval is None else tree.interval
        numbers = (tree.value, tree.n, low, high, tree.std)
        told = {key: value for key, value in tree.extra.items() if _is_plain(value)}
        row = {"name": name, **keys, **told, **dict(zip(_NUMBERS, numbers, strict=True))}
        yield row, tree
    elif isinstance(tree, Mapping):
        for key, leaf in tree.items():
            yield from _flat(leaf, (*path, str(key)), keys)
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for entry in tree:
            own = dict(entry) if isinstance(entry, Mapping) else {}
            held = _holds_estimates(own)
            told = {
                key: leaf
                for key, leaf in own.items()
                if isinstance(leaf, str) or (held and _is_plain(leaf))
            }
            rest = {key: leaf for key, leaf in own.items() if key not in told}
            if not _is_plain(entry):
                yield from _flat(rest if own else entry, path, {**keys, **told})
    elif isinstance(tree, int | float):
        row = {"name": name, **keys, "value": tree, "n": None, "low": None, "high": None}
        yield {**row, "std": None}, None


def _holds_estimates(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return any(map(_holds_estimates, tree.values()))
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return any(map(_holds_estimates, tree))
    return isinstance(tree, Estimate)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def find(tree: Any, path: str) -> Any:
    """Return what stands at a path: names and indices joined by dots, ``rows[t=2].x``.

    Brackets choose the entry of a list whose fields have given values.

    Raises:
        BadInput: naming the part that is missing and what is there.

    Example:
        >>> find({"rows": [{"t": 1, "x": 5}, {"t": 2, "x": 6}]}, "rows[t=2].x")
        6
    """
    at, position = tree, 0
    while position < len(path):
        part = _PART.match(path, position)
        if part is None:
            raise BadInput(f"path {path!r}", "is no path", "write names joined by dots, rows[t=2]")
        at = _step(at, part[1], path)
        if part[2] is not None:
            at = _entry(at, part[2], path)
        position = part.end()
    return at


def _step(tree: Any, name: str, path: str) -> Any:
    if isinstance(tree, Estimate):
        tree = {**tree.extra, tree.key: tree.value}
    if isinstance(tree, Mapping):
        if name in tree:
            return tree[name]
        known = ", ".join(map(str, tree))
        raise BadInput(f"path {path!r}", f"has no {name!r} in the report", f"known: {known}")
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        index = digits(name)
        if index is not None and index < len(tree):
            return tree[index]
        raise BadInput(f"path {path!r}", f"has no place {name!r}", f"there are {len(tree)} entries")
    raise BadInput(f"path {path!r}", f"goes on with {name!r} below {tree!r}", "end it there")


def _entry(entries: Any, conditions: str, path: str) -> Any:
    wanted = dict(each.split("=", 1) for each in conditions.split(",") if "=" in each)
    fields = [entry.extra if isinstance(entry, Estimate) else entry for entry in entries]
    chosen = [
        entry
        for entry, known in zip(entries, fields, strict=True)
        if all(_same(known.get(k), v) for k, v in wanted.items())
    ]
    if len(chosen) != 1:
        rule = f"fits {len(chosen)} entries" if chosen else "fits no entry"
        names = ", ".join(wanted) or "the fields"
        listed = "; ".join(" ".join(f"{k}={e.get(k)}" for k in wanted) for e in fields[:6])
        raise BadInput(f"path {path!r}", rule, f"choose by {names}; there are {listed}")
    return chosen[0]


def _same(there: Any, wanted: str) -> bool:
    left, right = as_number(there), as_number(wanted)
    if left is not None and right is not None:
        return abs(left - right) <= 1e-9 * max(abs(left), abs(right))
    return str(there) == wanted
