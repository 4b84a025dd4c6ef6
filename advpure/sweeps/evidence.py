"""What a check looks at and what it finds: a table with the images behind it, and a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advpure.base.units import as_number
from advpure.statistics.estimates import ByImage
from advpure.statistics.rates import Interval
from advpure.sweeps.comparisons import Difference, Verdict, subtract
from advpure.sweeps.sets import subtract_sets
from advpure.sweeps.table import Cell, Key, Table


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Attributes:
        claim: What was claimed, a sentence.
        verdict: Whether it holds.
        detail: The numbers behind the verdict, a sentence.
        value: The number that the claim is about, where it is one.
        interval: Its 95 % interval.
        n: Images behind it.
    """

    claim: str
    verdict: Verdict
    detail: str
    value: float | None = None
    interval: Interval | None = None
    n: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        interval = list(self.interval) if self.interval else None
        return {**self.__dict__, "interval": interval}


@dataclass(frozen=True)
class Evidence:
    """A table with the values of single images behind it."""

    table: Table
    root: Path

    def cell(self, row: Key, column: str) -> Cell | None:
        """Return a cell that has a value, None else."""
        measured = self.table.cells.get((row, column))
        return None if measured is None or measured.value is None else measured

    def where(self, kept: Mapping[str, Any]) -> "Evidence":
        """Keep the rows that have given values of some keys, each one value or a list of them."""
        rows = tuple(
            row
            for row in self.table.rows
            if all(_one_of(self.table.named(row)[key], value) for key, value in kept.items())
        )
        return Evidence(replace(self.table, rows=rows), self.root)

    def samples(self, row: Key, column: str) -> ByImage | None:
        """Return the values of single images, None where there are none."""
        cell = self.cell(row, column)
        if cell is None or cell.value is None:
            return None
        return cell.value.images()

    def difference(self, first: Key, second: Key, column: str, level: float) -> Difference | None:
        """Compare two rows; None where one has no value."""
        a, b = self.cell(first, column), self.cell(second, column)
        if a is None or b is None or a.value is None or b.value is None:
            return None
        left, right = self.samples(first, column), self.samples(second, column)
        if left is None and right is None:
            difference = subtract_sets(self.root, a, b, level)
            if difference is not None:
                return difference
        return subtract(replace(a.value, by_image=left), replace(b.value, by_image=right), level)


def _one_of(there: Any, wanted: Any) -> bool:
    return any(equal(there, each) for each in (wanted if isinstance(wanted, list) else [wanted]))


def equal(left: Any, right: Any) -> bool:
    """Return True if two row keys are the same, numbers and their texts too.

    Example:
        >>> equal("8/255", 8 / 255), equal("pgd", "bpda")
        (True, False)
    """
    a, b = as_number(left), as_number(right)
    if a is not None and b is not None:
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(left == right)
