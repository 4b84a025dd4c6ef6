"""The picture of accuracy and compression against the time step, from the records of a run alone.

Left: accuracy on clean, noisy and attacked images under one fixed configuration. Right: the
expected compression rate. Bands are 95 % intervals over images ([Wei2025], figure S6).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from advpure.analysis.robustness.wording import attack_text
from advpure.analysis.timesteps.study import Timesteps
from advpure.plots.charts import draw_band
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Mean, Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {"clean": ("-", "o"), "noise": ("--", "s"), "attacked": ("-.", "^")}


def timesteps_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a run.

    Raises:
        BadInput: for a run without a finished time step, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    report = Timesteps.report(store)
    s, steps = report.settings, report.steps
    figure = new_figure(9.6, 3.4)
    left, right = figure.subplots(1, 2)
    for index, (name, (style, marker)) in enumerate(_STYLES.items()):
        known = [(step.t, getattr(step, name)) for step in steps]
        rates: list[tuple[int, Rate]] = [(t, rate) for t, rate in known if rate is not None]
        label = f"attacked ({s['attack']['name']})" if rates and name == "attacked" else name
        _curve(
            left,
            [t for t, _ in rates],
            [100 * r.value for _, r in rates],
            [100 * r.low for _, r in rates],
            [100 * r.high for _, r in rates],
            style,
            marker,
            PALETTE[index],
            label,
        )
    left.set_ylim(-2, 102)
    left.set_ylabel("accuracy, %")
    kept: list[tuple[int, Mean]] = [(step.t, step.cr) for step in steps if step.cr is not None]
    ends = [mean.interval or (mean.value, mean.value) for _, mean in kept]
    _curve(
        right,
        [t for t, _ in kept],
        [mean.value for _, mean in kept],
        [low for low, _ in ends],
        [high for _, high in ends],
        "-",
        "o",
        PALETTE[3],
        "compression rate",
    )
    right.set_ylim(bottom=0.0)
    right.set_ylabel("expected compression rate")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("time step t")
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    model, eps = s["threat_model"], s["compression"]["eps"][0]
    attack = f", {attack_text(s)}" if s["attack"] else ""
    figure.suptitle(
        f"{s['defense']['purifier']} on {s['dataset']}: {steps[0].clean.n} images, one "
        f"configuration (seed {s['randomness']['seed']}), {model['norm']} {model['eps']:.4g}"
        f"{attack}; compression at {255 * eps:.3g}/255",
        fontsize=10,
    )
    figure.subplots_adjust(wspace=0.25)
    return save_figure(figure, path)


def _curve(
    axes: "Axes",
    x: Sequence[float],
    y: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    style: str,
    marker: str,
    color: str,
    label: str,
) -> None:
    if x:
        draw_band(axes, x, low, high, color, alpha=0.15)
        axes.plot(x, y, style, marker=marker, markersize=4, linewidth=1.5, color=color, label=label)
