"""Figures 4a and 4b of seed 003: paths in a Gaussian score field, and the rate of every step."""

from pathlib import Path

import numpy as np

from advpure.analysis.gaussian_field_paths import FieldRates, simulate_paths
from advpure.analysis.gaussian_field_table import FieldSettings
from advpure.figures import PALETTE, check_ending, new_figure, save_figure


def draw_field_paths(settings: FieldSettings, path: str | Path, *, paths: int = 12) -> Path:
    """Draw the score field in the plane of a direction along the data and one across it.

    Args:
        settings: The field; one that diverges is drawn as far as it fits.
        path: The file; .png, .svg or .pdf.
        paths: Simulated paths.

    Returns:
        The path written.
    """
    check_ending(path)
    found = simulate_paths(settings, paths=paths)
    reach = 1.15 * np.abs(found[:, 0]).max(axis=0)
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    grid = np.meshgrid(*(np.linspace(-r, r, n) for r, n in zip(reach, (19, 11), strict=True)))
    variances = np.square([settings.std_on_manifold, settings.std_off_manifold])
    u, v = (-side / variance for side, variance in zip(grid, variances, strict=True))
    length = np.hypot(u, v)
    axes.quiver(
        *grid, u / length, v / length, np.log10(length), cmap="Greys", pivot="mid", scale=32,
        width=0.0025, clim=(np.log10(length).min() - 1.0, np.log10(length).max() + 0.5),
    )  # fmt: skip
    angles = np.linspace(0.0, 2.0 * np.pi, 200)
    for deviations in (1.0, 2.0):
        axes.plot(
            deviations * settings.std_on_manifold * np.cos(angles),
            deviations * settings.std_off_manifold * np.sin(angles),
            color=PALETTE[6], linewidth=0.9, linestyle="-" if deviations == 1.0 else "--",
            label=f"{deviations:g} standard deviation" + "s" * (deviations > 1.0),
        )  # fmt: skip
    for k, line in enumerate(found):
        axes.plot(
            line[:, 0], line[:, 1], color=PALETTE[0], linewidth=1.2, marker=".", markersize=3,
            label=f"path of {settings.steps} steps" if k == 0 else None,
        )  # fmt: skip
        axes.plot(*line[0], color=PALETTE[1], marker="o", markersize=4,
                  label="start" if k == 0 else None, linestyle="")  # fmt: skip
    axes.set_xlim(-reach[0], reach[0])
    axes.set_ylim(-reach[1], reach[1])
    axes.set_xlabel(f"along the data (variance {variances[0]:g})")
    axes.set_ylabel(f"across the data (variance {variances[1]:.3g})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return save_figure(figure, path)


def draw_field_rates(found: FieldRates, path: str | Path) -> Path:
    """Draw the simulated rate of every step beside the closed form.

    Args:
        found: What was simulated.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.
    """
    check_ending(path)
    figure = new_figure(6.0, 3.6)
    axes = figure.add_subplot()
    places = np.arange(found.rates.shape[1])
    draws = len(found.rates)
    for k, line in enumerate(found.rates):
        label = f"simulated, {draws} random perturbations" if k == 0 else None
        axes.plot(places, line, color=PALETTE[0], linewidth=1.0, alpha=0.6, label=label)
    axes.plot(
        places, found.predicted, color=PALETTE[6], linestyle="--", linewidth=1.4,
        label="closed form, root mean square",
    )  # fmt: skip
    axes.axhline(
        found.on_manifold, color=PALETTE[3], linestyle="-.", linewidth=1.1, label="along the data"
    )
    axes.axhline(
        found.off_manifold, color=PALETTE[4], linestyle="-.", linewidth=1.1, label="across the data"
    )
    axes.axhline(
        found.eq_13, color=PALETTE[1], linestyle=":", linewidth=1.3,
        label="expected rate to first order (eq. 13)",
    )  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("compression rate of a step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    s = found.settings
    axes.set_title(
        f"d = {s.dimension}, {s.intrinsic_dimension} along the data, variances "
        f"{s.variances[0]:g} and {s.variances[-1]:.3g}, step {s.step:g}", fontsize=9,
    )  # fmt: skip
    return save_figure(figure, path)
