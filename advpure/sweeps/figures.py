"""Kinds of figures that an experiment can name, drawn from its table.

    figure: {draw: compression-robustness, x: cr, y: pgd_fix, by: purifier}
    figure: {draw: curves, x: t, y: cr, by: purifier}
    figure: {draw: side-by-side, columns: [clean, pgd_fix]}
    figure: {draw: of-run, block: snr}                     # the verb's own figure of one run
    figure: {draw: together, block: steps}                 # the verb's figure of several runs
    figure: {draw: chains, block: distances, norm: l2}     # distances along chains, one a run
    figure: {draw: purified, block: transport, sigma: 0.5} # purified images, one row a run
    figure: {draw: certificates, block: certify}           # accuracy over the radius, by sigma
    figure: {draw: boosted, block: boost}                  # images of one run before and after

`x`, `y` and `columns` name columns of the table; in `curves`, `x` is a row key. `by` is the row key
that names the groups. Published values of the same data set are drawn hollow.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advpure.analysis.boosting.figure import grid_figure
from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.figure import draw_panels
from advpure.analysis.certification.study import Certification
from advpure.analysis.distances.result import DistancesResult
from advpure.analysis.robustness.wording import conditions
from advpure.analysis.transport.figure import draw_purified
from advpure.base.errors import BadInput
from advpure.base.units import as_number
from advpure.base.validation import check_choice
from advpure.options import read_options
from advpure.plots.charts import Points, Words, dots, lines, scatter
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval
from advpure.studies import STUDIES
from advpure.sweeps.columns import find_printed
from advpure.sweeps.points import Point, find_run
from advpure.sweeps.published import PublishedTable
from advpure.sweeps.table import Key, Table


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a figure is drawn from.

    Attributes:
        table: Measured values.
        points: The points of the sweep, for the settings in the caption.
        title: A line above the figure.
        name: Begins the caption.
        root: Where run folders are.
        published: Published values, None where there are none.
    """

    table: Table
    points: tuple[Point, ...]
    title: str
    name: str
    root: Path
    published: PublishedTable | None = None

    def scale(self, column: str) -> float:
        """Return 100 for a column in per cent, 1 for others."""
        check_choice(column, tuple(self.table.columns), "column")
        return 100.0 if self.table.columns[column].unit == "percent" else 1.0

    def axis(self, column: str) -> str:
        """Return the name of a column with its unit."""
        shown = self.table.columns[column]
        return (shown.about or column) + (" (%)" if shown.unit == "percent" else "")

    def printed(self, row: Key, column: str) -> float | None:
        """Return a published value of the same data set, None where there is none."""
        table = self.published
        if table is None or not self._same_data(table):
            return None
        cell = find_printed(table, self.table.named(row), column, self.table.columns[column])
        return None if cell is None else cell.value

    def _same_data(self, table: PublishedTable) -> bool:
        used = {getattr(point.settings, "dataset", None) for point in self.points}
        return used == {table.settings.get("dataset")}


def compression_robustness(
    drawn: Drawn, path: Path, *, x: str, y: str, by: str, label: str | None = None
) -> Path:
    """Draw robustness against compression, one marker a purifier."""
    table = drawn.table
    groups = _by(table, by)
    beside = label or next((key for key in _varied(table) if key != by), None)
    measured = _kept({name: _plane(drawn, rows, x, y, beside) for name, rows in groups.items()})
    words = Words(
        x=drawn.axis(x), y=drawn.axis(y), title=drawn.title, caption=caption(drawn, beside)
    )
    hollow = {name: _printed_plane(drawn, rows, x, y) for name, rows in groups.items()}
    return scatter(measured, path, words, hollow={k: p for k, p in hollow.items() if p.x})


def curves(
    drawn: Drawn, path: Path, *, x: str, y: str, by: str | None = None, logarithmic: bool = False
) -> Path:
    """Draw a column along a row key, with bands; without `by` a curve for all other keys."""
    table = drawn.table
    check_choice(x, tuple(table.keys), "row key")
    groups = _by(table, by) if by else _by_others(table, x, y)
    ordered = {k: sorted(rows, key=lambda row: _place(table, row, x)) for k, rows in groups.items()}
    measured = _kept({name: _along(drawn, rows, x, y) for name, rows in ordered.items()})
    words = Words(x=x, y=drawn.axis(y), title=drawn.title, caption=caption(drawn))
    hollow = {name: _printed_along(drawn, rows, x, y) for name, rows in ordered.items()}
    hollow = {name: points for name, points in hollow.items() if points.x}
    return lines(measured, path, words, logarithmic=logarithmic, hollow=hollow)


