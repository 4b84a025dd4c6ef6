"""The published numbers, as data: one file per paper in `advpure.experiments`."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from advpure.base.errors import BadInput
from advpure.base.units import as_number
from advpure.base.validation import check_choice


class Spread(BaseModel):
    """A value with its standard deviation, as printed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    std: float


class ColumnInfo(BaseModel):
    """What a column holds and in which unit it is printed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    unit: str
    about: str


class PublishedTable(BaseModel):
    """One table.

    Attributes:
        title: What it shows.
        settings: The setting that all rows share.
        keys: The columns that name a row.
        columns: The other columns.
        notes: Misprints, and what the source does not say.
        rows: The rows; values as printed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    settings: dict[str, Any]
    keys: list[str]
    columns: dict[str, ColumnInfo]
    notes: list[str] = []
    rows: list[dict[str, Spread | float | int | str | None]]

    def find(self, row: Mapping[str, Any], column: str) -> "Printed | None":
        """Return a value of the row that agrees in all keys that both have, None if there is none.

        Args:
            row: Row keys by name; numbers agree with their text ("8/255").
            column: A column.

        Raises:
            BadInput: for an unknown column.
        """
        check_choice(column, tuple(self.columns), "published column")
        keys = [key for key in self.keys if key in row]
        matches = [each for each in self.rows if all(_agree(each[key], row[key]) for key in keys)]
        if len(matches) != 1 or matches[0].get(column) is None:
            return None
        value, unit = matches[0][column], self.columns[column].unit
        spread = value if isinstance(value, Spread) else Spread(value=value, std=0.0)  # type: ignore[arg-type]
        # Divided and not multiplied, so that 2.2 % is the number nearest to 0.022.
        unit_of = _UNITS.get(unit, 1.0)
        std = spread.std / unit_of if isinstance(value, Spread) else None
        return Printed(spread.value / unit_of, std)


class Printed(NamedTuple):
    """A published value in the units of this program (shares in [0, 1]), and its deviation."""

    value: float
    std: float | None


class PublishedWork(BaseModel):
    """A paper and its tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: str
    title: str
    arxiv: str
    tables: dict[str, PublishedTable]


_UNITS = {"percent": 100.0, "variance x 1e-3": 1000.0, "ratio x 1e-3": 1000.0}


@cache
def published(seed: str) -> PublishedWork:
    """Read the published numbers of a paper.

    Args:
        seed: Its number, such as "003".

    Raises:
        BadInput: for a paper without a file, or a file of another form.

    Example:
        >>> table = published("003").tables["T2"]
        >>> table.keys, sorted(table.columns)
        (['purifier', 't'], ['cr', 'pgd_fix'])
    """
    folder = files("advpure.experiments") / "published"
    known = tuple(sorted(path.name.removesuffix(".json") for path in folder.iterdir()))
    check_choice(seed, known, "paper")
    try:
        text = (folder / f"{seed}.json").read_text(encoding="utf-8")
        return PublishedWork.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"published/{seed}.json: {where}", first["msg"], "mend the file") from None


def _agree(there: Any, here: Any) -> bool:
    left, right = as_number(there), as_number(here)
    if left is not None and right is not None:
        return abs(left - right) <= 1e-9 * max(abs(left), abs(right), 1e-12)
    return str(there) == str(here)
