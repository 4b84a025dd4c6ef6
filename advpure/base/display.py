"""What a report shows to a reader: a line, tables and remarks, as plain data."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        columns: The heads.
        rows: One text a column.
        title: What it shows; None where the heads say so.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None


class Display(NamedTuple):
    """What a report shows.

    Attributes:
        headline: The result in one line.
        parts: Tables, and lines between them, in their order.
    """

    headline: str
    parts: Sequence[Table | str] = ()


def counted(number: int, what: str) -> str:
    """Return a number of things in words.

    Example:
        >>> counted(1, "step"), counted(20, "step")
        ('1 step', '20 steps')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def rich_table(table: Table) -> Any:
    """Return a table as rich prints it: numbers stand right, the first column left."""
    from rich.table import Table as RichTable
    from rich.text import Text

    title = table.title
    drawn = RichTable(
        title=title, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for k, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if k == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # brackets are no markup
    return drawn


def as_text(display: Display, width: int = 140) -> str:
    """Write what a report shows as plain text.

    Example:
        >>> print(as_text(Display("2 images", [Table(("images", "n"), [["clean", "2"]])])))
        2 images
        images  n
        clean   2
    """
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, color_system=None)
    console.print(display.headline, soft_wrap=True)
    for part in display.parts:
        if isinstance(part, str):
            console.print(part, soft_wrap=True)
        else:
            console.print(rich_table(part))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def as_html(display: Display, remarks: Sequence[str] = ()) -> str:
    """Write what a report shows, and remarks below it, as a piece of a page that fetches nothing.

    Example:
        >>> as_html(Display("1 < 2"))
        '<div class="advpure"><p><strong>1 &lt; 2</strong></p></div>'
    """
    pieces = [f"<p><strong>{escape(display.headline)}</strong></p>"]
    for part in display.parts:
        pieces.append(f"<p>{escape(part)}</p>" if isinstance(part, str) else _html_table(part))
    if remarks:
        pieces.append(f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in remarks)}</ul>")
    return f'<div class="advpure">{"".join(pieces)}</div>'


def _html_table(table: Table) -> str:
    caption = "" if table.title is None else f"<caption>{escape(table.title)}</caption>"
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(each)}</td>' for each in row)}</tr>" for row in table.rows
    )
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def written(estimate: Any, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write an estimate with its interval; what is absent is an empty text.

    Args:
        estimate: Anything with a `value` and an `interval` or ends `low` and `high`, a number, or
            None.
        form: The format of the numbers.
        scale: Factor of the numbers, such as 1e3.

    Example:
        >>> from advpure.statistics.rates import mean_interval
        >>> written(mean_interval([1.0, 2.0, 3.0]), ".2f"), written(None), written(0.5)
        ('2.00 [-0.48, 4.48]', '', '0.5')
    """
    value = getattr(estimate, "value", estimate)
    if value is None:
        return ""
    return " ".join(filter(None, (f"{scale * value:{form}}", ends(estimate, form, scale=scale))))


def ends(estimate: Any, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write the interval of an estimate, an empty text where there is none.

    Example:
        >>> from advpure.statistics.rates import wilson
        >>> ends(wilson(1, 2), ".3f"), ends(None)
        ('[0.095, 0.905]', '')
    """
    interval = _interval(estimate)
    if interval is None:
        return ""
    low, high = (f"{scale * end:{form}}" for end in interval)
    return f"[{low}, {high}]"


def _interval(estimate: Any) -> Sequence[float] | None:
    """Return the interval of an estimate, or its ends `low` and `high`."""
    interval: Sequence[float] | None = getattr(estimate, "interval", None)
    if interval is None and getattr(estimate, "low", None) is not None:
        return estimate.low, estimate.high
    return interval


def number(value: float | None, form: str = ".4g", *, scale: float = 1.0) -> str:
    """Write a number, an empty text for None.

    Example:
        >>> number(0.25, ".3f"), number(None)
        ('0.250', '')
    """
    return "" if value is None else f"{scale * value:{form}}"


def percent(value: float) -> str:
    """Write a rate as per cent with one decimal.

    Example:
        >>> percent(0.4567)
        '45.7'
    """
    return f"{100 * value:.1f}"


def percent_interval(rate: Any) -> str:
    """Write a rate and its interval in per cent, the ends rounded outwards; empty for None.

    Example:
        >>> from advpure.statistics.rates import wilson
        >>> percent_interval(wilson(9, 20)), percent_interval(None)
        ('45.0 [25.8, 65.8]', '')
    """
    if rate is None:
        return ""
    return " ".join(filter(None, (percent(rate.value), percent_ends(rate))))


def percent_ends(rate: Any) -> str:
    """Write the interval of a rate in per cent, rounded outwards; empty where there is none."""
    interval = _interval(rate)
    if interval is None:
        return ""
    low, high = math.floor(1000 * interval[0]) / 10, math.ceil(1000 * interval[1]) / 10
    return f"[{low:.1f}, {high:.1f}]"
