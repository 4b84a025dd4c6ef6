"""Checks of what every other verb refuses: a flaw of the model itself, known by its name.

A run that is recorded was not refused, so its model had none of these flaws when it was asked.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.base.errors import FAULTS

_NAMES: set[str] = set()


def fault_check(
    *, name: str, about: str, source: str, faults: tuple[str, ...], settle: str
) -> Check:
    """Return the check of some flaws by name, see `advpure.base.errors.FAULTS`."""
    _NAMES.add(name)

    def measure(evaluation: Evaluation) -> Iterator[Value]:
        for fault in faults:
            yield Value(fault, ONE, float(evaluation.fault == fault))

    def judge(numbers: Measured, settings: Settings) -> Finding:
        there = [fault for fault in faults if numbers.one(fault)]
        if there:
            return failed(f"the model {FAULTS[there[0]]}", 1.0)
        return passed(f"the model was asked twice: none {FAULTS[faults[0]]}", 0.0)

    return Check(
        name=name,
        about=about,
        source=source,
        threshold="any",
        measure=measure,
        judge=judge,
        settle=settle,
    )


def is_about_faults(check: Check) -> bool:
    """Return whether a check is about what a model is refused for."""
    return check.name in _NAMES
