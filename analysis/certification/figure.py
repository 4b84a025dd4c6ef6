"""Curves of certified accuracy over the radius, with bands ([Li2024], figure 3)."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.certification.accuracy import (
    CertifiedImages,
    accuracy_curve,
    certified_accuracy,
)
from advpure.analysis.certification.naming import subject
from advpure.analysis.certification.study import Certification
from advpure.base.errors import BadInput
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", "--", "-.", ":")
_MOST = len(PALETTE) * len(_STYLES)
_LETTERS = 17  # of a caption on an inch


def draw_curves(
    curves: Sequence[CertifiedImages], path: str | Path, *, title: str = "", caption: str = ""
) -> Path:
    """Draw certified accuracy against the radius, each curve with its 95 % band.

    A curve is exact: it steps down at every image's radius. A band holds for one radius at a time.

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
    return draw_panels({"": curves}, path, title=title, caption=caption)


def draw_panels(
    panels: Mapping[str, Sequence[CertifiedImages]],
    path: str | Path,
    *,
    title: str = "",
    caption: str = "",
) -> Path:
    """Draw curves side by side, such as one panel a noise level, with one accuracy scale.

    A name has one colour and style in all panels, and one entry in the legend where every panel
    has the same names and counts.

    Args:
        panels: What stands above each panel, to its curves; 1 to 28 curves each.
        path: The file; .png, .svg or .pdf.
        title: A line above all.
        caption: Below, such as n and settings; long lines are broken.

    Returns:
        The path written.

    Raises:
        BadInput: for no curve or too many, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    for count in map(len, panels.values()):
        if not 1 <= count <= _MOST:
            raise BadInput(f"{count} curves", f"are not 1 to {_MOST}", "draw fewer")
    if not panels:
        raise BadInput("0 panels", "are nothing to draw", "give at least one curve")
    keys = [[(curve.name, len(curve)) for curve in curves] for curves in panels.values()]
    once = all(each == keys[0] for each in keys)
    width = 5.6 if len(panels) == 1 else 3.1 * len(panels) + 0.6
    figure = new_figure(width, 3.6)
    first = None
    for index, (above, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1, sharey=first)
        for line, curve in enumerate(curves):
            _draw(axes, curve, PALETTE[line % len(PALETTE)], _STYLES[line // len(PALETTE)])
        axes.set_xlabel("l2 radius, in [0, 1] units")
        axes.set_xlim(left=0.0)
        axes.spines[["top", "right"]].set_visible(False)
        if first is None:
            axes.set_ylabel("certified accuracy, %")
            axes.set_ylim(0.0, 100.0)
            first = axes
        if above:
            axes.set_title(above, fontsize=9)
        if not once or index == len(panels) - 1:
            axes.legend(frameon=False, fontsize=8)
    if title and len(panels) == 1:
        axes.set_title(title, fontsize=10)
    elif title:
        figure.suptitle(title, fontsize=10, y=1.0)
    if caption:
        assert first is not None
        text = "\n".join(textwrap.wrap(caption, round(_LETTERS * width)))
        first.annotate(
            text,
            xy=(0.0, 0.0),
            xycoords="axes fraction",
            xytext=(0, -38),
            va="top",
            textcoords="offset points",
            ha="left",
            fontsize=7,
            color="#444444",
        )
    return save_figure(figure, path)


def _draw(axes: "Axes", curve: CertifiedImages, color: str, style: str) -> None:
    """Draw a curve that steps down at every image's radius, and its band."""
    radii, _ = accuracy_curve(curve)
    # The accuracy of a radius holds down to the radius before it: steps lie left of points.
    rates = [certified_accuracy(curve, radius) for radius in (*radii.tolist(), math.inf)]
    radii = np.append(radii, radii[-1])
    low, high = ([100 * getattr(rate, end) for rate in rates] for end in ("low", "high"))
    axes.fill_between(radii, low, high, step="pre", color=color, alpha=0.15, linewidth=0)
    label = f"{curve.name} (n = {len(curve)})"
    values = [100 * rate.value for rate in rates]
    axes.step(radii, values, where="pre", color=color, linestyle=style, label=label)


def certification_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the curves of a run from its records alone.

    Raises:
        BadInput: for a run without a finished image, or another ending.
        StorageFull: when there is no room.
    """
    report = Certification.report(store)
    s, procedure = report.settings, report.procedure
    return draw_curves(
        report.certificates,
        path,
        title=f"{subject(s)} on {s['dataset']}",
        caption=f"{procedure.name}, {procedure.samples:,} samples, alpha {procedure.alpha:g}, "
        f"seed {s['randomness']['seed']}; bands: 95 % over images",
    )
