"""What verbs print: one line of result, a table, JSON; progress goes to the error stream."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def print_json(value: object) -> None:
    """Print one JSON object on one line of standard output."""
    print(json.dumps(value))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Print a table; numbers stand right, the first column left."""
    from rich.console import Console

    from advpure.base.display import Table, rich_table

    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False).print(rich_table(Table(columns, rows, title)))


def note(text: str) -> None:
    """Print a remark on the error stream."""
    print(f"note: {text}", file=sys.stderr)


class Advance:
    """How far a run is, between its units too, from the network evaluations that it makes.

    Args:
        total: Units at the end.
        each: Evaluations of a unit at most, as estimated; None where that is not known. Once units
            are finished, their own mean counts.

    Example:
        >>> advance = Advance(total=10, each=100.0)
        >>> advance.unit(0)
        0.0
        >>> advance.evaluated(50)
        0.5
        >>> advance.unit(2), advance.evaluated(20)  # a unit took 25
        (2.0, 2.8)
    """

    def __init__(self, total: int, each: float | None = None) -> None:
        """Begin before the first unit."""
        self._total, self._each = total, each
        self._first: int | None = None
        self._done = self._all = self._since = 0

    def unit(self, done: int) -> float:
        """Take the number of finished units and return how many that makes."""
        if self._first is None:
            self._first, self._all = done, 0
        elif done > self._first and self._all:
            self._each = self._all / (done - self._first)
        self._done, self._since = done, 0
        return float(done)

    def evaluated(self, rows: int) -> float:
        """Take a number of evaluations and return how many units are finished, with fractions."""
        self._all, self._since = self._all + rows, self._since + rows
        within = self._since / self._each if self._each else 0.0
        return min(self._done + within, float(self._total))


@contextmanager
def progress(
    what: str, total: int, shown: bool, each: float | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on the error stream while the body runs.

    Args:
        what: What is counted.
        total: The count at the end.
        shown: Whether to show anything; it is shown on terminals only.
        each: Network evaluations of a unit at most, by which the bar advances within one.

    Yields:
        A function that takes the number of finished items.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.3g}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )
    if bar.disable:
        with bar:
            yield lambda done: None
        return
    from advpure.core.meter import metered

    advance = Advance(total, each)
    with bar:
        task = bar.add_task(what, total=total)
        with metered(lambda rows: bar.update(task, completed=advance.evaluated(rows))):
            yield lambda done: bar.update(task, completed=advance.unit(done))


def print_estimate(estimate: Any, as_json: bool, of_defense: bool) -> None:
    """Print what a run would cost, of a defense with its classifier or of a purifier alone."""
    if as_json:
        print_json({"dry_run": True, **estimate.to_json()})
        return
    counted = f"at most {estimate.evaluations:,} network evaluations"
    if of_defense:
        counted += (
            f" including the classifier and {estimate.backwards:,} backward passes through the "
            "whole defense"
        )
    print(
        f"{counted} for {estimate.images} images, about {duration(estimate.seconds)} here, "
        f"peak memory about {estimate.peak_memory / 2**20:,.0f} MiB"
    )


def duration(seconds: float) -> str:
    """Write a duration with two digits below a minute, with minutes and hours above.

    Example:
        >>> duration(0.3456), duration(75.4), duration(7384.0)
        ('0.35 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_list(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a titled list of names with descriptions."""
    width = max((len(row[0]) for row in rows), default=0)
    print(title)
    for name, about in rows:
        print(f"  {name:<{width}}  {about}")
