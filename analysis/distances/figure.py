"""The picture of distances along the chain, from the records of a run alone ([Wei2025], figure 1c).

Above l2, below l-inf: the mean over images after every step, with a band of one standard deviation
over images; the forward phase is shaded. One line a perturbation.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from advpure.analysis.distances.result import STEPS, DistancesResult
from advpure.analysis.robustness.wording import strength_text
from advpure.base.errors import BadInput
from advpure.plots.figures import PALETTE, check_ending, new_figure, save_figure
from advpure.runs.records import RecordStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", "--", "-.", ":")
_NAMES = {"l2": "L2", "linf": "L-inf"}


def distances_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw a run.

    Raises:
        BadInput: for a run without records, more perturbations than colours, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    result, s = DistancesResult(store), store.settings
    labels = result.labels
    if not 1 <= len(labels) <= len(PALETTE):
        rule = f"are not 1 to {len(PALETTE)}"
        raise BadInput(f"{len(labels)} perturbations", rule, "draw a run of fewer")
    forward = sum(row["phase"] == "forward" for row in store.rows(STEPS.table))
    figure = new_figure(6.4, 5.6)
    panels: tuple[Axes, Axes] = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.08})
    counts = set()
    for index, label in enumerate(labels):
        ids, *norms = result.states(label)
        counts.add(len(ids))
        color, style = PALETTE[index], _STYLES[index % len(_STYLES)]
        for axes, values in zip(panels, norms, strict=True):
            steps = np.arange(values.shape[1])
            mean = values.mean(axis=0)
            axes.plot(
                steps,
                mean,
                color=color,
                linestyle=style,
                linewidth=1.6,
                label=label,
                marker="o" if len(steps) < 12 else None,
                markersize=3.5,
            )
            if len(ids) > 1:
                spread = values.std(axis=0, ddof=1)
                low, high = mean - spread, mean + spread
                axes.fill_between(steps, low, high, color=color, alpha=0.13, linewidth=0)
    for axes, name in zip(panels, _NAMES, strict=True):
        axes.set_ylabel(f"{_NAMES[name]} distance to the\nclean image, [0, 1] units")
        axes.set_ylim(bottom=0.0)
        axes.spines[["top", "right"]].set_visible(False)
        if forward:
            axes.axvspan(0, forward, color="#000000", alpha=0.05, linewidth=0)
    panels[0].set_xlim(0, max(store.count(STEPS.table), 1))
    panels[0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    where = "forward phase shaded, then reverse" if forward else "reverse phase only"
    panels[1].set_xlabel(f"step of the chain ({where})")
    n = "/".join(map(str, sorted(counts)))
    panels[0].set_title(f"{strength_text(s['defense'])} on {s['dataset']}", fontsize=10)
    panels[1].annotate(
        f"mean over {n} images, band: one standard deviation over images; seed "
        f"{s['randomness']['seed']}",
        xy=(0.5, 0.0),
        xycoords="axes fraction",
        xytext=(0, -44),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color="#444444",
    )
    return save_figure(figure, path)