def side_by_side(drawn: Drawn, path: Path, *, columns: Sequence[str]) -> Path:
    """Draw columns of one unit for every row, one line a row."""
    table = drawn.table
    measured, hollow = {}, {}
    for name in columns:
        scale = drawn.scale(name)
        known = [(k, v) for k, row in enumerate(table.rows) if (v := table.value(row, name))]
        values = [value for _, value in known]
        measured[name] = Points(
            x=[scale * value.value for value in values],
            y=[k for k, _ in known],
            x_low=_ends(values, 0, scale),
            x_high=_ends(values, 1, scale),
        )
        printed = [(k, drawn.printed(row, name)) for k, row in enumerate(table.rows)]
        there = [(k, scale * value) for k, value in printed if value is not None]
        if there:
            hollow[name] = Points(x=[value for _, value in there], y=[k for k, _ in there])
    keys = list(table.keys)
    shown = [keys.index(key) for key in _varied(table) or keys]
    rows = [", ".join(str(row[k]) for k in shown) or drawn.name for row in table.rows]
    units = {drawn.axis(name) for name in columns}
    label = units.pop() if len(units) == 1 else ("%" if drawn.scale(columns[0]) == 100 else "value")
    words = Words(
        x=label, y=", ".join(keys[k] for k in shown), title=drawn.title, caption=caption(drawn)
    )
    return dots(_kept(measured), rows, path, words, hollow=hollow)


def of_run(drawn: Drawn, path: Path, *, block: str, where: Mapping[str, Any] | None = None) -> Path:
    """Draw the figure that a verb has for one of its runs: the block's first, or the one named."""
    chosen = [
        point
        for point in drawn.points
        if point.block == block and all(point.at.get(k) == v for k, v in (where or {}).items())
    ]
    if not chosen or not find_run(drawn.root, chosen[0].run):
        raise BadInput(f"block {block}", "has no finished run to draw", "run it first")
    with RecordStore.read(drawn.root / chosen[0].run) as store:
        return STUDIES.get(chosen[0].verb).draw(store, path)


def together(drawn: Drawn, path: Path, *, block: str) -> Path:
    """Draw the figure that a verb has for several of its runs."""
    reports: list[Any] = []
    study: Any = None
    for point in sorted(drawn.points, key=lambda point: point.place):
        if point.block == block and find_run(drawn.root, point.run):
            study = STUDIES.get(point.verb)
            with RecordStore.read(drawn.root / point.run) as store:
                reports.append(study.report(store))
    if not reports:
        raise BadInput(f"block {block}", "has no finished run to draw", "run it first")
    drawn_path: Path = study.draw_together(reports, path)
    return drawn_path


def chains(
    drawn: Drawn, path: Path, *, block: str, norm: str = "l2", perturbation: str | None = None
) -> Path:
    """Draw the distance to the clean image after every step, one curve a run (figure 1c)."""
    check_choice(norm, ("l2", "linf"), "norm")
    groups = {}
    for point in sorted(drawn.points, key=lambda point: point.place):
        if point.block == block and find_run(drawn.root, point.run):
            with RecordStore.read(drawn.root / point.run) as store:
                result = DistancesResult(store)
                if not result.labels:  # begun, and no image finished
                    continue
                _, *norms = result.states(perturbation or result.labels[0])
            means = [mean_interval(column) for column in norms[norm == "linf"].T]
            name = ", ".join(map(str, point.at.values())) or point.settings.defense
            groups[name] = Points(
                x=list(range(len(means))),
                y=[mean.value for mean in means],
                y_low=[mean.interval.low if mean.interval else math.nan for mean in means],
                y_high=[mean.interval.high if mean.interval else math.nan for mean in means],
            )
    words = Words(
        x="step of the chain",
        y=f"{norm} distance to the clean image, [0, 1] units",
        title=drawn.title,
        caption=caption(drawn),
    )
    return lines(_kept(groups), path, words)


