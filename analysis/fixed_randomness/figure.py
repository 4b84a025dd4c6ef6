"""The picture of a comparison of fixed with fresh randomness, from the records of a run alone.

Left: accuracy on attacked images under each protocol with its 95 % interval, clean accuracy beside.
Right: how alike the perturbations are that attacks find, one correlation an image.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from advpure.analysis.fixed_randomness.layout import EOT
from advpure.analysis.fixed_randomness.result import Accuracy, RandomnessResult
from advpure.analysis.fixed_randomness.study import FixedRandomness
from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.plots.figures import PALETTE, check_ending, draw_histogram, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def randomness_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a run.

    Raises:
        BadInput: for a run without a finished image, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    report = FixedRandomness.report(store)
    result, s = report.result, report.settings
    figure = new_figure(10.4, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    _draw_accuracies(left, result, s["attack"]["name"])
    groups = {each.pair: list(each.by_image["pearson"].values()) for each in result.correlated()}
    values = {pair: group for pair, group in groups.items() if group}
    if values:
        right.axvline(0.0, color="#777777", linewidth=0.8)
        draw_histogram(right, values, "correlation of two perturbations of an image")
    else:
        right.text(0.5, 0.5, "no image was changed", ha="center", transform=right.transAxes)
        right.set_axis_off()
    model, seeds = s["threat_model"], ", ".join(map(str, s["seeds"]))
    figure.suptitle(
        f"{strength_text(s['defense'])} on {s['dataset']}, {model['norm']} {model['eps']:.4g}, "
        f"{attack_text(s)}: "
        f"{len(result.ids)} images, base seeds {seeds}",
        fontsize=10,
    )
    figure.subplots_adjust(wspace=0.28)
    return save_figure(figure, path)


def _draw_accuracies(axes: "Axes", result: RandomnessResult, attack: str) -> None:
    protocols: dict[str, tuple[Accuracy | None, Accuracy | None]] = {
        f"{attack}, fixed": (result.fixed("clean"), result.fixed("attacked")),
        f"{attack}, fresh": (result.fresh("clean"), result.fresh("attacked")),
        f"{attack}-eot, fresh": (result.fresh("clean", EOT), result.fresh("attacked", EOT)),
        f"{attack}, transfer": (result.fixed("clean"), result.transfer()),
    }
    shown = {name: pair for name, pair in protocols.items() if pair[1] is not None}
    for k, (label, marker) in enumerate((("clean", "o"), ("attacked", "s"))):
        rates = [each.rate for pair in shown.values() if (each := pair[k]) is not None]
        # Beside each other, so that equal values stay apart.
        heights = [row + (0.12 if k == 0 else -0.12) for row in range(len(rates))]
        reach = [
            [100 * (r.value - r.low) for r in rates],
            [100 * (r.high - r.value) for r in rates],
        ]
        axes.errorbar(
            [100 * r.value for r in rates],
            heights,
            xerr=reach,
            fmt=marker,
            color=PALETTE[k],
            capsize=2.5,
            markersize=5,
            linewidth=1.3,
            label=label,
        )
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy, % (95 % interval over images)")
    axes.grid(axis="x", linewidth=0.4, color="#cccccc")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
