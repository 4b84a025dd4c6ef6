"""Figures of experiments, sweeps and runs, from records alone.

An experiment names its figure and what that figure asks for, see `advpure.sweeps.figures`. A sweep
without an experiment is drawn as curves of its headline values along its first ordered axis, or
side by side where no axis is ordered. A run is drawn as its study draws it.
"""

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from advpure.base.errors import BadInput
from advpure.base.validation import check_choice
from advpure.plots.figures import check_ending
from advpure.runs.records import RecordStore
from advpure.studies import STUDIES
from advpure.sweeps.columns import Column, headlines
from advpure.sweeps.figures import FIGURES, Drawn, compression_robustness, curves, side_by_side
from advpure.sweeps.index import Index
from advpure.sweeps.points import Point
from advpure.sweeps.reproduce import Reproduction, origin, read_reproduction
from advpure.sweeps.session import SweepRun, look_unbroken
from advpure.sweeps.table import Reports, tabulate


def draw(folder: str | Path, base: Path, endings: Sequence[str]) -> list[Path]:
    """Draw a run, a sweep or an experiment.

    Args:
        folder: A run folder, or the folder of a sweep.
        base: The files, without their endings; a sweep of several values adds their names.
        endings: Endings, such as (".svg", ".png"): a file for each.

    Returns:
        The files written.

    Raises:
        BadInput: for a folder that cannot be drawn, or an ending of no picture.
        StorageFull: when there is no room.
    """
    for ending in endings:
        check_ending(f"figure{ending}")
    with RecordStore.read(folder) as store:
        verb = store.settings.get("verb")
        if verb is None:
            raise BadInput(str(folder), "does not say of which verb it is", "run it again")
        if verb != "sweep":
            study = STUDIES.get(verb)
            return [study.draw(store, base.with_name(base.name + ending)) for ending in endings]
    index = Index.read(folder)
    if origin(index) is not None:
        result = read_reproduction(index)
        return [draw_reproduction(result, base.with_name(base.name + e)) for e in endings]
    return [path for ending in endings for path in _draw_sweep(index, base, ending)]


def draw_plane(
    folder: str | Path,
    base: Path,
    endings: Sequence[str],
    *,
    x: str,
    y: str,
    by: str | None = None,
) -> list[Path]:
    """Draw one value of a sweep against another, or along an option: a marker or curve a group.

    Args:
        folder: The folder of a sweep, of an experiment or not.
        base: The files, without their endings.
        endings: Endings, such as (".svg", ".png"): a file for each.
        x: A value, see `find_column`, or an option that the sweep varies.
        y: A value.
        by: The option that names the groups; by default the first one varied, beside `x`.

    Returns:
        The files written.

    Raises:
        BadInput: for a folder of no sweep, or a value or option that it does not have.
        StorageFull: when there is no room.
    """
    index = Index.read(folder)
    run, reports = look_unbroken(index), Reports(index.root)
    keys = {option: option for point in run.points for option in point.at}
    names = [each for each in (x, y) if each not in keys]
    if y in keys:
        raise BadInput(f"y {y}", "is an option, not a value", "draw it as x")
    columns = {name: find_column(run, reports, name) for name in names}
    used = {column.block for column in columns.values()}
    points = [point for point in run.points if point.block in used]
    keys = {option: option for point in points for option in point.at}
    groups = next((option for option in keys if option != x), None) if by is None else by
    if groups is not None:
        check_choice(groups, tuple(keys), "option")
    table = tabulate(points, run.done, reports, keys, columns)
    name = index.settings["name"]
    drawn = Drawn(table=table, points=tuple(points), title=name, name=name, root=index.root)
    paths = [base.with_name(base.name + ending) for ending in endings]
    if x in keys:
        return [curves(drawn, path, x=x, y=y, by=groups) for path in paths]
    if groups is None:
        raise BadInput(str(index.folder), "varies nothing to group points by", "sweep an option")
    return [compression_robustness(drawn, path, x=x, y=y, by=groups) for path in paths]