def purified(drawn: Drawn, path: Path, *, block: str, sigma: float, columns: int = 16) -> Path:
    """Draw purified images, a row a run, with borders that say whether the class is right."""
    with ExitStack() as stack:
        rows = {name: stack.enter_context(store) for name, store in _finished(drawn, block)}
        return draw_purified(rows, path, sigma=sigma, columns=columns)


def certificates(drawn: Drawn, path: Path, *, block: str) -> Path:
    """Draw certified accuracy over the radius, a panel a noise level, a curve a run (figure 3)."""
    panels: dict[str, list[CertifiedImages]] = {}
    for name, records in _finished(drawn, block):
        with records as store:
            for curve in Certification.report(store).curves:
                level = "" if curve.images.sigma is None else f"sigma {curve.images.sigma:g}"
                panels.setdefault(level, []).append(dataclasses.replace(curve.images, name=name))
    return draw_panels(panels, path, title=drawn.title, caption=caption(drawn))


def boosted(drawn: Drawn, path: Path, *, block: str) -> Path:
    """Draw the first images before and after a boost, and their difference, of the first run."""
    for point in sorted(drawn.points, key=lambda point: point.place):
        if point.block == block and find_run(drawn.root, point.run):
            with RecordStore.read(drawn.root / point.run) as store:
                return grid_figure(store, path)
    raise BadInput(f"block {block}", "has no finished run to draw", "run it first")


def _finished(drawn: Drawn, block: str) -> list[tuple[str, RecordStore]]:
    """Return the finished runs of a block by what the axes set, in the order of the file."""
    stores = []
    for point in sorted(drawn.points, key=lambda point: point.place):
        if point.block == block and find_run(drawn.root, point.run):
            name = ", ".join(map(str, point.at.values())) or point.settings.defense
            stores.append((name, RecordStore.read(drawn.root / point.run)))
    if not stores:
        raise BadInput(f"block {block}", "has no finished run to draw", "run it first")
    return stores


FIGURES: dict[str, Callable[..., Path]] = {
    "compression-robustness": compression_robustness,
    "curves": curves,
    "side-by-side": side_by_side,
    "of-run": of_run,
    "together": together,
    "chains": chains,
    "purified": purified,
    "certificates": certificates,
    "boosted": boosted,
}
"""Kinds of figures; a new one is a function and a line here."""


def caption(drawn: Drawn, labels: str | None = None) -> str:
    """Write n and settings, and what intervals and labels are."""
    cells = drawn.table.cells.values()
    counts = sorted({cell.value.n for cell in cells if cell.value and cell.value.n})
    n = "" if not counts else f"n = {counts[0]}" + (f" to {counts[-1]}" if counts[1:] else "")
    runs = {cell.point.run for cell in cells}
    blocks = {point.block: point for point in drawn.points if point.run in runs}
    shared = {block: _shared(drawn, block) for block in blocks}
    parts = [
        drawn.name,
        n,
        *(", ".join([describe_settings(each), *shared[block]]) for block, each in blocks.items()),
    ]
    text = "; ".join(part for part in parts if part) + ". Bars and bands: 95 % intervals."
    return text + (f" Beside the points: {labels}." if labels else "")


def _shared(drawn: Drawn, block: str) -> list[str]:
    """Return strength, attack and randomness of the finished runs of a block, where all agree."""
    every: list[list[str]] = []
    for point in drawn.points:
        if point.block == block and find_run(drawn.root, point.run):
            with RecordStore.read(drawn.root / point.run) as store:
                every.append(list(conditions(store.settings)))
    return [each for each in every[0] if all(each in other for other in every)] if every else []


def describe_settings(point: Point) -> str:
    """Write the settings of a point's block that are not swept and not as by default."""
    default, own = _plain(type(point.settings)()), _plain(point.settings)
    swept = {option.partition(".")[0] for option in point.at}
    words = [
        f"{name} {_word(name, value)}"
        for name, value in own.items()
        if name not in swept and (name == "dataset" or value not in (default[name], None, {}))
    ]
    return f"{point.verb}: {', '.join(words)}"


def _plain(settings: Any) -> dict[str, Any]:
    """Return settings with texts such as "8/255" read as numbers, as an index gives them back."""
    kind = type(settings)
    return dataclasses.asdict(read_options(kind, dataclasses.asdict(settings), kind.__name__))


