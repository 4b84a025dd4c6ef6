"""The picture of a gradient study, from the records of a run alone.

Left: the cosine between the mean of k draws and the exact mean against k, measured and in closed
form, with the gain of a sign step and the cosine with the gradient of one other configuration.
Right: the number of draws that each image needs for a cosine of 0.9.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.gradient_noise.result import GradientResult
from advpure.analysis.gradient_noise.study import GradientNoise, GradientReport
from advpure.analysis.robustness.wording import strength_text
from advpure.attacks import PGDEOTSettings
from advpure.plots.charts import draw_band
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND = 0.15


def gradients_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a recorded run; see `draw_gradients`."""
    return draw_gradients(GradientNoise.report(store), path)


def draw_gradients(report: GradientReport, path: str | Path) -> Path:
    """Draw a run.

    Args:
        report: Its report; its `target` is marked as enough.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: for another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    result, s, target = report.result, report.settings, report.target
    figure = new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    _draw_curves(left, result, target)
    _draw_needs(right, result, target)
    where = "clean images" if s["point"] == "clean" else "random starts in the ball"
    figure.suptitle(
        f"{strength_text(s['defense'])} on {s['dataset']}: gradients of loss {s['loss']} at "
        f"{where}, {len(result.images)} images, {s['draws'] + s['reference']} draws each (seeds "
        f"from {s['randomness']['seed']})",
        fontsize=10,
    )
    figure.subplots_adjust(wspace=0.3)
    return save_figure(figure, path)


def _draw_curves(axes: "Axes", result: GradientResult, target: float) -> None:
    curve = result.curve()
    lines = {
        "cosine": ("cosine to the exact mean", "-", "o"),
        "gain": ("gain of a sign step", "--", "s"),
        "single": ("cosine with one other draw", ":", "^"),
    }
    for color, (name, (label, style, marker)) in zip(PALETTE, lines.items(), strict=False):
        points = [(each.draws, getattr(each, name)) for each in curve]
        known: list[tuple[int, Mean]] = [(k, mean) for k, mean in points if mean is not None]
        if not known:
            continue
        x, y = [k for k, _ in known], [mean.value for _, mean in known]
        axes.plot(
            x,
            y,
            style,
            marker=marker,
            markersize=4,
            color=color,
            linewidth=1.5,
            label=f"{label} (n = {known[0][1].n})",
        )
        bands = [(k, mean.interval) for k, mean in known if mean.interval is not None]
        if bands:
            low, high = [band.low for _, band in bands], [band.high for _, band in bands]
            draw_band(axes, [k for k, _ in bands], low, high, color, alpha=_BAND)
    if result.resolved:
        sizes = np.geomspace(result.sizes[0], result.sizes[-1], 100)
        expected = [
            float(np.mean([image.expected("cosine", k) for image in result.resolved]))
            for k in sizes
        ]
        axes.plot(
            sizes,
            expected,
            color="black",
            linewidth=1.2,
            dashes=(5, 2),
            label="closed form, from the SNR of each image",
        )
    if not result.sizes:
        axes.text(0.5, 0.5, "no gradient at all", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.axhline(target, color="#777777", linewidth=0.8, label=f"enough: {target:g}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(result.sizes, [str(k) for k in result.sizes])
    axes.minorticks_off()
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(1.02, axes.get_ylim()[1]))
    axes.set_xlabel("draws averaged, k")
    axes.set_ylabel("cosine, or gain")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_needs(axes: "Axes", result: GradientResult, target: float) -> None:
    """Draw the share of images for which k draws are enough; what no draw shows stays below 1."""
    needs = sorted(image.enough(target) for image in result.images if not image.moments.is_zero)
    finite = [need for need in needs if math.isfinite(need)]
    axes.set_xlabel(f"draws needed for a cosine of {target:g}, closed form")
    axes.set_ylabel("share of the images")
    axes.set_ylim(0.0, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    if not finite:
        axes.text(0.5, 0.5, "no image is resolved", ha="center", transform=axes.transAxes)
        return
    shares = [(index + 1) / len(needs) for index in range(len(finite))]
    end = 2 * max(finite)
    axes.step(
        [1, *finite, end], [0.0, *shares, shares[-1]], where="post", color=PALETTE[0], linewidth=1.5
    )
    usual = PGDEOTSettings.eot
    axes.axvline(usual, color="#777777", linewidth=0.8, linestyle="--")
    axes.annotate(
        f"{usual}: pgd-eot",
        (usual, 1.0),
        fontsize=7,
        color="#444444",
        xytext=(3, 0),
        textcoords="offset points",
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, max(end, 32))
    axes.set_xticks(ticks := [2**k for k in range(int(math.log2(max(end, 32))) + 1)])
    axes.set_xticklabels([str(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
