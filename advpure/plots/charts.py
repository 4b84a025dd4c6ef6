"""Charts of measured values with their intervals: scatter plots, and curves with bands.

Groups differ in colour (Okabe and Ito), in marker and in line style, so that they are told apart
in any colour vision and in print. See `advpure.plots.figures` for how files are written.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advpure.base.errors import BadInput
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_GREY = "#555555"
_WIDTH, _SIDE = 96, 46  # characters of a line of the caption, and of the ordinate's name
_LABEL = 6.5  # size of the type of labels
_AROUND = [
    (math.cos(angle) * reach, math.sin(angle) * reach)
    for reach in (7.0, 11.0, 15.0, 20.0)
    for angle in np.deg2rad((40, 140, 320, 220, 90, 270, 0, 180)).tolist()
]
"""Where a label may stand: the middle of its text from its point, in points of type."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Measured points of one group, in the order in which they are joined.

    Attributes:
        x: Abscissas.
        y: Ordinates; NaN leaves a gap.
        x_low: Lower ends of the intervals of x; None for none, NaN where one is absent.
        x_high: Upper ends.
        y_low: Lower ends of the intervals of y.
        y_high: Upper ends.
        labels: What to write beside each point.
    """

    x: Sequence[float]
    y: Sequence[float]
    x_low: Sequence[float] | None = None
    x_high: Sequence[float] | None = None
    y_low: Sequence[float] | None = None
    y_high: Sequence[float] | None = None
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check the lengths."""
        for name in ("y", "x_low", "x_high", "y_low", "y_high", "labels"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                rule = f"do not match {len(self.x)} points"
                raise BadInput(f"{len(values)} values of {name}", rule, "give one each")


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a chart says.

    Attributes:
        x: The abscissa, with its unit.
        y: The ordinate, with its unit.
        title: A line above.
        caption: Below: n and settings; long lines are broken.
    """

    x: str
    y: str
    title: str = ""
    caption: str = ""


def scatter(
    groups: Mapping[str, Points],
    path: str | Path,
    words: Words,
    *,
    curves: Mapping[str, Points] | None = None,
    hollow: Mapping[str, Points] | None = None,
) -> Path:
    """Draw points with error bars in both directions.

    Args:
        groups: Name to points, 1 to 7 groups.
        path: The file; .png, .svg or .pdf.
        words: Axes, title and caption.
        curves: Lines through the plane, such as a fit with its band.
        hollow: Points to compare with, such as published ones, drawn hollow; a group of the same
            name shares its colour.

    Returns:
        The path written.

    Raises:
        BadInput: for no or too many groups, or another ending.
        StorageFull: when there is no room.
    """
    figure, axes = _begin(groups, path)
    for index, (name, points) in enumerate((curves or {}).items()):
        _band(axes, points, _GREY)
        style: dict[str, Any] = {"linestyle": _STYLES[index], "linewidth": 1.3}
        axes.plot(points.x, points.y, color=_GREY, label=name, zorder=1, **style)
    for index, (name, points) in enumerate(groups.items()):
        _crosses(axes, points, PALETTE[index])
        _marks(axes, points, index, label=name, markersize=5.5, zorder=3)
    _draw_hollow(axes, hollow or {}, list(groups))
    _write_labels(axes, list(groups.values()), list((hollow or {}).values()))
    return _finish(figure, axes, path, words)


def lines(
    groups: Mapping[str, Points],
    path: str | Path,
    words: Words,
    *,
    logarithmic: bool = False,
    hollow: Mapping[str, Points] | None = None,
) -> Path:
    """Draw curves through points, each with the band of its intervals.

    Args:
        groups: Name to points, 1 to 7 groups; the intervals of y are the band.
        path: The file; .png, .svg or .pdf.
        words: Axes, title and caption.
        logarithmic: Whether the abscissa is.
        hollow: As in `scatter`.

    Returns:
        The path written.

    Raises:
        BadInput: for no or too many groups, or another ending.
        StorageFull: when there is no room.
    """
    figure, axes = _begin(groups, path)
    for index, (name, points) in enumerate(groups.items()):
        if points.y_low is not None and points.y_high is not None:
            draw_band(axes, points.x, points.y_low, points.y_high, PALETTE[index])
        marker = None if len(points.x) > 25 else _MARKERS[index]
        style: dict[str, Any] = {"linestyle": _STYLES[index], "linewidth": 1.5}
        axes.plot(
            points.x,
            points.y,
            color=PALETTE[index],
            label=name,
            marker=marker,
            markersize=4.5,
            **style,
        )
    _draw_hollow(axes, hollow or {}, list(groups))
    if logarithmic:
        axes.set_xscale("log")
    return _finish(figure, axes, path, words)


def draw_band(
    axes: "Axes",
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    color: str,
    alpha: float = 0.18,
) -> None:
    """Draw the intervals of a curve as a band; of one point alone, which has no band, as a bar."""
    known = [each for each in zip(x, low, high, strict=True) if np.isfinite(each).all()]
    if len(known) == 1:
        ((place, bottom, top),) = known
        middle, reach = (bottom + top) / 2, (top - bottom) / 2
        bar: dict[str, Any] = {"fmt": "none", "ecolor": color, "elinewidth": 1.2, "capsize": 3.0}
        axes.errorbar([place], [middle], yerr=[reach], **bar)
    elif known:
        axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0)


def _begin(groups: Mapping[str, Points], path: str | Path) -> "tuple[Figure, Axes]":
    check_ending(path)
    if not 1 <= len(groups) <= len(PALETTE):
        raise BadInput(f"{len(groups)} groups", f"are not 1 to {len(PALETTE)}", "draw fewer")
    figure = new_figure(5.6, 3.8)
    return figure, figure.add_subplot()


def _finish(figure: "Figure", axes: "Axes", path: str | Path, words: Words) -> Path:
    axes.set_xlabel(words.x, fontsize=9)
    axes.set_ylabel(textwrap.fill(words.y, _SIDE), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    if words.title:
        axes.set_title(words.title, fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
        legend.set_zorder(4)
    if words.caption:
        text = "\n".join(textwrap.fill(line, _WIDTH) for line in words.caption.splitlines())
        axes.annotate(
            text,
            xy=(0.0, 0.0),
            xycoords="axes fraction",
            xytext=(0, -38),
            ha="left",
            va="top",
            textcoords="offset points",
            fontsize=7,
            color="#444444",
        )
    return save_figure(figure, path)


def _band(axes: "Axes", points: Points, color: str) -> None:
    if points.y_low is not None and points.y_high is not None:
        axes.fill_between(points.x, points.y_low, points.y_high, color=color, alpha=0.18, lw=0)


def _crosses(axes: "Axes", points: Points, color: str) -> None:
    bars = {}
    for name, centre, low, high in (
        ("xerr", points.x, points.x_low, points.x_high),
        ("yerr", points.y, points.y_low, points.y_high),
    ):
        if low is not None and high is not None:
            middle = np.asarray(centre, dtype=float)
            reach = np.stack([middle - np.asarray(low), np.asarray(high) - middle])
            bars[name] = np.nan_to_num(np.maximum(reach, 0.0))
    if bars:
        axes.errorbar(
            points.x,
            points.y,
            fmt="none",
            ecolor=color,
            elinewidth=0.9,
            alpha=0.7,
            capsize=1.5,
            zorder=2,
            **bars,
        )


def _marks(axes: "Axes", points: Points, index: int, **style: Any) -> None:
    style = {"marker": _MARKERS[index], "color": PALETTE[index], **style}
    axes.plot(points.x, points.y, linestyle="none", **style)


def _draw_hollow(axes: "Axes", hollow: Mapping[str, Points], names: Sequence[str]) -> None:
    """Draw points to compare with, in the colour of the group of the same name."""
    for name, points in hollow.items():
        index = names.index(name) if name in names else len(names) % len(PALETTE)
        style = {"markersize": 6.5, "markerfacecolor": "none", "zorder": 2}
        _marks(axes, points, index, label=f"{name}, published", **style)


def _write_labels(axes: "Axes", groups: Sequence[Points], others: Sequence[Points]) -> None:
    """Write the labels of points beside them, each where it covers least of what is drawn."""
    axes.autoscale_view()
    scale = 72.0 / axes.figure.dpi  # pixels to points of type

    def to_pixels(x: Sequence[float], y: Sequence[float]) -> Any:
        return np.asarray(axes.transData.transform(np.column_stack([x, y]))) * scale

    drawn = [to_pixels(*ends) for each in (*groups, *others) for ends in _along(each)]
    marks = np.concatenate(drawn)
    marks = marks[np.isfinite(marks).all(axis=1)]
    written: list[tuple[float, float, float]] = []  # middle and half width of each label

    def covered(x: float, y: float, half: float) -> float:
        free = np.maximum(np.abs(marks - (x, y)) - (half, _LABEL / 2), 0.0)
        near = np.clip(1.0 - np.hypot(*free.T) / 4.0, 0.0, None)
        beside = [abs(x - u) < half + w + 1.0 and abs(y - v) < _LABEL + 1.0 for u, v, w in written]
        return 9.0 * sum(beside) + float(near.sum())

    for number, points in enumerate(groups):
        centres = to_pixels(points.x, points.y)
        for k, label in enumerate(points.labels or []):
            if not np.isfinite(centres[k]).all():
                continue
            (x, y), half = centres[k], 0.31 * _LABEL * len(label)
            dx, dy = min(_AROUND, key=lambda by: covered(x + by[0], y + by[1], half))
            written.append((x + dx, y + dy, half))
            axes.annotate(
                label,
                (points.x[k], points.y[k]),
                xytext=(dx, dy),
                textcoords="offset points",
                fontsize=_LABEL,
                color=PALETTE[number],
                ha="center",
                va="center",
                zorder=5,
            )


def _along(points: Points) -> list[tuple[Sequence[float], Sequence[float]]]:
    """Return the points, twice since they cover more, and some places along their bars."""
    edges = [(points.x, points.y)] * 2
    for share in (0.0, 0.33, 0.67, 1.0):
        if points.x_low is not None and points.x_high is not None:
            ends = zip(points.x_low, points.x_high, strict=True)
            edges.append(([low + share * (high - low) for low, high in ends], points.y))
        if points.y_low is not None and points.y_high is not None:
            ends = zip(points.y_low, points.y_high, strict=True)
            edges.append((points.x, [low + share * (high - low) for low, high in ends]))
    return edges


def dots(
    groups: Mapping[str, Points],
    categories: Sequence[str],
    path: str | Path,
    words: Words,
    *,
    hollow: Mapping[str, Points] | None = None,
) -> Path:
    """Draw values of named rows side by side, each with its interval.

    Args:
        groups: Name to points; `x` is the value, `y` the place among the categories.
        categories: Names of the rows, top to bottom.
        path: The file; .png, .svg or .pdf.
        words: Axes, title and caption.
        hollow: As in `scatter`.

    Returns:
        The path written.

    Raises:
        BadInput: for no or too many groups, or another ending.
        StorageFull: when there is no room.
    """
    figure, axes = _begin(groups, path)
    figure.set_size_inches(5.6, max(1.6, 0.34 * len(categories) * max(len(groups), 1) ** 0.5 + 1.0))
    names, step = list(groups), 0.6 / len(groups)
    for index, name in enumerate(names):
        shift = (index - (len(names) - 1) / 2) * step
        points = _shifted(groups[name], shift)
        _crosses(axes, points, PALETTE[index])
        _marks(axes, points, index, label=name, markersize=5.5, zorder=3)
        if hollow and name in hollow:
            _draw_hollow(axes, {name: _shifted(hollow[name], shift)}, names)
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.5, -0.5)
    return _finish(figure, axes, path, words)


def _shifted(points: Points, by: float) -> Points:
    return replace(points, y=[y + by for y in points.y])
