"""The layout of a table of records, and how its values cross into SQLite and back unchanged.

SQLite keeps doubles exactly, infinities and signed zeros included, in columns without declared
affinity, but turns NaN into NULL; NaN is therefore stored as the text "nan".

A layout also says what its values can be: ranges stand in the annotations, as in settings classes,
and a column that follows from two others says how. Both are stored with the layout and are checked
when a row is written and when it is read.
"""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Le

from advpure.base.errors import BadInput
from advpure.base.validation import ANY, LARGEST, Range, bounds_of, range_of, shown

Row = dict[str, Any]
Kind = Any
"""A type of `_KINDS`, or `Annotated` with bounds; with ``| None`` where a value may be absent."""
Count = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Length = Annotated[float, Ge(0)]
_NARROW = (bool, float)  # kinds whose stored types have values that are none of theirs
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (int, float, str, bool, bytes)}
_AFFINITY = {int: "INTEGER", float: "", str: "TEXT", bool: "INTEGER", bytes: "BLOB"}
_SAMPLE = ("sample", "id")
"""Key columns that hold sample ids."""


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


_RULES: dict[str, Callable[[Any, Any], Any]] = {"equal": lambda a, b: a == b, "ratio": _ratio}


@dataclass(frozen=True)
class Schema:
    """A table: its key columns, which name a row, and its value columns.

    Args:
        table: The table's name.
        keys: Key columns, in sorting order, to int, float, str, bool or bytes, or to one of these
            with bounds: ``Annotated[int, Ge(0)]``. A key `sample` or `id` holds sample ids.
        values: Value columns to the same types, or to `kind | None` where a value may be absent.
        derived: Columns that follow from two others, to ("equal" or "ratio", first, second):
            whether they are equal, or first / second (absent where second is 0).

    Raises:
        ValueError: for names that are no identifiers, are taken twice (letter case does not
            count), begin with an underscore or are the reserved "run", for other types, or for
            derived columns of another form.

    Example:
        >>> schema = Schema("attack", {"sample": int}, {"robust": bool, "loss": float | None})
        >>> schema.encode({"sample": 3, "robust": True})
        (3, 1, None)
    """

    table: str
    keys: Mapping[str, Kind]
    values: Mapping[str, Kind]
    derived: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    columns: Mapping[str, tuple[type, bool]] = field(init=False, repr=False, compare=False)
    ranges: Mapping[str, Range] = field(init=False, repr=False, compare=False)
    _stored: tuple[tuple[str, type, frozenset[type]], ...] = field(
        init=False, repr=False, compare=False
    )
    _bounded: tuple[tuple[str, int, float, float, Range], ...] = field(
        init=False, repr=False, compare=False
    )
    _indices: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the names and the types."""
        seen: set[str] = {"run"}
        for name in (self.table, *self.keys, *self.values):
            clean = name.isidentifier() and not name.startswith("_")
            if not clean or (name is not self.table and name.lower() in seen):
                raise ValueError(f"name {name!r} of table {self.table!r} is taken or unusable")
            if name is not self.table:
                seen.add(name.lower())
        if not self.keys:
            raise ValueError(f"table {self.table!r} has no key")
        read = {name: _read_kind(name, kind) for name, kind in {**self.keys, **self.values}.items()}
        if any(read[name][1] for name in self.keys):
            raise ValueError(f"table {self.table!r} has an optional key")
        columns = {name: (kind, optional) for name, (kind, optional, _) in read.items()}
        object.__setattr__(self, "columns", columns)
        ranges = {name: within for name, (_, _, within) in read.items() if within != ANY}
        object.__setattr__(self, "ranges", ranges)
        stored = ((n, kind, _stored_types(kind, absent)) for n, (kind, absent) in columns.items())
        indices = {name: k for k, name in enumerate(columns)}
        bounded = ((name, indices[name], *_inside(each), each) for name, each in ranges.items())
        object.__setattr__(self, "_stored", tuple(stored))
        object.__setattr__(self, "_bounded", tuple(bounded))
        object.__setattr__(self, "_indices", indices)
        for name, (rule, *sources) in self.derived.items():
            known = name in self.values and all(source in columns for source in sources)
            if not known or rule not in _RULES or len(sources) != 2:
                raise ValueError(f"derived column {name!r} of {self.table!r} is of another form")

    @property
    def sample(self) -> str | None:
        """The key column that holds sample ids, None where there is none."""
        return next((name for name in self.keys if name in _SAMPLE), None)

    @property
    def statement(self) -> str:
        """The SQL statement that creates the table; `_batch` is for `advpure.runs.integrity`."""
        columns = ", ".join(
            f'"{name}" {_AFFINITY[kind]}{"" if optional else " NOT NULL"}'
            for name, (kind, optional) in self.columns.items()
        )
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return (
            f'CREATE TABLE "{self.table}" ({columns}, _batch INTEGER NOT NULL, '
            f"PRIMARY KEY ({keys})) WITHOUT ROWID"
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the layout in JSON-ready values."""
        described = {
            name: [name, kind.__name__ + (" | None" if optional else ""), *self._bounds(name)]
            for name, (kind, optional) in self.columns.items()
        }
        return {
            "table": self.table,
            "keys": [described[name] for name in self.keys],
            "values": [described[name] for name in self.values],
            "derived": {name: list(rule) for name, rule in self.derived.items()},
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Schema":
        """Read what `to_json` wrote.

        Raises:
            ValueError: for anything else; or KeyError or TypeError.
        """
        keys = {name: _kind_of(text, *within) for name, text, *within in entry["keys"]}
        values = {name: _kind_of(text, *within) for name, text, *within in entry["values"]}
        derived = {name: (str(a), str(b), str(c)) for name, (a, b, c) in entry["derived"].items()}
        return cls(entry["table"], keys, values, derived)

    def check_column(self, name: str) -> None:
        """Refuse a name that is no column.

        Raises:
            BadInput: naming the columns there are.
        """
        if name not in self.columns:
            known = f"known: {', '.join(self.columns)}"
            raise BadInput(f"column {name!r}", f"is not in table {self.table}", known)

    def encode(
        self, row: Mapping[str, Any], samples: Container[int] | None = None
    ) -> tuple[Any, ...]:
        """Turn a row into the values that SQLite stores, keys first.

        Args:
            row: Column to value.
            samples: The sample ids that there can be; None for any.

        Raises:
            BadInput: for a missing or unknown column, or a value that cannot be.
        """
        for name in row:
            self.check_column(name)
        for name, (_, optional) in self.columns.items():
            if name not in row and not optional:
                fix = "give every column that is not optional"
                raise BadInput(f"a row of {self.table}", f"lacks column {name!r}", fix)
        encoded = tuple(
            value
            if type(value) is kind and _is_plain(value, kind)
            else self.encode_value(name, value)
            for name, (kind, _) in self.columns.items()
            for value in (row.get(name),)
        )
        if problem := self.problem(encoded, samples):
            raise BadInput(f"a row of {self.table}", problem, "see the layout of the table")
        return encoded

    def encode_value(self, name: str, value: Any) -> Any:
        """Turn one value into what SQLite stores; zero-dimensional arrays and tensors count."""
        self.check_column(name)
        kind, optional = self.columns[name]
        if hasattr(value, "item"):
            value = value.item()
        if value is None and optional:
            return None
        if kind is float and type(value) is int and abs(value) <= LARGEST:
            value = float(value)
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if fits and kind is int:
            fits = -LARGEST - 1 <= value <= LARGEST
        if fits and kind is str:
            fits = not any("\ud800" <= letter <= "\udfff" for letter in value)
        if fits and kind is float and math.isnan(value):
            if name not in self.keys:
                return "nan"
            fits = False
        if not fits:
            wanted = f"cannot be stored in the {kind.__name__} column {name}"
            raise BadInput(f"value {shown(value)}", wanted, f"see the layout of table {self.table}")
        return int(value) if kind is bool else kind(value)

    def decode(self, name: str, value: Any) -> Any:
        """Turn one stored value back."""
        kind, _ = self.columns[name]
        return value if value is None else kind(value)

    def problem(self, stored: Sequence[Any], samples: Container[int] | None = None) -> str:
        """Say what is wrong with a stored row, keys first; empty where nothing is.

        Args:
            stored: One value of each column, as SQLite has it.
            samples: The sample ids that there can be; None for any.

        Example:
            >>> from annotated_types import Ge
            >>> schema = Schema("attack", {"sample": int}, {"l2": Annotated[float, Ge(0)]})
            >>> schema.problem((3, -1.0))
            'has l2 = -1.0, which is not 0 or more'
        """
        for value, (name, kind, types) in zip(stored, self._stored, strict=True):
            if type(value) not in types or (kind in _NARROW and not _is_possible(value, kind)):
                return f"has {name} = {shown(value)}, which is no {kind.__name__}"
        for name, index, low, high, within in self._bounded:
            value = stored[index]
            if value is None or (type(value) is not str and low < value < high):
                continue
            if value == "nan" or not within.holds(value):
                return f"has {name} = {shown(value)}, which is not {within}"
        for name, (rule, first, second) in self.derived.items():
            value, a, b = (
                self.decode(each, stored[self._indices[each]]) for each in (name, first, second)
            )
            right = None if a is None or b is None else _RULES[rule](a, b)
            if value != right and not (value != value and right != right):  # NaN equals NaN
                sources = f"{first} = {shown(a)} and {second} = {shown(b)}"
                return f"has {name} = {shown(value)}, which contradicts {sources}"
        if samples is not None and self.sample is not None:
            sample = stored[self._indices[self.sample]]
            if sample not in samples:
                return f"has {self.sample} = {sample}, which is no image of the run"
        return ""

    def _bounds(self, name: str) -> list[list[float | None]]:
        return [list(self.ranges[name])] if name in self.ranges else []


def _inside(within: Range) -> tuple[float, float]:
    """Return the open interval that a range holds, whose ends are quick to compare."""
    low, high = (
        tuple(end for end in ends if end is not None)
        for ends in ((within.least, within.above), (within.most, within.below))
    )
    return max(low, default=-math.inf), min(high, default=math.inf)


def _stored_types(kind: type, optional: bool) -> frozenset[type]:
    """Return the types that SQLite has for the values of a column; NaN is a text."""
    types: dict[type, tuple[type, ...]] = {bool: (int,), float: (float, str)}
    return frozenset((*types.get(kind, (kind,)), *((NoneType,) if optional else ())))


def _is_possible(value: Any, kind: type) -> bool:
    """Return whether a value of a right type can be that of a column."""
    if kind is bool:
        return value in (0, 1, None)
    return kind is not float or type(value) is not str or value == "nan"


def _is_plain(value: Any, kind: type) -> bool:
    """Return whether SQLite stores a value of this very type as it stands."""
    if kind is float:
        return bool(value == value)
    return bool(-LARGEST <= value <= LARGEST) if kind is int else kind is bytes


def _kind_of(text: str, bounds: Sequence[float | None] = ()) -> Kind:
    """Return the annotation that a layout's text and bounds stand for."""
    kind: Any = _KINDS[text.removesuffix(" | None")]
    if bounds:
        kind = Annotated[kind, *bounds_of(Range(*bounds))]
    return kind if text in _KINDS else kind | None


def _read_kind(name: str, kind: Kind) -> tuple[type, bool, Range]:
    """Return the type of a column, whether it may be absent, and its range."""
    origin: Any = get_origin(kind)
    parts = get_args(kind) if origin in (Union, UnionType) else (kind,)
    plain = [part for part in parts if part is not NoneType]
    within = ANY
    if len(plain) == 1 and get_origin(plain[0]) is Annotated:
        bare, *extras = get_args(plain[0])
        plain, within = [bare], range_of(extras)
    if len(plain) != 1 or plain[0] not in _AFFINITY:
        known = ", ".join(_KINDS)
        raise ValueError(f"column {name!r} has type {kind}; known: {known}, each with | None")
    return plain[0], NoneType in parts, within
