"""The picture of survival: the share of images that resist each perturbation size, with the fit.

Steps are Kaplan and Meier's with their band, the dashed line is the zero-inflated Gaussian
([Wei2025], figures 3b and S1). One colour a run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advpure.analysis.robustness.wording import attack_text
from advpure.analysis.survival.fit import SurvivalResult
from advpure.analysis.survival.study import SurvivalReport, named, search_randomness
from advpure.base.errors import BadInput
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 200
_FEW = 4  # entries of a legend that fit beside the curves


def draw_survival(reports: Sequence[SurvivalReport], path: str | Path) -> Path:
    """Draw the survival functions of one or several runs.

    Args:
        reports: 1 to 7 runs of one norm, such as clean images and the anchor points of samplers.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: for no runs or too many, other norms, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    if not 1 <= len(reports) <= len(PALETTE):
        raise BadInput(f"{len(reports)} runs", f"are not 1 to {len(PALETTE)}", "draw fewer")
    norms = {report.settings["threat_model"]["norm"] for report in reports}
    if len(norms) > 1:
        raise BadInput(
            f"runs of norms {', '.join(sorted(norms))}", "share no axis", "draw one norm"
        )
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot()
    for index, report in enumerate(reports):
        label = f"{named(report.settings)} (n = {report.result.n})"
        draw_curve(axes, report.result, label, PALETTE[index])
    dress(axes, norms.pop())
    first = reports[0].settings
    axes.set_title(f"survival of {_classifier(first)} on {first['dataset']}", fontsize=10)
    axes.annotate(
        _caption(reports[0]),
        xy=(0.5, 0.0),
        xycoords="axes fraction",
        xytext=(0, -44),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
        color="#444444",
    )
    return save_figure(figure, path)


def draw_curve(axes: "Axes", result: SurvivalResult, label: str, color: str) -> None:
    """Draw the step function with its band, and the fit where there is one."""
    curve = result.curve
    times = np.concatenate([[0.0], curve.times[curve.times > 0.0]])
    steps = [curve.at(float(eps)) for eps in times]
    values = [step.value for step in steps]
    axes.step(times, values, where="post", color=color, linewidth=1.5, label=label)
    axes.fill_between(
        times,
        [step.low for step in steps],
        [step.high for step in steps],
        step="post",
        color=color,
        alpha=0.16,
        linewidth=0,
    )
    if result.fit is not None:
        grid = np.linspace(0.0, curve.last, _GRID)
        fit = result.fit
        text = f"fit: plateau {fit.plateau:.3f}, mean {fit.mean:.4g}, std {fit.std:.3g}"
        axes.plot(grid, fit.survival(grid), color=color, linestyle="--", linewidth=1.2, label=text)


def dress(axes: "Axes", norm: str) -> None:
    """Name the axes of a survival function, the legend below its falling curve or beside it."""
    size = {"linf": "l-inf", "l2": "l2"}[norm]
    axes.set_xlabel(f"{size} size of the perturbation, [0, 1] units")
    axes.set_ylabel("share of images that survive it")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0.0)
    axes.locator_params(axis="x", nbins=6)  # sizes have many digits
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    if len(axes.get_legend_handles_labels()[0]) <= _FEW:
        axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    else:
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _classifier(settings: dict[str, Any]) -> str:
    return str((settings["defense"].get("classifier") or {}).get("name", "a classifier"))


def _caption(report: SurvivalReport) -> str:
    s = report.settings
    model = s["threat_model"]
    return (
        f"{attack_text(s)}{search_randomness(s)}, {s['search']['search']} search up to "
        f"{model['top']:.4g} in {s['search']['bisections']} bisections, box {model['box']}; "
        "bands 95 %"
    )
