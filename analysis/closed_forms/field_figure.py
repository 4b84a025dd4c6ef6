"""Figures 4a and 4b of [Wei2025]: paths in a Gaussian score field, and the rate of every step."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.closed_forms.field_study import ScoreField
from advpure.analysis.closed_forms.gaussian_field_paths import FieldRates, simulate_paths
from advpure.analysis.closed_forms.gaussian_field_table import FieldSettings
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def field_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a recorded run: paths on the left, rates on the right.

    Raises:
        BadInput: for another ending.
        StorageFull: when there is no room.
    """
    return draw_field(ScoreField.report(store).result, path)


def draw_field(rates: FieldRates, path: str | Path, *, paths: int = 12) -> Path:
    """Draw both figures of a simulated field.

    Args:
        rates: What was simulated.
        path: The file; .png, .svg or .pdf.
        paths: Simulated paths in the plane of figure 4a.

    Returns:
        The path written.
    """
    check_ending(path)
    figure = new_figure(11.5, 3.8)
    left, right = figure.subplots(1, 2)
    draw_field_paths(left, rates.settings, paths=paths)
    draw_field_rates(right, rates)
    s = rates.settings
    figure.suptitle(
        f"Gaussian score field: d = {s.dimension}, {s.intrinsic_dimension} along the data, "
        f"variances {s.variances[0]:g} and {s.variances[-1]:.3g}, {s.steps} steps of {s.step:g}",
        fontsize=10,
    )
    return save_figure(figure, path)


def draw_field_paths(axes: "Axes", settings: FieldSettings, *, paths: int = 12) -> None:
    """Draw score, contours and paths in the plane of a direction along the data and one across.

    Arrows show the direction of the score; the darker, the longer it is.

    Args:
        axes: Where.
        settings: The field.
        paths: Number of paths.
    """
    simulated = simulate_paths(settings, paths=paths)
    reach = 1.15 * np.abs(simulated[:, 0]).max(axis=0)
    grid = np.meshgrid(*(np.linspace(-r, r, n) for r, n in zip(reach, (19, 11), strict=True)))
    variances = np.square([settings.std_on_manifold, settings.std_off_manifold])
    u, v = (-side / variance for side, variance in zip(grid, variances, strict=True))
    length = np.hypot(u, v)
    known = length > 0
    logs = np.log10(length[known])
    axes.quiver(
        *(side[known] for side in grid),
        u[known] / length[known],
        v[known] / length[known],
        logs,
        cmap="Greys",
        pivot="mid",
        scale=32,
        width=0.0025,
        clim=(logs.min() - 1.0, logs.max()),
    )
    angles = np.linspace(0.0, 2.0 * np.pi, 200)
    for deviations, style in ((1.0, "-"), (2.0, "--")):
        axes.plot(
            deviations * settings.std_on_manifold * np.cos(angles),
            deviations * settings.std_off_manifold * np.sin(angles),
            color=PALETTE[6],
            linewidth=0.9,
            linestyle=style,
            label=f"{deviations:g} standard deviation" + "s" * (deviations > 1.0),
        )
    for k, line in enumerate(simulated):
        axes.plot(
            line[:, 0],
            line[:, 1],
            color=PALETTE[0],
            linewidth=1.2,
            marker=".",
            markersize=3,
            label="simulated path" if k == 0 else None,
        )
        axes.plot(
            *line[0],
            color=PALETTE[1],
            marker="o",
            markersize=4,
            linestyle="",
            label="start" if k == 0 else None,
        )
    axes.set_xlim(-reach[0], reach[0])
    axes.set_ylim(-reach[1], reach[1])
    axes.set_xlabel("along the data")
    axes.set_ylabel("across the data")
    _finish(axes)


def draw_field_rates(axes: "Axes", rates: FieldRates) -> None:
    """Draw the simulated rate of every step beside the closed forms.

    Args:
        axes: Where.
        rates: What was simulated.
    """
    steps = np.arange(rates.rates.shape[1])
    for k, line in enumerate(rates.rates):
        label = f"simulated, {len(rates.rates)} random perturbations" if k == 0 else None
        axes.plot(steps, line, color=PALETTE[0], linewidth=1.0, alpha=0.5, label=label)
    axes.plot(
        steps, rates.predicted, color=PALETTE[6], linestyle="--", linewidth=1.4, label="closed form"
    )
    axes.axhline(
        rates.on_manifold, color=PALETTE[3], linestyle="-.", linewidth=1.1, label="along the data"
    )
    axes.axhline(
        rates.off_manifold, color=PALETTE[4], linestyle="-.", linewidth=1.1, label="across the data"
    )
    axes.axhline(
        rates.eq_13,
        color=PALETTE[1],
        linestyle=":",
        linewidth=1.3,
        label="expected, first order (eq. 13)",
    )
    axes.set_xlabel("step")
    axes.set_ylabel("compression rate of a step")
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
