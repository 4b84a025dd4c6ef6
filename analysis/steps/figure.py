"""The compression of every step, measured beside predicted: figure 4d of [Wei2025], made complete.

One column a purifier. Above: the rate of every step along the chain. Below: the product so far, the
measured one and those of the predictions, on a logarithmic axis. Bands are 95 % intervals over
images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.steps.report import StepsReport
from advpure.base.errors import BadInput
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES: tuple[tuple[str, str, int, str], ...] = (
    ("transported", "measured, transported from the image", 0, "-"),
    ("limit", "measured, isotropic at the state", 2, "-"),
    ("exact", "predicted with Frobenius norm", 6, "--"),
    ("first_order", "predicted to first order (eq. 16)", 1, ":"),
    ("along", "measured along the data", 3, "-."),
    ("across", "measured across the data", 4, "-."),
)
"""Column of the report, legend, place in the palette, line style."""
_BANDS = ("transported", "limit")
_MOST = 4


def draw_steps(reports: Sequence[StepsReport], path: str | Path) -> Path:
    """Draw the steps of one or several purifiers.

    Args:
        reports: One column each; 1 to 4.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: for no report or too many, a chain without steps, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    if not 1 <= len(reports) <= _MOST:
        raise BadInput(f"{len(reports)} runs", f"are not 1 to {_MOST}", "draw fewer")
    for report in reports:
        if not report.result.samples:
            raise BadInput(f"run {report.run}", "has no steps to draw", "choose a purifier")
    count = len(reports)
    figure = new_figure((4.6 if count > 1 else 6.0) * count, 6.2)
    grid = figure.subplots(2, count, squeeze=False, sharey="row", height_ratios=(3, 2))
    for column, report in enumerate(reports):
        upper, lower, rows = grid[0][column], grid[1][column], report.tree()["rows"]
        _draw_rates(upper, rows)
        _draw_products(lower, rows)
        upper.set_title(_title(report.settings), fontsize=10)
        for axes in (upper, lower):
            _mark_phases(axes, rows)
    grid[0][0].set_ylabel("compression rate of a step")
    grid[1][0].set_ylabel("product so far")
    handles, labels = _legend(grid)
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.03),
        frameon=False,
        fontsize=8,
        ncols=2 if count == 1 else 3,
    )
    figure.text(
        0.5,
        -0.11 if count == 1 else -0.07,
        _caption(reports),
        ha="center",
        va="top",
        fontsize=7,
        color="#444444",
        wrap=True,
    )
    return save_figure(figure, path)


def _draw_rates(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    steps = np.array([row["step"] for row in rows])
    marker = "o" if sum(row["form"] != "scalar" for row in rows) <= 3 else None
    for name, label, color, style in _LINES:
        values = _column(rows, name)
        if name in ("exact", "first_order"):  # a factor is known, not predicted
            values[[row["form"] == "scalar" for row in rows]] = np.nan
        known = ~np.isnan(values)
        if not known.any():
            continue
        for k, phase in enumerate(_phases(rows)):  # the two phases are no one line
            own = known & phase
            axes.plot(
                steps[own],
                values[own],
                color=PALETTE[color],
                linestyle=style,
                linewidth=1.4,
                label=label if k == 0 else None,
                marker=marker,
                markersize=3,
            )
            if name in _BANDS:
                low, high = (side[own] for side in _ends(rows, name))
                axes.fill_between(
                    steps[own], low, high, color=PALETTE[color], alpha=0.15, linewidth=0
                )
    kappas = _column(rows, "kappa")
    if (~np.isnan(kappas)).any():
        axes.plot(steps, kappas, color="#888888", linewidth=0.8, label="kappa")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_products(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    steps = np.array([row["step"] for row in rows])
    running = _column(rows, "cumulative")
    low, high = _ends(rows, "cumulative")
    axes.plot(steps, running, color=PALETTE[0], linewidth=1.4)
    axes.fill_between(steps, np.maximum(low, 1e-12), high, color=PALETTE[0], alpha=0.15, lw=0)
    gains = _column(rows, "gain")
    for name, _, color, style in _LINES[1:4]:
        factors = np.where(np.isnan(gains), _column(rows, name), np.abs(gains))
        product = np.cumprod(factors)
        known = ~np.isnan(product)
        axes.plot(
            steps[known], product[known], color=PALETTE[color], linestyle=style, linewidth=1.4
        )
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}" if top / bottom < 10.0 else "")
    axes.spines[["top", "right"]].set_visible(False)


def _phases(rows: list[dict[str, Any]]) -> list[npt.NDArray[np.bool_]]:
    phases = np.array([row["phase"] for row in rows])
    return [phases == phase for phase in ("forward", "reverse")]


def _mark_phases(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """Shade the forward phase, and label the axis by the papers' t."""
    forward = [row["step"] for row in rows if row["phase"] == "forward"]
    if forward:
        axes.axvspan(min(forward) - 0.5, max(forward) + 0.5, color="#000000", alpha=0.05, lw=0)
    count = len(rows)
    ticks = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
    axes.set_xticks(ticks, [str(rows[k]["time"]) for k in ticks])
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xlabel("t (shaded: forward phase)" if forward else "t")


def _legend(grid: Any) -> tuple[list[Any], list[str]]:
    handles: dict[str, Any] = {}
    for axes in grid[0]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)


def _title(settings: dict[str, Any]) -> str:
    return f"{strength_text(settings)} on {settings['dataset']}"


def _caption(reports: Sequence[StepsReport]) -> str:
    s = reports[0].settings
    counts = ", ".join(str(report.n) for report in reports)
    text = (
        f"n = {counts} images; {s['distribution']} perturbations of {255 * s['eps']:.3g}/255, "
        f"{s['perturbations']} an image; {s['probes']} probes a step; seed {s['seed']}; "
        "bands: 95 % intervals over images."
    )
    if s.get("reference"):
        text += (
            f" Along the data: {s['components']} {s['span']} directions of {s['neighbours']} "
            f"neighbours in {s['reference']}."
        )
    return text


def _column(rows: list[dict[str, Any]], name: str) -> npt.NDArray[np.float64]:
    values = (row.get(name) for row in rows)
    numbers = (each.value if isinstance(each, Estimate) else each for each in values)
    return np.array([np.nan if each is None else each for each in numbers], dtype=float)


def _ends(rows: list[dict[str, Any]], name: str) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the lower and the upper ends of the intervals of a column."""
    intervals = (getattr(row.get(name), "interval", None) or (np.nan, np.nan) for row in rows)
    low, high = zip(*intervals, strict=True)
    return np.array(low), np.array(high)
