"""Figures of experiments and sweeps, from records alone.

An experiment names its figure and what that figure asks for:

    figure: {draw: compression-robustness, x: cr, y: pgd_fix, by: purifier}
    figure: {draw: curves, x: t, y: cr, by: purifier}

`x` and `y` are columns, in `curves` also a row key; `by` is the row key that names the groups. A
sweep without an experiment is drawn as curves of its headline values along its first ordered axis.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advpure.attacks.settings import choose
from advpure.charts import Points, Words, lines, scatter
from advpure.errors import BadInput
from advpure.sweeps.axes import number
from advpure.sweeps.columns import Value
from advpure.sweeps.reproduce import Reproduction
from advpure.sweeps.table import Key, Table


def draw_reproduction(found: Reproduction, path: Path) -> Path:
    """Draw the figure of an experiment.

    Args:
        found: Its measured table.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: when the experiment has no figure, or nothing is measured yet.
        StorageFull: when there is no room.
    """
    spec = dict(found.experiment.figure or {})
    if not spec:
        raise BadInput(f"experiment {found.experiment.id}", "has no figure", "leave out --plot")
    kind = spec.pop("draw", None)
    choose(kind, tuple(FIGURES), "figure")
    draw = FIGURES[str(kind)]
    try:
        inspect.signature(draw).bind(found, path, **spec)
    except TypeError as error:
        raise BadInput(
            f"figure {kind} with {', '.join(spec)}", "does not fit", str(error)
        ) from None
    return draw(found, path, **spec)


def compression_robustness(
    found: Reproduction, path: Path, *, x: str, y: str, by: str, label: str | None = None
) -> Path:
    """Draw robustness against compression, one marker a purifier, with the sigmoid through all."""
    groups = _by(found.table, by)
    beside = label or next((key for key in found.table.keys if key != by), None)
    measured = {
        name: _plane(found.table, rows, x, y, beside) for name, rows in groups.items()
    }  # fmt: skip
    measured = {name: points for name, points in measured.items() if points.x}
    if not measured:
        raise _nothing(found)
    words = Words(
        x=_axis_name(found.table, x), y=_axis_name(found.table, y), title=found.experiment.title,
        caption=caption(found, beside),
    )  # fmt: skip
    return scatter(measured, path, words, hollow=_hollow(found, groups, x, y))


def curves(
    found: Reproduction, path: Path, *, x: str, y: str, by: str | None = None,
    logarithmic: bool = False,
) -> Path:  # fmt: skip
    """Draw a column along a row key, with bands."""
    table = found.table
    groups = _by(table, by) if by else {y: list(table.rows)}
    measured = {
        name: _along(table, sorted(rows, key=lambda row: _place(table, row, x)), x, y)
        for name, rows in groups.items()
    }
    measured = {name: points for name, points in measured.items() if points.x}
    if not measured:
        raise _nothing(found)
    words = Words(
        x=x, y=_axis_name(table, y), title=found.experiment.title, caption=caption(found)
    )  # fmt: skip
    hollow = {
        name: _printed_along(found, rows, x, y) for name, rows in groups.items()
    } if _same_data(found) else {}  # fmt: skip
    hollow = {name: points for name, points in hollow.items() if points.x}
    return lines(measured, path, words, logarithmic=logarithmic, hollow=hollow)


FIGURES: dict[str, Callable[..., Path]] = {
    "compression-robustness": compression_robustness,
    "curves": curves,
}
"""Kinds of figures; a new one is a function and a line here."""


def caption(found: Reproduction, labels: str | None = None) -> str:
    """Write n and settings below a figure, with what the intervals are."""
    table, e = found.table, found.experiment
    counts = sorted({cell.value.n for cell in table.cells.values() if cell.value and cell.value.n})
    n = "" if not counts else f"n = {counts[0]}" + (f" to {counts[-1]}" if counts[1:] else "")
    done = sorted({cell.point.run for cell in table.cells.values()})
    chosen = {point.block: point for point in found.run.points if point.run in done}
    parts = [f"{e.id}, {e.size} ({e.label})", n, *(_settings(p) for p in chosen.values())]
    text = "; ".join(part for part in parts if part) + ". Bars and bands: 95 % intervals."
    return text + (f" Beside the points: {labels}." if labels else "")


def _settings(point: Any) -> str:
    """Write the settings of a block that are not swept, without those that are as by default."""
    import dataclasses

    default = {f.name: f.default for f in dataclasses.fields(point.settings)}
    shown = ["dataset"] + [
        name
        for name in default
        if getattr(point.settings, name) not in (default[name], None, {}) and name != "dataset"
    ]
    hidden = {option.partition(".")[0] for option in point.at}
    words = [
        f"{name} {_word(getattr(point.settings, name))}" for name in shown if name not in hidden
    ]
    return f"{point.verb}: {', '.join(words)}"


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_word(v)}" for k, v in value.items())
    return str(value)


def _by(table: Table, key: str) -> dict[str, list[Key]]:
    choose(key, tuple(table.keys), "row key")
    place = list(table.keys).index(key)
    found: dict[str, list[Key]] = {}
    for row in table.rows:
        found.setdefault(str(row[place]), []).append(row)
    return found


def _plane(table: Table, rows: Sequence[Key], x: str, y: str, label: str | None) -> Points:
    chosen = [
        (row, a, b)
        for row in rows
        if (a := table.value(row, x)) is not None and (b := table.value(row, y)) is not None
    ]
    place = None if label is None else list(table.keys).index(label)
    sx, sy = _scale(table, x), _scale(table, y)
    across, up = [a for _, a, _ in chosen], [b for *_, b in chosen]
    return Points(
        x=[sx * a.value for a in across], y=[sy * b.value for b in up],
        x_low=_ends(across, 0, sx), x_high=_ends(across, 1, sx),
        y_low=_ends(up, 0, sy), y_high=_ends(up, 1, sy),
        labels=None if place is None else [str(row[place]) for row, *_ in chosen],
    )  # fmt: skip


def _along(table: Table, rows: Sequence[Key], x: str, y: str) -> Points:
    chosen = [(row, b) for row in rows if (b := table.value(row, y)) is not None]
    scale, values = _scale(table, y), [b for _, b in chosen]
    bounded = any(value.interval is not None for value in values)
    return Points(
        x=[_place(table, row, x) for row, _ in chosen], y=[scale * b.value for b in values],
        y_low=_ends(values, 0, scale) if bounded else None,
        y_high=_ends(values, 1, scale) if bounded else None,
    )  # fmt: skip


def _ends(values: Sequence[Value], end: int, scale: float) -> list[float]:
    return [math.nan if v.interval is None else scale * v.interval[end] for v in values]


def _hollow(
    found: Reproduction, groups: Mapping[str, Sequence[Key]], x: str, y: str
) -> dict[str, Points]:
    if not _same_data(found):
        return {}
    sx, sy = _scale(found.table, x), _scale(found.table, y)
    drawn = {}
    for name, rows in groups.items():
        pairs = [(found.printed(row, x), found.printed(row, y)) for row in rows]
        known = [(a.value, b.value) for a, b in pairs if a is not None and b is not None]
        if known:
            drawn[name] = Points(x=[sx * a for a, _ in known], y=[sy * b for _, b in known])
    return drawn


def _printed_along(found: Reproduction, rows: Sequence[Key], x: str, y: str) -> Points:
    scale = _scale(found.table, y)
    known = [
        (_place(found.table, row, x), p.value)
        for row in rows
        if (p := found.printed(row, y)) is not None
    ]
    return Points(x=[a for a, _ in known], y=[scale * b for _, b in known])


def _same_data(found: Reproduction) -> bool:
    """Say whether published values are of the same data set, so that they belong in the picture."""
    if found.experiment.table is None:
        return False
    printed = found.experiment.table.settings.get("dataset")
    used = {getattr(point.settings, "dataset", None) for point in found.run.points}
    return used == {printed}


def _place(table: Table, row: Key, key: str) -> float:
    choose(key, tuple(table.keys), "row key")
    value = number(row[list(table.keys).index(key)])
    if value is None:
        raise BadInput(f"row {row}", f"has no number for {key}", "draw along another key")
    return value


def _scale(table: Table, column: str) -> float:
    choose(column, tuple(table.columns), "column")
    return 100.0 if table.columns[column].unit == "percent" else 1.0


def _axis_name(table: Table, column: str) -> str:
    about = table.columns[column].about or column
    return about + (" (%)" if table.columns[column].unit == "percent" else "")


def _nothing(found: Reproduction) -> BadInput:
    return BadInput(
        f"experiment {found.experiment.id}", "has no finished point to draw", "run it first"
    )
