"""``advpure reproduce``: run or resume the experiment behind a published table or figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import options as o
from advpure.cli.flatten import flattened
from advpure.cli.sweep import Workers, end_by, print_cost

if TYPE_CHECKING:
    from advpure.sweeps.columns import Unit
    from advpure.sweeps.reproduce import Reproduction


@flattened
def reproduce(
    *,
    experiment: Annotated[
        str | None, typer.Argument(help="Such as 003:table-2; without one, all are listed.")
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            help="small: digits, minutes; full: the paper's data and counts; cifar10 and others "
            "where an experiment has them, see the list."
        ),
    ] = "small",
    dataset: Annotated[
        str | None, typer.Option(help="Data set, instead of the experiment's.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Option of every point, KEY=VALUE, as n=20; of a block: BLOCK.KEY=VALUE.",
        ),
    ] = None,
    running: Workers,
) -> None:
    """Print published beside measured values with n and 95 % intervals, and what they show.

    Runs what is not yet measured, and goes on where it was interrupted.

    Example: advpure reproduce 003:table-2 --jobs 2
    """
    from advpure.base.errors import BadInput
    from advpure.cli import output
    from advpure.cli.live import live_table
    from advpure.plots.figures import check_ending
    from advpure.sweeps.experiment import load_experiment, summaries
    from advpure.sweeps.reproduce import grouped, reproduction
    from advpure.sweeps.session import prepare_sweep, run_sweep

    if experiment is None:
        for option, value in o.given(plot=running.plot, set=setting, dataset=dataset).items():
            shown = ",".join(value) if isinstance(value, list) else value
            rule = "means nothing without an experiment"
            raise BadInput(f"--{option} {shown}", rule, "name one, such as 003:table-2")
        _list(summaries(), running.as_json)
        return
    if running.plot is not None:
        check_ending(running.plot)
    change = o.given(dataset=dataset) | o.parse_options(setting, "--set n=3")
    chosen = load_experiment(experiment, size, change)
    session = running.session()
    index, points = prepare_sweep(chosen.sweep, session)
    if running.dry_run:
        print_cost(index, points, session, running.as_json)
        return
    with live_table(index, points, grouped(chosen.columns), running.shown):
        run = run_sweep(index, points, session)
    found = reproduction(chosen, run)
    if running.as_json:
        output.print_json(found.to_json() | o.given(plot=running.plot))
    else:
        _print(found, running.plot)
    if running.plot is not None:
        _draw(found, running.plot)
    end_by(run)


def _list(found: list[tuple[str, str, tuple[str, ...]]], as_json: bool) -> None:
    from advpure.cli import output

    if as_json:
        output.print_json(
            {
                "experiments": [
                    {"experiment": id, "title": title, "sizes": sizes} for id, title, sizes in found
                ]
            }
        )
        return
    rows = [(id, f"{title} ({', '.join(sizes)})") for id, title, sizes in found]
    output.print_list("experiments", rows)


def _print(found: "Reproduction", plot: str | None) -> None:
    from advpure.cli import output

    e = found.experiment
    print(f"{e.id}, {e.size} ({e.label}): {e.title}")
    print(e.about)
    _print_table(found)
    if e.table is not None:
        where = ", ".join(f"{k} {v}" for k, v in e.table.settings.items())
        seed = e.id.partition(":")[0]
        print(f"published: {e.table_id} of {seed}" + (f" ({where})" if where else ""))
    for finding in found.findings:
        print(f"{finding.verdict}: {finding.claim} ({finding.detail})")
    for run, error in found.run.failed.items():
        print(f"failed: {run}: {error}")
    if found.run.left:
        output.note(f"{len(found.run.left)} points are with another process; run it again")
    for text in (*found.run.notes, *(e.table.notes if e.table else ())):
        output.note(text)
    print(f"records: {found.run.index.folder}" + (f", figure: {plot}" if plot else ""))


def _print_table(found: "Reproduction") -> None:
    """Print a line for every row, or for every value where a row has many."""
    from advpure.cli import output

    e, rows = found.experiment, found.table.rows
    percent = {name: " %" if column.unit == "percent" else "" for name, column in e.columns.items()}
    published = {
        name: any(found.printed(row, name) is not None for row in rows) for name in e.columns
    }

    def cells(row: Any, name: str, with_published: bool) -> list[str]:
        unit = e.columns[name].unit
        printed = [_printed(found.printed(row, name), unit)] if with_published else []
        return [*_cells(found.table.value(row, name), unit), *printed]

    if 3 * len(e.columns) + sum(published.values()) > 10:
        output.print_table(
            [*e.keys, "value", "measured", "95 %", "n", "published"],
            [
                [*map(str, row), f"{name}{percent[name]}", *cells(row, name, True)]
                for row in rows
                for name in e.columns
            ],
        )
        return
    heads = [*e.keys]
    for name in e.columns:
        heads += [f"{name}{percent[name]}", "95 %", "n", *(["published"] * published[name])]
    output.print_table(
        heads,
        [
            [*map(str, row), *(c for name in e.columns for c in cells(row, name, published[name]))]
            for row in rows
        ],
    )


def _cells(value: Any, unit: "Unit") -> list[str]:
    """Write value, interval and n; an interval's ends are rounded outwards where in per cent."""
    import math

    from advpure.sweeps.columns import written

    if value is None:
        return ["", "", ""]
    scale = 100.0 if unit == "percent" else 1.0
    ends = ""
    if value.interval is not None:
        low, high = (scale * end for end in value.interval)
        if unit == "percent":
            ends = f"[{math.floor(10 * low) / 10:.1f}, {math.ceil(10 * high) / 10:.1f}]"
        else:
            ends = f"[{low:.4g}, {high:.4g}]"
    return [written(value.value, unit), ends, "" if value.n is None else str(value.n)]


def _printed(value: Any, unit: str) -> str:
    if value is None:
        return ""
    scale = 100.0 if unit == "percent" else 1.0
    spread = "" if value.std is None else f" ± {scale * value.std:.4g}"
    return f"{scale * value.value:.4g}{spread}"


def _draw(found: "Reproduction", path: str) -> None:
    from advpure.sweeps.drawing import draw_reproduction

    draw_reproduction(found, Path(path))
