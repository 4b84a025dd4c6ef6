"""The live table of a sweep, on the error stream: what is done, running and left, with values.

On a terminal a table that is redrawn; elsewhere one line for every finished point.
"""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from advpure.statistics.estimates import Estimate
    from advpure.sweeps.columns import Column, Unit
    from advpure.sweeps.index import Index
    from advpure.sweeps.points import Point
    from advpure.sweeps.status import Status

_LOOK_SECONDS = 0.5
_SPARE_LINES = 8  # for the prompt, the head of the table and what stood above it


@contextmanager
def live_table(
    index: "Index",
    points: "Sequence[Point]",
    columns: "Mapping[str, Mapping[str, Column]]",
    shown: bool,
) -> Iterator[None]:
    """Show a sweep while the body runs it.

    Args:
        index: The sweep.
        points: The points of this session.
        columns: For each block the values to show.
        shown: Whether to show anything.
    """
    if not shown:
        yield
        return
    from rich.console import Console
    from rich.live import Live

    view, console = _View(index, points, columns), Console(stderr=True)
    ended = threading.Event()
    if not console.is_terminal:
        thread = threading.Thread(target=view.print_lines, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        return
    with Live(
        get_renderable=lambda: view.table(console.height),
        console=console,
        transient=True,
        refresh_per_second=1 / _LOOK_SECONDS,
    ):
        yield


class _View:
    """Looks at a sweep from a thread of its own, and keeps the values that it has read."""

    def __init__(
        self,
        index: "Index",
        points: "Sequence[Point]",
        columns: "Mapping[str, Mapping[str, Column]]",
    ) -> None:
        from advpure.sweeps.table import Reports

        self._index, self._points, self._columns = index, points, columns
        self._reports = Reports(index.root)
        self._start = time.monotonic()
        self._before: set[str] | None = None

    def look(self) -> "list[Status]":
        """Return every point's state; nothing while the sweep's folder is being made."""
        from advpure.sweeps.status import statuses

        states = statuses(self._index, self._points)
        if self._before is None:
            self._before = {s.point.run for s in states if s.state in ("done", "failed")}
        return states

    def table(self, height: int) -> "RenderableType":
        """Draw what fits on the screen: what runs, then what ended last, then what comes next."""
        from rich.table import Table

        states = self.look()
        names = list(dict.fromkeys(name for block in self._columns.values() for name in block))
        table = Table(
            title=self._headline(states),
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for heading in ("verb", "at", "state", *names):
            table.add_column(heading, justify="left" if heading in ("verb", "at") else "right")
        rank = {"running": 0, "failed": 1, "done": 2, "left": 3}
        chosen = sorted(states, key=lambda s: rank[s.state])[: max(height - _SPARE_LINES, 3)]
        for status in chosen:
            values = self._values(status)
            cells = [values.get(name, "") for name in names]
            table.add_row(status.point.verb, describe(status.point), _state(status), *cells)
        return table

    def print_lines(self, ended: threading.Event) -> None:
        """Print a line for every point that ends, until the event is set and all are printed."""
        printed: set[str] = set()
        while True:
            last = ended.wait(_LOOK_SECONDS)
            states = self.look()
            printed |= self._before or set()
            over = [s for s in states if s.state in ("done", "failed")]
            for status in over:
                if status.point.run not in printed:
                    printed.add(status.point.run)
                    values = ", ".join(f"{k} {v}" for k, v in self._values(status).items())
                    words = status.error if status.state == "failed" else values
                    print(
                        f"{len(over)}/{len(states)} {status.point.verb} {describe(status.point)}: "
                        f"{status.state}{f', {words}' if words else ''}",
                        file=sys.stderr,
                        flush=True,
                    )
            if last:
                return

    def _values(self, status: "Status") -> dict[str, str]:
        from advpure.base.errors import BadInput
        from advpure.sweeps.overview import values_of

        if status.state != "done":
            return {}
        try:
            values = values_of(status.point, self._columns, self._reports)
        except BadInput:  # the table at the end says what is wrong
            return {}
        own = self._columns[status.point.block]
        return {name: write_value(value, own[name].unit) for name, value in values.items()}

    def _headline(self, states: "list[Status]") -> str:
        count = {
            state: sum(s.state == state for s in states)
            for state in ("done", "running", "left", "failed")
        }
        passed = time.monotonic() - self._start
        listed = ", ".join(f"{n} {state}" for state, n in count.items() if n or state != "failed")
        return f"{self._index.settings['name']}: {listed}, {passed / 60:.0f} min"


def describe(point: "Point") -> str:
    """Write what the axes set.

    Example:
        >>> from advpure.sweeps.points import Point
        >>> describe(Point("cr", "cr", {"defense": "ddim", "t": 50}, None, "cr-1"))
        'defense=ddim t=50'
    """
    return " ".join(f"{option}={value}" for option, value in point.at.items())


def write_value(value: "Estimate", unit: "Unit") -> str:
    """Write a value with its interval, a share in per cent; ends are rounded outwards.

    Example:
        >>> from advpure.statistics.estimates import Estimate
        >>> from advpure.statistics.rates import Interval
        >>> write_value(Estimate(value=0.25, interval=Interval(0.1234, 0.4321)), "percent")
        '25.0 [12.3, 43.3] %'
        >>> write_value(Estimate(value=0.123456), "number")
        '0.1235'
    """
    from advpure.base.display import ends, percent_interval
    from advpure.sweeps.columns import written

    if unit == "percent":
        return f"{percent_interval(value)} %"
    return " ".join(filter(None, (written(value.value, unit), ends(value))))


def _state(status: "Status") -> Any:
    from rich.text import Text

    colours = {"done": "green", "running": "cyan", "failed": "red", "left": "dim"}
    words: str = status.state
    if status.state == "running" and status.total:
        words = f"{100 * status.done // status.total} %"
    return Text(words, style=colours[status.state])
