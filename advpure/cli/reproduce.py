"""``advpure reproduce``: run or resume the experiment behind a published table or figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from advpure.base.flags import Flag, Positional, Repeats
from advpure.cli.options import given, parse_options
from advpure.cli.studies import command_from, running_options
from advpure.cli.sweep import Workers, end_by, print_cost

if TYPE_CHECKING:
    from advpure.sweeps.columns import Unit
    from advpure.sweeps.reproduce import Reproduction


@dataclass(frozen=True, kw_only=True)
class Reproducing(Workers):
    """Print published beside measured values with n and 95 % intervals, and what they show.

    Runs what is not yet measured, and goes on where it was interrupted.

    Example: advpure reproduce 003:table-2 --jobs 2

    Attributes:
        experiment: Such as 003:table-2, or a file of your own (YAML); without one, all are listed.
        size: small: digits, minutes; full: the paper's data and counts; cifar10 and others where
            an experiment has them, see the list.
        dataset: Data set, instead of the experiment's.
        changes: Option of every point, KEY=VALUE, as n=20; of a block: BLOCK.KEY=VALUE.
    """

    panel: ClassVar[str] = "Options"

    experiment: Annotated[str | None, Positional()] = None
    size: str = "small"
    dataset: str | None = None
    changes: Annotated[tuple[str, ...], Flag("--set"), Repeats()] = ()


def command() -> Any:
    """Return the command, made from its settings."""
    running = running_options("plot", "dry_run", "as_json", "quiet")
    return command_from("reproduce", Reproducing, running, _run)


def _run(
    settings: Reproducing, *, plot: str | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    from advpure.base.errors import BadInput
    from advpure.base.idle import changed
    from advpure.cli import output
    from advpure.cli.live import live_table
    from advpure.plots.figures import check_ending
    from advpure.sweeps.experiment import load_experiment, summaries
    from advpure.sweeps.reproduce import grouped, reproduction
    from advpure.sweeps.session import prepare_sweep, run_sweep

    if settings.experiment is None:
        idle = given(plot=plot, set=settings.changes or None, dataset=settings.dataset)
        names = ("size", "out", "jobs", "threads", "batch_size")
        for option, value in (idle | changed(settings, names)).items():
            option = option.replace("_", "-")
            shown = ",".join(value) if isinstance(value, tuple) else value
            rule = "means nothing without an experiment"
            raise BadInput(f"--{option} {shown}", rule, "name one, such as 003:table-2")
        _list(summaries(), as_json)
        return
    if plot is not None:
        check_ending(plot)
    change = given(dataset=settings.dataset) | parse_options(settings.changes, "--set n=3")
    chosen = load_experiment(settings.experiment, settings.size, change)
    session = settings.session()
    index, points = prepare_sweep(chosen.sweep, session)
    if dry_run:
        print_cost(index, points, session, as_json)
        return
    with live_table(index, points, grouped(chosen.columns), not (quiet or as_json)):
        run = run_sweep(index, points, session, settings.executor(points))
    result = reproduction(chosen, run)
    if as_json:
        output.print_json(result.to_json() | given(plot=plot))
    else:
        _print(result, plot)
    if plot is not None:
        _draw(result, plot)
    end_by(run)


def _list(experiments: list[tuple[str, str, tuple[str, ...]]], as_json: bool) -> None:
    from advpure.cli import output

    if as_json:
        output.print_json(
            {
                "experiments": [
                    {"experiment": id, "title": title, "sizes": sizes}
                    for id, title, sizes in experiments
                ]
            }
        )
        return
    rows = [(id, f"{title} ({', '.join(sizes)})") for id, title, sizes in experiments]
    output.print_list("experiments", rows)


def _print(result: "Reproduction", plot: str | None) -> None:
    from advpure.cli import output
    from advpure.sweeps.experiment import is_file

    e = result.experiment
    print(f"{e.id}, {e.size} ({e.label}): {e.title}")
    print(e.about)
    _print_table(result)
    if e.table is not None:
        where = ", ".join(f"{k} {v}" for k, v in e.table.settings.items())
        seed = e.id.partition(":")[0]
        name = e.table_id if is_file(e.id) else f"{e.table_id} of {seed}"
        print(f"published: {name}" + (f" ({where})" if where else ""))
    for finding in result.findings:
        print(f"{finding.verdict}: {finding.claim} ({finding.detail})")
    for run, error in result.run.failed.items():
        print(f"failed: {run}: {error}")
    if result.run.left:
        output.note(f"{len(result.run.left)} points are with another process; run it again")
    for text in (*result.run.notes, *(e.table.notes if e.table else ())):
        output.note(text)
    print(f"records: {result.run.index.folder}" + (f", figure: {plot}" if plot else ""))


def _print_table(result: "Reproduction") -> None:
    """Print a line for every row, or for every value where a row has many."""
    from advpure.cli import output

    e, rows = result.experiment, result.table.rows
    percent = {name: " %" if column.unit == "percent" else "" for name, column in e.columns.items()}
    published = {
        name: any(result.printed(row, name) is not None for row in rows) for name in e.columns
    }

    def cells(row: Any, name: str, with_published: bool) -> list[str]:
        unit = e.columns[name].unit
        printed = [_printed(result.printed(row, name), unit)] if with_published else []
        return [*_cells(result.table.value(row, name), unit), *printed]

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
    from advpure.base.display import ends, percent_ends
    from advpure.sweeps.columns import written

    if value is None:
        return ["", "", ""]
    interval = percent_ends(value) if unit == "percent" else ends(value)
    return [written(value.value, unit), interval, "" if value.n is None else str(value.n)]


def _printed(value: Any, unit: str) -> str:
    if value is None:
        return ""
    scale = 100.0 if unit == "percent" else 1.0
    spread = "" if value.std is None else f" ± {scale * value.std:.4g}"
    return f"{scale * value.value:.4g}{spread}"


def _draw(result: "Reproduction", path: str) -> None:
    from advpure.sweeps.drawing import draw_reproduction

    draw_reproduction(result, Path(path))
