"""The picture of a prediction: robust accuracy against compression rate, and where it comes from.

Left ([Wei2025], figure 3a): measured accuracies with their intervals, one colour and marker a
purifier, what the anchor points predict of each drawn hollow, the sigmoid through the measurements
with its band, and the survival function of the classifier at CR times epsilon. Right (figures 3b
and S1): that survival function over the size of perturbations, with its zero-inflated Gaussian.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.prediction.parts import PREDICTION_SCHEMA, to_survival
from advpure.analysis.prediction.predict import Estimated, Outcome
from advpure.analysis.prediction.report import PredictionReport, strength_of
from advpure.analysis.prediction.study import PredictedRobustness
from advpure.analysis.robustness.wording import attack_text
from advpure.analysis.survival.figure import draw_curve, dress
from advpure.analysis.survival.fit import SurvivalResult
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY, _GRID = "#555555", 121


def prediction_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a run from its records alone.

    Args:
        store: Its records, complete or not.
        path: The file; .png, .svg or .pdf.

    Raises:
        BadInput: for a run without a finished point, or another ending.
        StorageFull: when there is no room.
    """
    rows = store.rows(PREDICTION_SCHEMA.table, {"point": 0})
    clean = to_survival(rows, "clean") if rows else None
    return draw_prediction(PredictedRobustness.report(store), path, clean)


def draw_prediction(
    report: PredictionReport, path: str | Path, clean: SurvivalResult | None = None
) -> Path:
    """Draw a report.

    Args:
        report: The report.
        path: The file; .png, .svg or .pdf.
        clean: The survival of the classifier at clean images, for the right side; None leaves it
            out.

    Returns:
        The path written.
    """
    check_ending(path)
    figure = new_figure(9.6 if clean else 5.6, 4.0)
    panels = figure.subplots(1, 2 if clean else 1, squeeze=False)[0]
    _draw_law(panels[0], report, clean)
    norm = report.settings["threat_model"].get("norm", "linf")
    if clean is not None:
        draw_curve(panels[1], clean, f"clean images (n = {clean.n})", PALETTE[0])
        panels[1].axvline(report.eps, color=_GREY, linestyle=":", linewidth=1.0, label="epsilon")
        dress(panels[1], norm)
    for axes in panels:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
        axes.legend(frameon=False, fontsize=7, ncols=2, **below)
    s = report.settings
    attack = f", {attack_text(s)}" if s.get("attack") else ""
    seed = f", seed {s['randomness']['seed']}" if "randomness" in s else ""
    title = (
        f"{report.outcomes[0].setting.n} images of {s.get('dataset', 'the data set')}, {norm} "
        f"{report.eps:.4g}{attack}{seed}; intervals 95 %"
    )
    figure.suptitle(title, fontsize=9)
    return save_figure(figure, path)


def _draw_law(axes: "Axes", report: PredictionReport, clean: SurvivalResult | None) -> None:
    outcomes = report.outcomes
    names = list(dict.fromkeys(outcome.setting.purifier for outcome in outcomes))
    alone = {name: _alone(outcomes, name) for name in names}
    most = max(outcome.cr.high for outcome in outcomes) * 1.05
    grid = np.linspace(0.0, most, _GRID)
    if report.sigmoid is not None:
        bands = [report.sigmoid.at(float(cr)) for cr in grid]
        low, high = [b.low for b in bands], [b.high for b in bands]
        axes.fill_between(grid, low, high, color=_GREY, alpha=0.16, linewidth=0)
        best, label = report.sigmoid.best.at(grid), "sigmoid through measured"
        axes.plot(grid, best, color=_GREY, linewidth=1.3, label=label)
    if clean is not None:
        reach = [float(cr) for cr in grid if clean.is_known(cr * report.eps)]
        axes.plot(
            reach,
            [clean.at(cr * report.eps).value for cr in reach],
            color="black",
            linestyle=":",
            linewidth=1.2,
            drawstyle="steps-post",
            label="clean survival at CR x epsilon",
        )
    for index, name in enumerate(names):
        own = [outcome for outcome in outcomes if outcome.setting.purifier == name]
        _draw_purifier(axes, alone[name], own, index)
    axes.set_xlabel("expected compression rate")
    axes.set_ylabel("robust accuracy")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0.0, most)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _alone(outcomes: Sequence[Outcome], name: str) -> str:
    """Return a purifier's name, with its strength where it has one alone."""
    shown = {strength_of(each) for each in outcomes if each.setting.purifier == name}
    return shown.pop() if len(shown) == 1 else name


def _draw_purifier(axes: "Axes", name: str, own: list[Outcome], index: int) -> None:
    color, marker = PALETTE[index % len(PALETTE)], _MARKERS[index % len(_MARKERS)]
    measured = [outcome for outcome in own if outcome.measured is not None]
    if measured:
        values = [
            Estimated(o.measured.value, o.measured.low, o.measured.high)
            for o in measured
            if o.measured is not None
        ]
        cr = [outcome.cr for outcome in measured]
        axes.errorbar(
            [c.value for c in cr],
            [v.value for v in values],
            xerr=_reach(cr),
            yerr=_reach(values),
            fmt=marker,
            color=color,
            markersize=5,
            elinewidth=0.8,
            capsize=1.5,
            label=f"{name}, measured",
        )
    what = own[0].best
    predicted = [o.predicted[o.best].accuracy for o in own]
    axes.errorbar(
        [o.cr.value for o in own],
        [p.value for p in predicted],
        yerr=_reach(predicted),
        fmt=marker,
        color=color,
        markersize=8,
        markerfacecolor="none",
        elinewidth=0.6,
        alpha=0.55,
        label=f"{name}, predicted ({what})",
    )


def _reach(values: list[Estimated]) -> list[list[float]]:
    low = [max(each.value - each.low, 0.0) for each in values]
    return [low, [max(each.high - each.value, 0.0) for each in values]]
