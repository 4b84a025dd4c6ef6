"""The picture of randomness against input, from the records of a run alone ([Wei2025], figure 2).

Left to right: correlations of purification directions, one value an image (figures 2d and 2e);
distances to the centroid, one value a purification (2f); and where on the image the two kinds of
variability sit: the root of each pixel's variance, mean over images.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.variability.study import Snr
from advpure.plots.figures import check_ending, draw_histogram, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpecBase

_STORED = ("vary input", "vary randomness", "vary both")
_DRAWN = ("vary randomness", "vary input", "vary both")  # colours as on the left


def snr_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a run.

    Raises:
        BadInput: for a run without records, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    report = Snr.report(store)
    result, s = report.result, report.settings
    figure = new_figure(12.0, 3.6)
    grid = figure.add_gridspec(1, 3, width_ratios=(1.0, 1.0, 0.9), wspace=0.3)
    left, middle = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    directions = {
        f"vary {what}": list(result.of_images(f"correlation_vary_{what}").values())
        for what in ("randomness", "input")
    }
    directions = {name: values for name, values in directions.items() if values}
    if directions:
        draw_histogram(left, directions, "correlation of purification directions")
    else:
        left.text(0.5, 0.5, "no directions: nothing is changed", ha="center", fontsize=9)
        left.set_axis_off()
    ids = [row.id for row in result.rows]
    cells = np.stack([store.get_blob(f"distances/{i}").numpy() for i in ids], axis=1)
    distances = {name: cells[_STORED.index(name)].ravel() for name in _DRAWN}
    start = result.mean("initial")
    assert start is not None
    middle.axvline(
        start.value,
        color="black",
        linestyle=":",
        linewidth=1.2,
        label=f"perturbation (mean {start.value:.4g})",
    )
    draw_histogram(middle, distances, "L2 distance to the centroid, [0, 1] units")
    _draw_maps(figure, grid[2].subgridspec(1, 2, wspace=0.45), store, ids)
    row = result.rows[0]
    figure.suptitle(
        f"{strength_text(s)} on {s['dataset']}: {result.n} images, "
        f"{row.perturbations} perturbations ({s['distribution']}, "
        f"{255 * s['eps']:.3g}/255), {row.configurations} configurations (seeds from {s['seed']})",
        fontsize=10,
    )
    return save_figure(figure, path)


def _draw_maps(figure: "Figure", grid: "GridSpecBase", store: RecordStore, ids: list[int]) -> None:
    """Draw input and internal standard deviation by pixel, each on a scale of its own."""
    each = [store.get_blob(f"variances/{i}").double().mean(1).sqrt() for i in ids]
    maps = np.mean([stds.numpy() for stds in each], axis=0)
    for index, name in enumerate(("input", "internal")):
        axes = figure.add_subplot(grid[index])
        drawn = axes.imshow(maps[index], cmap="cividis", vmin=0.0)
        axes.set_axis_off()
        axes.set_title(f"{name} std", fontsize=9)
        bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.05, pad=0.06)
        bar.ax.tick_params(labelsize=7)
        bar.ax.locator_params(nbins=3)
        bar.set_label("[0, 1] units", fontsize=7)
