"""What a sweep without an experiment shows of its points: the headline values of each verb."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advpure.base.errors import BadInput
from advpure.statistics.estimates import Estimate
from advpure.sweeps.columns import Column, headlines
from advpure.sweeps.points import Point
from advpure.sweeps.session import SweepRun
from advpure.sweeps.status import Status, statuses
from advpure.sweeps.table import Reports


def shown_columns(points: Sequence[Point]) -> dict[str, dict[str, Column]]:
    """Return the columns to show for each block."""
    return {point.block: headlines(point.block, point.verb) for point in points}


def values_of(
    point: Point, columns: Mapping[str, Mapping[str, Column]], reports: Reports
) -> dict[str, Estimate]:
    """Read the shown values of a finished point; those that it does not report are left out.

    Raises:
        BadInput: when its records cannot be read.
    """
    values, report = {}, reports.of(point)
    for name, column in columns.get(point.block, {}).items():
        try:
            value = column.read(report)
        except BadInput:
            continue
        if value is not None:
            values[name] = value
    return values


def overview(run: SweepRun) -> dict[str, Any]:
    """Return a sweep as one JSON object: every point with its state and values."""
    reports, columns = Reports(run.index.root), shown_columns(run.points)
    blocks = list(dict.fromkeys(point.block for point in run.points))
    listed = sorted(
        (_as_checked(status, run) for status in statuses(run.index, run.points)),
        key=lambda s: (blocks.index(s.point.block), s.point.place),
    )
    return {
        "sweep": str(run.index.folder),
        "name": run.index.settings["name"],
        "points": [_point(status, columns, reports) for status in listed],
        **{state: sum(s.state == state for s in listed) for state in ("done", "failed")},
        "left": sum(s.state in ("left", "running") for s in listed),
        "notes": list(run.notes),
    }


def _as_checked(status: Status, run: SweepRun) -> Status:
    """Return the status of a point as the check of its records has it."""
    name = status.point.run
    if name in run.broken:
        return Status(status.point, "failed", error=run.failed[name])
    if status.state == "done" and name not in run.done:
        return Status(status.point, "left")
    return status


def _point(
    status: Status, columns: Mapping[str, Mapping[str, Column]], reports: Reports
) -> dict[str, Any]:
    point = status.point
    entry: dict[str, Any] = {
        "block": point.block,
        "verb": point.verb,
        "at": dict(point.at),
        "state": status.state,
        "run": point.run,
        "seconds": status.seconds,
    }
    if status.error is not None:
        entry["error"] = status.error
    if status.state == "done":
        values = values_of(point, columns, reports)
        entry["values"] = {
            name: replace(value, key="value", is_mean=True, extra={}).to_json()
            for name, value in values.items()
        }
    return entry
