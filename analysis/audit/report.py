"""What an audit tells: every check with its verdict, the number behind it, and what settles it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advpure.analysis.audit.check import Check, Finding, Status
from advpure.analysis.study import Report
from advpure.base.display import Display

ORDER: tuple[Status, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True, kw_only=True)
class AuditReport(Report):
    """The verdicts of an audit, computed from its records.

    Attributes:
        findings: Check to verdict, in the order of the registry.
        passes: Forward passes through the defense of the probes, and of the evaluation where the
            audit made it, all images together.
    """

    findings: Mapping[Check, Finding]
    passes: int

    @property
    def exit_code(self) -> int:
        """1 where a check fails, else 0."""
        return int(any(found.status == "fail" for found in self.findings.values()))

    def count(self, status: Status) -> int:
        """Return how many checks have a verdict."""
        return sum(found.status == status for found in self.findings.values())

    def tree(self) -> dict[str, Any]:
        """Return the counts and every verdict, by the name of its check."""
        return {
            "verdict": next(each for each in ORDER if self.count(each) or each == "pass"),
            **{status: self.count(status) for status in ORDER},
            "passes": self.passes,
            "checks": {
                check.name: {
                    **found.to_json(),
                    "about": check.about,
                    "threshold": check.threshold,
                    "source": check.source,
                    "page": check.page,
                }
                for check, found in self.findings.items()
            },
        }

    def display(self) -> Display:
        """Return every verdict, failures first, and what settles those that are no pass."""
        counts = f"{self.count('fail')} of {len(self.findings)} checks fail"
        headline = (
            f"audit of {self.settings['of']}: {counts}, {self.count('inconclusive')} are "
            f"inconclusive ({self.passes:,} passes through the defense)"
        )
        ordered = sorted(self.findings.items(), key=lambda each: ORDER.index(each[1].status))
        wide = max(len(check.name) for check in self.findings) if self.findings else 0
        parts = [f"{each.status:<12}  {name.name:<{wide}}  {each.words}" for name, each in ordered]
        for check, found in ordered:
            if found.status != "pass" and found.settle:
                parts.append(f"{check.name}: {found.settle}")
        return Display(headline, parts)
