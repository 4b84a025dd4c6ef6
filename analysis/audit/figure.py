"""The figure of an audit: how many checks pass, fail and stay open."""

from pathlib import Path

from advpure.analysis.audit.check import Status
from advpure.analysis.audit.study import Audit
from advpure.plots.charts import Points, Words, dots
from advpure.runs.records import RecordStore

_PLACES: dict[Status, float] = {"fail": 0.0, "inconclusive": 1.0, "pass": 2.0}


def audit_figure(store: RecordStore, path: Path) -> Path:
    """Draw the verdict of every check.

    Raises:
        BadInput: for a file of another ending than .png, .svg and .pdf.
        StorageFull: when there is no room.
    """
    report = Audit.report(store)
    names = [check.name for check in report.findings]
    verdicts = [found.status for found in report.findings.values()]
    groups: dict[str, Points] = {
        status: Points(
            x=[place] * verdicts.count(status),
            y=[row for row, verdict in enumerate(verdicts) if verdict == status],
        )
        for status, place in _PLACES.items()
        if status in verdicts
    }
    words = Words(
        x="0: fails, 1: inconclusive, 2: passes",
        y="check",
        title=report.display().headline.partition(" (")[0],
        caption=f"{report.passes:,} passes through the defense",
    )
    return dots(groups, names, path, words)
