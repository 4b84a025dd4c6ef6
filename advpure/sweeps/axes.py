"""The axes of a sweep, and the order in which its points come: coarse grid first.

An axis is ordered if its values are three or more numbers. Its two ends have level 0, the middle
between them level 1, the middles between those level 2, and so on; every value of another axis
(names, switches) has level 0, since none of them lies between others. A point's level is the
largest level of its values. Points come by level, then by the sum of their levels, then as the
file lists them. So a sweep that is stopped early has covered the corners of its grid, then a grid
twice as fine, and so on.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advpure.base.units import as_number


@dataclass(frozen=True)
class Axis:
    """Options that vary together.

    Args:
        values: What each place of the axis sets, option to value; the same options everywhere.

    Example:
        >>> Axis(({"t": 10}, {"t": 20}, {"t": 50}, {"t": 100}, {"t": 150})).levels
        (0, 2, 1, 2, 0)
        >>> Axis(({"defense": "ddpm"}, {"defense": "ddim"}, {"defense": "cm"})).levels
        (0, 0, 0)
    """

    values: tuple[Mapping[str, Any], ...]

    @property
    def options(self) -> tuple[str, ...]:
        """The options that it sets."""
        return tuple(self.values[0])

    @property
    def ordered(self) -> bool:
        """Whether the values of its first option are three or more numbers."""
        first = self.options[0]
        return len(self.values) > 2 and all(
            as_number(point[first]) is not None for point in self.values
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """The level of each value."""
        return _levels(len(self.values)) if self.ordered else (0,) * len(self.values)

    def without(self, options: Sequence[str]) -> "Axis | None":
        """Return the axis without some options, None where nothing is left; equal points merge."""
        kept: dict[str, Mapping[str, Any]] = {}
        for point in self.values:
            rest = {name: value for name, value in point.items() if name not in options}
            if rest:
                kept.setdefault(written(rest), rest)
        return Axis(tuple(kept.values())) if kept else None


def written(point: Mapping[str, Any]) -> str:
    """Return what a place of an axis sets as a text, the same in whatever way numbers are written.

    Example:
        >>> written({"eps": "1/4"}) == written({"eps": 0.25})
        True
        >>> written({"clip": 1}) == written({"clip": True})
        False
    """
    return json.dumps(_plain(point), sort_keys=True, default=repr)


def _plain(value: Any) -> Any:
    """Return a value with its numbers as such: ``8/255``, ``"0.25"`` and 0.25 are written alike."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    meant = as_number(value)
    return value if meant is None else meant


def product(axes: Sequence[Axis]) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Yield the grid of the axes in the order of the file, the last axis fastest.

    scikit-learn's `ParameterGrid` sorts the options by name, and varies each of them alone.

    Yields:
        (largest level, sum of levels) and the options that the point sets. Without axes there is
        one point, which sets nothing.
    """
    ranks = [axis.levels for axis in axes]
    for indices in itertools.product(*(range(len(axis.values)) for axis in axes)):
        levels = [rank[k] for rank, k in zip(ranks, indices, strict=True)]
        chosen: dict[str, Any] = {}
        for axis, k in zip(axes, indices, strict=True):
            chosen |= axis.values[k]
        yield (max(levels, default=0), sum(levels)), chosen


def _levels(count: int) -> tuple[int, ...]:
    """Return at which bisection each of `count` places is reached; the ends at 0."""
    levels = [0] * count
    spans, level = [(0, count - 1)], 1
    while spans:
        halves = []
        for low, high in spans:
            if high - low > 1:
                middle = (low + high) // 2
                levels[middle] = level
                halves += [(low, middle), (middle, high)]
        spans, level = halves, level + 1
    return tuple(levels)
