"""The table of a sweep, from the records of its finished points alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from advpure.analysis.runs import RUNS
from advpure.errors import BadInput
from advpure.records import RecordStore
from advpure.sweeps.columns import Column, Value
from advpure.sweeps.points import Point

Key = tuple[Any, ...]


class Cell(NamedTuple):
    """One value of a table, and the run that it comes from."""

    value: Value | None
    point: Point


@dataclass(frozen=True)
class Table:
    """Measured values by row and column.

    Attributes:
        keys: Names of the row keys, each with the option that it stands for.
        columns: Names of the columns and where they come from.
        rows: Row keys, in the order of the file.
        cells: Value of (row, column); absent where the run is not finished.
    """

    keys: Mapping[str, str]
    columns: Mapping[str, Column]
    rows: tuple[Key, ...]
    cells: Mapping[tuple[Key, str], Cell] = field(default_factory=dict)

    def value(self, row: Key, column: str) -> Value | None:
        """Return a value, None where there is none (yet)."""
        cell = self.cells.get((row, column))
        return None if cell is None else cell.value

    def named(self, row: Key) -> dict[str, Any]:
        """Return a row's keys by name."""
        return dict(zip(self.keys, row, strict=True))


class Reports:
    """Reports of finished runs below a root, each computed from its records once."""

    def __init__(self, root: Path) -> None:
        """Begin with none."""
        self._root = root
        self._found: dict[str, dict[str, Any]] = {}

    def of(self, point: Point) -> dict[str, Any]:
        """Return the report of a finished point as JSON values.

        Raises:
            BadInput: for a verb that cannot report from its records alone.
        """
        if point.run not in self._found:
            self._found[point.run] = report_of(self._root / point.run, point.verb)
        return self._found[point.run]


def report_of(folder: Path, verb: str) -> dict[str, Any]:
    """Compute the report of a run folder from its records alone.

    Raises:
        BadInput: for a folder without records, or a verb that needs more than records.
    """
    make = RUNS.get(verb).report
    if make is None:
        raise BadInput(f"a run of {verb}", "cannot be reported from its records", "run the verb")
    with RecordStore.read(folder) as store:
        return make(store).to_json()


def tabulate(
    points: Sequence[Point],
    finished: set[str],
    reports: Reports,
    keys: Mapping[str, str],
    columns: Mapping[str, Column],
) -> Table:
    """Gather the values of finished points into rows.

    Args:
        points: The points of the sweep.
        finished: Runs that are finished.
        reports: Where their reports come from.
        keys: Row key to dotted option. A block that does not set an option along an axis has one
            value for all rows that differ in it alone.
        columns: Column name to where it comes from.

    Raises:
        BadInput: for a column whose path leads nowhere, or a row with two values.
    """
    rows = _rows(points, keys)
    cells: dict[tuple[Key, str], Cell] = {}
    for name, column in columns.items():
        for point in _of_column(points, column):
            if point.run not in finished:
                continue
            value = column.read(reports.of(point))
            for row in rows:
                if _belongs(point, row, keys):
                    known = cells.setdefault((row, name), Cell(value, point))
                    if known.point.run != point.run:
                        raise BadInput(
                            f"column {name} of row {row}",
                            f"has two values, from {known.point.run} and {point.run}",
                            "name more row keys, or choose with where:",
                        )
    return Table(dict(keys), dict(columns), tuple(rows), cells)


def _of_column(points: Sequence[Point], column: Column) -> list[Point]:
    wanted = column.where or {}
    return [
        point
        for point in points
        if point.block == column.block and all(_read(point, k) == v for k, v in wanted.items())
    ]


def _rows(points: Sequence[Point], keys: Mapping[str, str]) -> list[Key]:
    """Return the row keys of the points that set all of them, in the order of the file."""
    found: dict[Key, int] = {}
    for point in points:
        if all(option in point.at for option in keys.values()):
            found.setdefault(tuple(point.at[option] for option in keys.values()), point.place)
    return sorted(found, key=lambda row: found[row])


def _belongs(point: Point, row: Key, keys: Mapping[str, str]) -> bool:
    return all(
        point.at[option] == value
        for option, value in zip(keys.values(), row, strict=True)
        if option in point.at
    )


def _read(point: Point, option: str) -> Any:
    if option in point.at:
        return point.at[option]
    outer, dot, inner = option.partition(".")
    value = getattr(point.settings, outer)
    return value.get(inner) if dot else value