def find_column(run: SweepRun, reports: Reports, name: str) -> Column:
    """Return where a value of a sweep is found.

    Args:
        run: The sweep.
        reports: Its reports.
        name: A block or a verb, for its first headline value; a headline value, such as robust; or
            a path in the report of a block, such as robust_accuracy. ``BLOCK.`` stands before it
            where several blocks have it.

    Raises:
        BadInput: for a name that is found nowhere, or in several blocks.
    """
    blocks = {point.block: point.verb for point in run.points}
    head, dot, rest = name.partition(".")
    if dot and head in blocks:
        blocks, wanted = {head: blocks[head]}, rest
    else:
        wanted = name
    matches: dict[str, Column] = {}
    for block, verb in blocks.items():
        known = headlines(block, verb)
        at = {column.at: column for column in known.values()}
        if wanted in known:
            matches[block] = known[wanted]
        elif wanted in at:
            matches[block] = at[wanted]
        elif wanted in (block, verb) and known:
            matches[block] = next(iter(known.values()))
        elif (done := _first_done(run, block)) is not None:
            column = Column(block=block, at=wanted)
            with suppress(BadInput):
                column.read(reports.of(done))
                matches[block] = column
    if len(matches) == 1:
        return replace(*matches.values(), about=name)
    listed = sorted({value for block, verb in blocks.items() for value in headlines(block, verb)})
    if matches:
        rule = f"is a value of {', '.join(matches)}"
        raise BadInput(f"value {name}", rule, f"write {next(iter(matches))}.{wanted}")
    fix = f"known: {', '.join([*blocks, *listed])}, or a path in a report"
    raise BadInput(f"value {name}", f"is none of sweep {run.index.settings['name']}", fix)


def _first_done(run: SweepRun, block: str) -> Point | None:
    return next((p for p in run.points if p.block == block and p.run in run.done), None)


def draw_reproduction(result: Reproduction, path: Path) -> Path:
    """Draw the figure of an experiment.

    Args:
        result: Its measured table.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: when the experiment has no figure, or nothing is measured yet.
        StorageFull: when there is no room.
    """
    e = result.experiment
    spec = dict(e.figure or {})
    if not spec:
        raise BadInput(f"experiment {e.id}", "has no figure", "leave out --plot")
    kind = spec.pop("draw", None)
    check_choice(kind, tuple(FIGURES), "figure")
    make = FIGURES[str(kind)]
    drawn = Drawn(
        table=result.table,
        points=result.run.points,
        title=e.title,
        name=f"{e.id}, {e.size} ({e.label})",
        root=result.run.index.root,
        published=e.table,
    )
    try:
        inspect.signature(make).bind(drawn, path, **spec)
    except TypeError as error:
        given = ", ".join(spec)
        raise BadInput(f"figure {kind} with {given}", "does not fit", str(error)) from None
    return make(drawn, path, **spec)


def _draw_sweep(index: Index, base: Path, ending: str) -> list[Path]:
    """Draw every headline value of every block, each in a file of its own."""
    run, reports = look_unbroken(index), Reports(index.root)
    written = []
    for block in dict.fromkeys(point.block for point in run.points):
        points = [point for point in run.points if point.block == block]
        keys = {option: option for option in points[0].at}
        columns = headlines(block, points[0].verb)
        if not columns:
            continue
        table = tabulate(points, run.done, reports, keys, columns)
        name = index.settings["name"]
        drawn = Drawn(
            table=table, points=tuple(points), title=f"{name}: {block}", name=name, root=index.root
        )
        along = next((option for option in keys if _ordered(points, option)), None)
        for column in columns:
            words = "-".join([base.name, block, *column.split()])
            path = base.with_name(words + ending)
            if along is None:
                written.append(side_by_side(drawn, path, columns=[column]))
            else:
                written.append(curves(drawn, path, x=along, y=column))
    if not written:
        raise BadInput(str(index.folder), "has no value to draw", "draw the runs of its points")
    return written


def _ordered(points: Sequence[Point], option: str) -> bool:
    from advpure.base.units import as_number

    values = {str(point.at[option]) for point in points}
    return len(values) > 2 and all(as_number(point.at[option]) is not None for point in points)
