"""What recorded verbs do alike: prepare or estimate, measure with a bar, draw, and print."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from advpure.cli.groups import Running

if TYPE_CHECKING:
    from advpure.analysis.runs import Verb


class Ready(NamedTuple):
    """A run that is checked and loaded.

    Attributes:
        name: The verb's name among `advpure.analysis.runs.RUNS`.
        verb: Its entry.
        settings: The run's settings.
        prepared: What the verb's `prepare` returned.
        running: How to run it.
    """

    name: str
    verb: "Verb"
    settings: Any
    prepared: Any
    running: Running


def prepare(name: str, settings: Any, running: Running) -> Ready:
    """Check and load everything that a run needs, the ending of its picture first.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    from advpure.analysis.runs import RUNS
    from advpure.plots.figures import check_ending

    if running.plot is not None:
        check_ending(running.plot)
    verb = RUNS.get(name)
    assert verb.prepare is not None
    return Ready(name, verb, settings, verb.prepare(settings), running)


def measure(ready: Ready, doing: str, *, of_defense: bool = False, **more: Any) -> Any:
    """Measure with a progress bar; of a dry run print the estimate, and end the command there.

    Args:
        ready: The run.
        doing: What the bar says.
        of_defense: Whether the estimate counts a classifier and backward passes.
        more: Keywords of the verb's `measure`, beside folder, batch size and progress.

    Returns:
        The verb's report.

    Raises:
        typer.Exit: after the estimate.
    """
    from advpure.cli import output

    verb, running = ready.verb, ready.running
    if running.dry_run:
        assert verb.estimate is not None
        output.print_estimate(verb.estimate(ready.prepared), running.as_json, of_defense)
        raise typer.Exit
    total = verb.total(ready.settings) if running.shown and verb.total is not None else 0
    with output.progress(doing, total, running.shown) as bar:
        return verb.measure(
            ready.settings, out=running.out, batch_size=running.batch_size, progress=bar, **more
        )


def conclude(
    ready: Ready,
    report: Any,
    show: Callable[[], None],
    found: Mapping[str, object] | None = None,
    *,
    draw: Callable[[Path], object] | None = None,
) -> None:
    """Draw the picture that was asked for, and print what was found.

    Args:
        ready: The run.
        report: Its report.
        show: Prints the table.
        found: The JSON values, instead of the report's own.
        draw: Draws into a file, instead of the verb's figure of the records.
    """
    from advpure.cli import output

    plot = ready.running.plot
    if plot is not None:
        (draw or (lambda path: draw_records(ready.name, report.run, path)))(Path(plot))
    output.print_report(report, show, ready.running.as_json, found, plot=plot)


def draw_records(name: str, run: Path, path: Path) -> None:
    """Draw a verb's figure of the records in a run folder."""
    from advpure.runs.records import RecordStore
    from advpure.sweeps.run_figures import RUN_FIGURES

    with RecordStore.read(run) as store:
        RUN_FIGURES.get(name)(store, path)
