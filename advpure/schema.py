"""The layout of a table of records, and how its values cross into SQLite and back unchanged.

SQLite keeps doubles exactly, infinities and signed zeros included, in columns without declared
affinity, but turns NaN into NULL; NaN is therefore stored as the text "nan".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, get_args

from advpure.errors import BadInput

Row = dict[str, Any]
Kind = type | UnionType
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (int, float, str, bool, bytes)}
_AFFINITY = {int: "INTEGER", float: "", str: "TEXT", bool: "INTEGER", bytes: "BLOB"}
_LARGEST = 2**63


@dataclass(frozen=True)
class Schema:
    """A table: its key columns, which name a row, and its value columns.

    Args:
        table: The table's name.
        keys: Key columns, in sorting order, to int, float, str, bool or bytes.
        values: Value columns to the same types, or to `kind | None` where a value may be absent.

    Raises:
        ValueError: for names that are no identifiers, are taken twice (letter case does not
            count), begin with an underscore or are the reserved "run", or for other types.

    Example:
        >>> schema = Schema("attack", {"sample": int}, {"robust": bool, "loss": float | None})
        >>> schema.encode({"sample": 3, "robust": True})
        (3, 1, None)
    """

    table: str
    keys: Mapping[str, type]
    values: Mapping[str, Kind]
    columns: Mapping[str, tuple[type, bool]] = field(init=False, repr=False, compare=False)

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
        columns = {name: _read_kind(name, kind) for name, kind in self.values.items()}
        keys = {name: _read_kind(name, kind) for name, kind in self.keys.items()}
        if any(optional for _, optional in keys.values()):
            raise ValueError(f"table {self.table!r} has an optional key")
        object.__setattr__(self, "columns", {**keys, **columns})

    @property
    def statement(self) -> str:
        """The SQL statement that creates the table."""
        columns = ", ".join(
            f'"{name}" {_AFFINITY[kind]}{"" if optional else " NOT NULL"}'
            for name, (kind, optional) in self.columns.items()
        )
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f'CREATE TABLE "{self.table}" ({columns}, PRIMARY KEY ({keys})) WITHOUT ROWID'

    def to_json(self) -> dict[str, Any]:
        """Describe the layout in JSON-ready values."""
        described = {
            name: kind.__name__ + (" | None" if optional else "")
            for name, (kind, optional) in self.columns.items()
        }
        return {
            "table": self.table,
            "keys": [[name, described[name]] for name in self.keys],
            "values": [[name, described[name]] for name in self.values],
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Schema":
        """Read what `to_json` wrote."""
        values: dict[str, Kind] = {}
        for name, text in entry["values"]:
            kind = _KINDS[text.removesuffix(" | None")]
            values[name] = kind if text in _KINDS else kind | None
        keys = {name: _KINDS[text] for name, text in entry["keys"]}
        return cls(entry["table"], keys, values)

    def check_column(self, name: str) -> None:
        """Refuse a name that is no column.

        Raises:
            BadInput: naming the columns there are.
        """
        if name not in self.columns:
            known = f"known: {', '.join(self.columns)}"
            raise BadInput(f"column {name!r}", f"is not in table {self.table}", known)

    def encode(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Turn a row into the values that SQLite stores, keys first.

        Raises:
            BadInput: for a missing or unknown column, or a value that its type cannot hold.
        """
        for name in row:
            self.check_column(name)
        for name, (_, optional) in self.columns.items():
            if name not in row and not optional:
                fix = "give every column that is not optional"
                raise BadInput(f"a row of {self.table}", f"lacks column {name!r}", fix)
        return tuple(self.encode_value(name, row.get(name)) for name in self.columns)

    def encode_value(self, name: str, value: Any) -> Any:
        """Turn one value into what SQLite stores; zero-dimensional arrays and tensors count."""
        self.check_column(name)
        kind, optional = self.columns[name]
        if hasattr(value, "item"):
            value = value.item()
        if value is None and optional:
            return None
        if kind is float and type(value) is int:
            value = float(value)
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if fits and kind is int:
            fits = -_LARGEST <= value < _LARGEST
        if fits and kind is float and math.isnan(value):
            fits, value = name not in self.keys, "nan"
        if not fits:
            wanted = f"cannot be stored in the {kind.__name__} column {name}"
            raise BadInput(f"value {value!r}", wanted, f"see the layout of table {self.table}")
        return int(value) if kind is bool else value

    def decode(self, name: str, value: Any) -> Any:
        """Turn one stored value back."""
        kind, _ = self.columns[name]
        return value if value is None else kind(value)


def _read_kind(name: str, kind: Kind) -> tuple[type, bool]:
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    plain = [part for part in parts if part is not NoneType]
    if len(plain) != 1 or plain[0] not in _AFFINITY:
        known = ", ".join(_KINDS)
        raise ValueError(f"column {name!r} has type {kind}; known: {known}, each with | None")
    return plain[0], NoneType in parts
