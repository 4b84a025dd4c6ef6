"""``advpure transport``: how far does a purifier move images, and are they still recognised?"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli.flatten import defaults, flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.transport.run import TransportReport


@flattened
def transport(
    *,
    subject: Annotated[
        g.JudgedSubject, without("t", "sigma", "gradient", "policy"), defaults(scheme="counter")
    ],
    sigma: Annotated[
        str,
        typer.Option(
            help="Noise in [0, 1] units, above 0, a list such as 0.25,0.5; also the purifier's "
            "strength."
        ),
    ] = "0.25,0.5,0.75,1.0",
    draws: Annotated[
        int, typer.Option(help="Noisy versions of every image at every sigma, 1 or more.")
    ] = 1,
    multiples: Annotated[
        str, typer.Option(help="Radii of the Markov bound, in multiples of the transport, above 0.")
    ] = "1,1.25,1.5,2",
    pictures: Annotated[
        int, typer.Option(help="Purified images to keep for --grid, the first ones, 0 or more.")
    ] = 16,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Folder of another transport run, to be drawn beside this one; repeats."),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Draw purified images, green border if right and red if wrong: a .png, .svg or "
            ".pdf file."
        ),
    ] = None,
    grid_sigma: Annotated[
        float | None, typer.Option(help="Noise level of --grid. Default: the smallest.")
    ] = None,
    running: Annotated[
        g.Running, helps(plot="Draw transport against sigma: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the mean distance from images to their purified noisy versions, and its Markov bound.

    Example: advpure transport --defense cm-ft --sigma 0.25,0.5,1.0 -n 100 --grid purified.png
    """
    from advpure.analysis.transport.run import TransportRun
    from advpure.base.errors import BadInput
    from advpure.cli import output
    from advpure.cli.recorded import measure, prepare
    from advpure.plots.figures import check_ending

    if grid is not None:
        check_ending(grid)
        if pictures == 0:
            raise BadInput("--grid", "has no picture to draw", "keep some, --pictures 16")
    elif grid_sigma is not None:
        raise BadInput(f"--grid-sigma {grid_sigma:g}", "means nothing without --grid", "add it")
    if against and grid is None and running.plot is None:
        raise BadInput("--against", "means nothing without a picture", "add --plot or --grid")
    run = TransportRun(
        **subject.settings(), sigmas=sigma, draws=draws, multiples=multiples, pictures=pictures
    )
    ready = prepare("transport", run, running)
    report = measure(ready, "purifying")
    _draw(report, against or [], running.plot, grid, grid_sigma)
    plot = running.plot
    output.print_report(report, lambda: _print(report), running.as_json, plot=plot, grid=grid)


def _draw(
    report: "TransportReport", against: list[str], plot: str | None, grid: str | None,
    sigma: float | None,
) -> None:  # fmt: skip
    if plot is None and grid is None:
        return
    from advpure.analysis.transport.figure import draw_purified, draw_transport
    from advpure.analysis.transport.run import report_transport
    from advpure.base.errors import BadInput
    from advpure.runs.records import RecordStore

    with ExitStack() as stack:
        stores = []
        for folder in [report.run, *map(Path, against)]:
            store = stack.enter_context(RecordStore.read(folder))
            if store.settings.get("verb") != "transport":
                raise BadInput(str(folder), "holds no transport run", "name one of transport")
            stores.append(store)
        if plot is not None:
            draw_transport([report_transport(store) for store in stores], plot)
        if grid is not None:
            rows: dict[str, RecordStore] = {}
            for store in stores:
                name = str(store.settings["defense"]["purifier"])
                rows[name if name not in rows else f"{name} {store.folder.name[-6:]}"] = store
            draw_purified(rows, grid, sigma=sigma)


def _print(report: "TransportReport") -> None:
    from advpure.cli import output

    s = report.settings
    print(
        f"{s['dataset']}, defense {s['defense']['purifier']}: mean l2 distance from an image to "
        f"its purified noisy version; draws of each: {s['draws']}"
    )
    rows, bounds = [], []
    for level in report.levels:
        ends, right = level.transport.interval, level.accuracy
        rows.append(
            [
                f"{level.sigma:g}",
                f"{level.transport.value:.4g}"
                + ("" if ends is None else f" [{ends.low:.4g}, {ends.high:.4g}]"),
                "" if right is None
                else f"{100 * right.value:.1f} [{100 * right.low:.1f}, {100 * right.high:.1f}]",
                str(level.transport.n),
            ]
        )  # fmt: skip
        bounds += [
            [
                f"{level.sigma:g}", f"{each.radius:.4g}", f"{100 * each.exceeds.value:.1f}",
                f"{100 * each.bound.value:.1f}", "yes" if each.holds else "NO",
            ]
            for each in level.markov
        ]  # fmt: skip
    output.print_table(["sigma", "transport", "right, single draws, %", "n"], rows)
    print("Markov: P(distance > r) <= transport / r, for the measured distances")
    output.print_table(["sigma", "r", "share beyond r, %", "bound, %", "holds"], bounds)
