"""Curves of certified accuracy over the radius, with bands (seed 000, figure 3)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advpure.analysis.certification.accuracy import CertifiedImages, accuracy_curve
from advpure.analysis.certification.run import report_certification
from advpure.errors import BadInput
from advpure.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.records import RecordStore
from advpure.stats import wilson

_STYLES = ("-", "--", "-.", ":")
_MOST = len(PALETTE) * len(_STYLES)


def draw_curves(
    curves: Sequence[CertifiedImages], path: str | Path, *, title: str = "", caption: str = ""
) -> Path:
    """Draw certified accuracy against the radius, each curve with its 95 % band (Wilson).

    A curve is exact: it steps down at every image's radius. A band speaks of one radius at a time.

    Args:
        curves: Certificates, 1 to 28 sets.
        path: The file; .png, .svg or .pdf.
        title: A line above.
        caption: A line below, such as the settings.

    Returns:
        The path written.

    Raises:
        BadInput: for no curve or too many, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    if not 1 <= len(curves) <= _MOST:
        raise BadInput(f"{len(curves)} curves", f"are not 1 to {_MOST}", "draw fewer")
    figure = new_figure(5.6, 3.6)
    axes = figure.add_subplot()
    for place, curve in enumerate(curves):
        color, style = PALETTE[place % len(PALETTE)], _STYLES[place // len(PALETTE)]
        radii, counts = accuracy_curve(curve)
        n = len(curve)
        # The accuracy of a radius holds down to the radius before it: steps lie left of points.
        radii, counts = np.append(radii, radii[-1]), np.append(counts, 0)
        rates = [wilson(int(count), n) for count in counts]
        low, high = ([100 * getattr(rate, end) for rate in rates] for end in ("low", "high"))
        values = [100 * rate.value for rate in rates]
        axes.fill_between(radii, low, high, step="pre", color=color, alpha=0.15, linewidth=0)
        label = f"{curve.name} (n = {n})"
        axes.step(radii, values, where="pre", color=color, linestyle=style, label=label)
    axes.set_xlabel("l2 radius, in [0, 1] units")
    axes.set_ylabel("certified accuracy, %")
    axes.set_ylim(0.0, 100.0)
    axes.set_xlim(left=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    if caption:
        axes.annotate(
            caption, xy=(0.5, 0.0), xycoords="axes fraction", xytext=(0, -42),
            textcoords="offset points", ha="center", fontsize=7, color="#444444",
        )  # fmt: skip
    return save_figure(figure, path)


def certification_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the curves of a run from its records alone.

    Args:
        store: The run's records, complete or not.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: for a run without a finished image, or another ending.
        StorageFull: when there is no room.
    """
    report = report_certification(store)
    s, reading = report.settings, report.reading
    return draw_curves(
        [curve.images for curve in report.curves], path,
        title=f"{s['defense']['purifier']} on {s['dataset']}",
        caption=f"{reading.name}, {reading.samples:,} samples, alpha {reading.alpha:g}; bands: "
        "95 % over images",
    )  # fmt: skip
