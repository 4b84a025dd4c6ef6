"""The checks that cost nothing: verdicts on records alone, for every run and every page."""

from collections.abc import Sequence
from typing import NamedTuple

from advpure.analysis.audit.check import Check, Finding, Measured
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.audit.recorded import Recorded
from advpure.analysis.audit.registry import checks
from advpure.runs.records import RecordStore


class Judged(NamedTuple):
    """A check and its verdict."""

    check: Check
    finding: Finding


def free_findings(store: RecordStore) -> list[Judged]:
    """Return the verdicts that the records of an attack or a certification give by themselves."""
    if store.settings.get("verb") not in ("attack", "certify"):
        return []
    recorded = Recorded.read(store)
    if not recorded.samples:
        return []
    evaluation = Evaluation(recorded=recorded)
    return [
        Judged(each, each.finding(Measured(each.measure(evaluation)), recorded.settings))
        for each in checks(recorded.settings, verb=recorded.verb)
        if each.is_free
    ]


def in_one_line(findings: Sequence[Judged]) -> str:
    """Return the free verdicts in a line, those that are no pass by name.

    Example:
        >>> in_one_line([])
        'audit: nothing to check'
    """
    if not findings:
        return "audit: nothing to check"
    names = {
        status: [each.check.name for each in findings if each.finding.status == status]
        for status in ("pass", "fail", "inconclusive")
    }
    parts = [f"audit: {len(names['pass'])} of {len(findings)} checks that cost nothing pass"]
    if names["fail"]:
        parts.append(f"fail: {', '.join(names['fail'])}")
    if names["inconclusive"]:
        parts.append(f"open: {', '.join(names['inconclusive'])}")
    return "; ".join(parts)
