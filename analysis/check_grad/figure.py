"""The figure of a gradient check: the relative error of every comparison, one line a purifier."""

import math
from pathlib import Path

from advpure.analysis.check_grad.gradients import BOUNDED
from advpure.analysis.check_grad.study import CheckGrad
from advpure.plots.charts import Points, Words, dots
from advpure.runs.records import RecordStore

_ENDS = (1e-17, 1e3)  # what is smaller or larger is drawn there, equal gradients and all


def errors_figure(store: RecordStore, path: Path) -> Path:
    """Draw the errors of a run.

    Raises:
        BadInput: for a file of another ending than .png, .svg and .pdf.
        StorageFull: when there is no room.
    """
    report = CheckGrad.report(store)
    low, high = _ENDS
    groups = {}
    for kind in BOUNDED:
        errors = [getattr(check, kind).error for check in report.checks]
        exponents = [math.log10(min(max(error, low), high)) for error in errors]
        groups[kind.replace("_", " ")] = Points(x=exponents, y=list(range(len(errors))))
    s = report.settings
    bounds = ", ".join(f"{name.replace('_', ' ')} {bound:g}" for name, bound in s["bounds"].items())
    words = Words(
        x="log10 of the relative error",
        y="purifier",
        title=f"Gradients on {s['dataset']}",
        caption=f"{s['n']} images, {s['directions']} directions each. Bounds: {bounds}.",
    )
    return dots(groups, [check.defense for check in report.checks], path, words)