def _word(name: str, value: Any) -> str:
    if isinstance(value, float):
        steps = round(255 * value)
        grey = name.endswith("eps") and steps and abs(value - steps / 255) < 1e-9
        return f"{steps}/255" if grey else f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_word(k, v)}" for k, v in value.items())
    if isinstance(value, tuple | list):
        return ",".join(_word(name, each) for each in value)
    return str(value)


def _kept(groups: Mapping[str, Points]) -> dict[str, Points]:
    full = {name: points for name, points in groups.items() if points.x}
    if not full:
        raise BadInput("the table", "has no finished value to draw", "run it first")
    return full


def _by(table: Table, key: str) -> dict[str, list[Key]]:
    check_choice(key, tuple(table.keys), "row key")
    index = list(table.keys).index(key)
    groups: dict[str, list[Key]] = {}
    for row in table.rows:
        groups.setdefault(str(row[index]), []).append(row)
    return groups


def _by_others(table: Table, along: str, name: str) -> dict[str, list[Key]]:
    keys = list(table.keys)
    shown = [(keys.index(key), key) for key in _varied(table) if key != along]
    groups: dict[str, list[Key]] = {}
    for row in table.rows:
        others = ", ".join(_named(key, row[index]) for index, key in shown)
        groups.setdefault(others or name, []).append(row)
    return groups


def _varied(table: Table) -> list[str]:
    """Return the row keys of more than one value: a constant tells no group from another."""
    return [key for k, key in enumerate(table.keys) if len({str(row[k]) for row in table.rows}) > 1]


def _named(key: str, value: Any) -> str:
    """Write a value for a legend, a number or a truth with what it is of."""
    return str(value) if isinstance(value, str) else f"{key}={value}"


def _plane(drawn: Drawn, rows: Sequence[Key], x: str, y: str, label: str | None) -> Points:
    table = drawn.table
    chosen = [
        (row, a, b)
        for row in rows
        if (a := table.value(row, x)) is not None and (b := table.value(row, y)) is not None
    ]
    index = None if label is None else list(table.keys).index(label)
    sx, sy = drawn.scale(x), drawn.scale(y)
    across, up = [a for _, a, _ in chosen], [b for *_, b in chosen]
    return Points(
        x=[sx * a.value for a in across],
        y=[sy * b.value for b in up],
        x_low=_ends(across, 0, sx),
        x_high=_ends(across, 1, sx),
        y_low=_ends(up, 0, sy),
        y_high=_ends(up, 1, sy),
        labels=None if index is None else [str(row[index]) for row, *_ in chosen],
    )


def _along(drawn: Drawn, rows: Sequence[Key], x: str, y: str) -> Points:
    table = drawn.table
    chosen = [(row, b) for row in rows if (b := table.value(row, y)) is not None]
    scale, values = drawn.scale(y), [b for _, b in chosen]
    bounded = any(value.interval is not None for value in values)
    return Points(
        x=[_place(table, row, x) for row, _ in chosen],
        y=[scale * b.value for b in values],
        y_low=_ends(values, 0, scale) if bounded else None,
        y_high=_ends(values, 1, scale) if bounded else None,
    )


def _ends(values: Sequence[Estimate], end: int, scale: float) -> list[float]:
    return [math.nan if v.interval is None else scale * v.interval[end] for v in values]


def _printed_plane(drawn: Drawn, rows: Sequence[Key], x: str, y: str) -> Points:
    pairs = [(drawn.printed(row, x), drawn.printed(row, y)) for row in rows]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    sx, sy = drawn.scale(x), drawn.scale(y)
    return Points(x=[sx * a for a, _ in known], y=[sy * b for _, b in known])


def _printed_along(drawn: Drawn, rows: Sequence[Key], x: str, y: str) -> Points:
    known = [
        (_place(drawn.table, row, x), value)
        for row in rows
        if (value := drawn.printed(row, y)) is not None
    ]
    scale = drawn.scale(y)
    return Points(x=[a for a, _ in known], y=[scale * b for _, b in known])


def _place(table: Table, row: Key, key: str) -> float:
    value = as_number(row[list(table.keys).index(key)])
    if value is None:
        raise BadInput(f"row {row}", f"has no number for {key}", "draw along another key")
    return value
