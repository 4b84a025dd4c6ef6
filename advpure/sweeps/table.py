"""The table of a sweep, from the records of its finished points alone.

A row key stands for an option, or for something that varies within each report. The latter is given
as a list of values, or as a mapping from values to the text by which `{KEY}` is replaced in the
paths of the columns:

    keys: {t: t, randomness: [fresh, fixed], varies: {input: centroid_vary_input, ...}}
    columns: {clean: {block: attack, at: "rows[randomness={randomness}].clean"}}

A key that stands for an option whose values are no names for a table gives them names, under the
values of the option; of several options, under their values joined by blanks:

    keys: {tuning: {option: weights, digits-cm: none, digits-cm-ft: l2}}
    keys: {tuned: {option: [defense, classifier], cm digits-classifier: neither, ...}}
"""

import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from advpure.base.errors import BadInput
from advpure.base.flags import by_field
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.studies import STUDIES
from advpure.sweeps.columns import Column
from advpure.sweeps.points import Point

Key = tuple[Any, ...]
Keys = Mapping[str, str | Sequence[Any] | Mapping[Any, Any]]


class Options(NamedTuple):
    """The options that a row key stands for.

    Attributes:
        names: The options.
        words: What their values are called in the table, where that is another word.
    """

    names: tuple[str, ...]
    words: Mapping[str, str]

    def of(self, point: Point) -> Any:
        """Return a point's row key."""
        values = [_read(point, name) for name in self.names]
        text = " ".join(map(str, values))
        return self.words.get(text, values[0] if len(values) == 1 else text)

    def set_by(self, point: Point, swept: set[str]) -> bool:
        """Return True if a point has its own values: on an axis, or one for all points."""
        return all(name in point.at or name not in swept for name in self.names)


def options_of(stands: str | Sequence[Any] | Mapping[Any, Any]) -> Options | None:
    """Read what a row key stands for; None for what varies within each report.

    Example:
        >>> options_of("t"), options_of({"option": "weights", "digits-cm": "none"}).words
        (Options(names=('t',), words={}), {'digits-cm': 'none'})
    """
    if isinstance(stands, str):
        return Options((stands,), {})
    if isinstance(stands, Mapping) and "option" in stands:
        named = stands["option"]
        words = {str(key): word for key, word in stands.items() if key != "option"}
        return Options((named,) if isinstance(named, str) else tuple(named), words)
    return None


class Cell(NamedTuple):
    """One value of a table, the point that it comes from, and its path in that report."""

    value: Estimate | None
    point: Point
    at: str = ""


@dataclass(frozen=True)
class Table:
    """Measured values by row and column.

    Attributes:
        keys: Names of the row keys, each with what it stands for.
        columns: Names of the columns and where they come from.
        rows: Row keys, in the order of the file.
        cells: Value of (row, column); absent where the run is not finished.
    """

    keys: Keys
    columns: Mapping[str, Column]
    rows: tuple[Key, ...]
    cells: Mapping[tuple[Key, str], Cell] = field(default_factory=dict)

    def value(self, row: Key, column: str) -> Estimate | None:
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
        """Return the tree of the report of a finished point.

        Raises:
            BadInput: for a verb that cannot report from its records alone.
        """
        if point.run not in self._found:
            self._found[point.run] = report_of(self._root / point.run, point.verb)
        return self._found[point.run]


def report_of(folder: Path, verb: str) -> dict[str, Any]:
    """Compute the tree of the report of a run folder from its records alone.

    Raises:
        BadInput: for a folder without records, or a verb that needs more than records.
    """
    with RecordStore.read(folder) as store:
        tree: dict[str, Any] = STUDIES.get(verb).report(store).tree()
        return tree


def tabulate(
    points: Sequence[Point],
    finished: Set[str],
    reports: Reports,
    keys: Keys,
    columns: Mapping[str, Column],
) -> Table:
    """Gather the values of finished points into rows.

    Args:
        points: The points of the sweep.
        finished: Runs that are finished.
        reports: Where their reports come from.
        keys: Row key to what it stands for. A block that does not set an option along an axis has
            one value for all rows that differ in it alone.
        columns: Column name to where it comes from.

    Raises:
        BadInput: for a column whose path leads nowhere, or a row with two values.
    """
    swept = {option for point in points for option in point.at}
    rows = _rows(points, keys, swept)
    cells: dict[tuple[Key, str], Cell] = {}
    for name, column in columns.items():
        for point in _of_column(points, column):
            if point.run not in finished:
                continue
            for row in rows:
                if _belongs(point, row, keys, swept):
                    placed = _placed(column, row, keys)
                    cell = Cell(placed.read(reports.of(point)), point, placed.at)
                    known = cells.setdefault((row, name), cell)
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


def _rows(points: Sequence[Point], keys: Keys, swept: set[str]) -> list[Key]:
    """Return the row keys of the points that set all options, in the order of the file."""
    options = {key: named for key, stands in keys.items() if (named := options_of(stands))}
    order: dict[Key, int] = {}
    for point in points:
        if all(option.set_by(point, swept) for option in options.values()):
            row = tuple(option.of(point) for option in options.values())
            order.setdefault(row, point.place)
    outer = [dict(zip(options, row, strict=True)) for row in sorted(order, key=lambda r: order[r])]
    inner = {key: list(within) for key, within in keys.items() if key not in options}
    rows = []
    for at in outer:
        for values in itertools.product(*inner.values()):
            whole = {**at, **dict(zip(inner, values, strict=True))}
            rows.append(tuple(whole[key] for key in keys))
    return rows


def _belongs(point: Point, row: Key, keys: Keys, swept: set[str]) -> bool:
    return all(
        option.of(point) == value
        for stands, value in zip(keys.values(), row, strict=True)
        if (option := options_of(stands)) and option.set_by(point, swept)
    )


def _placed(column: Column, row: Key, keys: Keys) -> Column:
    """Return the column with the row's own texts in its paths."""
    texts = {}
    for (key, within), value in zip(keys.items(), row, strict=True):
        if options_of(within) is None:
            texts[f"{{{key}}}"] = str(within[value] if isinstance(within, Mapping) else value)

    def written(path: str) -> str:
        for name, text in texts.items():
            path = path.replace(name, text)
        return path

    return replace(column, at=written(column.at))


def _read(point: Point, option: str) -> Any:
    if option in point.at:
        return point.at[option]
    (name,) = by_field(type(point.settings), {option: None})
    outer, dot, inner = name.partition(".")
    value = getattr(point.settings, outer)
    return value.get(inner) if dot else value
