"""Values with n and interval out of a verb's report, by a path into its tree.

A path is names and indices joined by dots, such as `stages.clean.mean` or `rows.0`; brackets choose
the entry of a list whose fields have given values, as in `rows[norm=l2,place=end]`. It ends at an
estimate or at a number, see `advpure.statistics.estimates`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from advpure.analysis.certification.radius import round_down
from advpure.base.errors import BadInput
from advpure.base.validation import check_choice
from advpure.statistics.estimates import Estimate, find
from advpure.statistics.rates import Interval
from advpure.studies import STUDIES
from advpure.sweeps.published import Printed, PublishedTable

Unit = Literal["percent", "number", "radius"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where a value is found.

    Args:
        block: The block of the sweep whose runs report it.
        at: Path to the estimate or number.
        unit: ``percent``: a share in [0, 1], printed in per cent. ``radius``: a certified one,
            rounded down wherever it is printed.
        where: Only points with these values on the axes, dotted option to value; so one block can
            fill several columns.
        optional: Whether a report may lack the value, as where a metric cannot be had.
        printed: What is printed beside it, where not the published value of the same name: the name
            of the published ``column``, and row keys laid over the row's own.
        about: What the value is.
    """

    block: str
    at: str
    unit: Unit = "number"
    where: Mapping[str, Any] | None = None
    optional: bool = False
    printed: Mapping[str, Any] | None = None
    about: str = ""

    def __post_init__(self) -> None:
        """Check the unit."""
        check_choice(self.unit, get_args(Unit), "unit")

    def read(self, tree: Mapping[str, Any]) -> Estimate | None:
        """Read the value out of a report's tree; None where the report says that there is none.

        Raises:
            BadInput: when the path leads nowhere.

        Example:
            >>> Column(block="cr", at="rows.0").read({"rows": [Estimate(value=0.4, n=9)]}).n
            9
        """
        try:
            there: Any = find(tree, self.at)
        except BadInput:
            if self.optional:
                return None
            raise
        if isinstance(there, Mapping):
            there = _from_json(there)
        elif there is not None and not isinstance(there, Estimate):
            there = _bare(tree, self.at, there)
        estimate: Estimate | None = there
        return estimate


def find_printed(
    table: PublishedTable | None, row: Mapping[str, Any], name: str, column: Column
) -> Printed | None:
    """Return the published value that belongs beside a measured one, None where there is none.

    Args:
        table: The published table, if there is one.
        row: Row keys by name.
        name: The name of the measured column.
        column: That column.
    """
    laid = {"column": name, **(column.printed or {})}
    published = laid.pop("column")
    if table is None or published not in table.columns:
        return None
    return table.find({**row, **laid}, published)


def written(value: float, unit: Unit) -> str:
    """Write a value as tables do: four digits, a share in per cent, a radius rounded down.

    Example:
        >>> written(0.32279, "number"), written(0.32279, "radius"), written(0.32279, "percent")
        ('0.3228', '0.3227', '32.3')
    """
    if unit == "percent":
        return f"{100.0 * value:.1f}"
    return round_down(value, 4) if unit == "radius" else f"{value:.4g}"


def headlines(block: str, verb: str) -> dict[str, Column]:
    """Return the columns that are shown for a verb, none for one that has no headline."""
    return {name: Column(block=block, **spec) for name, spec in STUDIES.get(verb).columns.items()}


def _from_json(fields: Mapping[str, Any]) -> Estimate | None:
    key = next((each for each in ("value", "mean") if each in fields), None)
    if key is None:
        known = ", ".join(map(str, fields))
        raise BadInput("an estimate", "has neither value nor mean", f"known: {known}")
    if fields[key] is None:
        return None
    interval = fields.get("interval")
    if interval is None and fields.get("low") is not None:
        interval = (fields["low"], fields["high"])
    return Estimate(
        value=fields[key],
        n=fields.get("n"),
        std=fields.get("std"),
        interval=None if interval is None else Interval(*interval),
    )


def _bare(tree: Mapping[str, Any], path: str, there: Any) -> Estimate:
    if isinstance(there, bool) or not isinstance(there, int | float):
        raise BadInput(f"path {path!r}", f"ends at {there!r}", "end it at a number or an estimate")
    outer, _, name = path.rpartition(".")
    beside = find(tree, outer)
    if not isinstance(beside, Mapping):
        return Estimate(value=float(there))
    interval = beside.get(f"{name}_interval")
    return Estimate(
        value=float(there),
        n=beside.get(f"{name}_n"),
        std=beside.get(f"{name}_std"),
        interval=None if interval is None else Interval(*interval),
    )
