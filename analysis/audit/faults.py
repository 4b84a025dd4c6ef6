"""Checks of what every other verb refuses: a flaw of the model itself, known by its name.

A run that is recorded was not refused, so its model had none of these flaws when it was asked.
"""

from collections.abc import Iterator, Mapping

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.base.errors import FAULTS

UNKEYED = "unrepeatable"
"""The flaw that fresh randomness allows: draws that no key controls."""
_NAMES: set[str] = set()


def fault_check(*, name: str, about: str, source: str, faults: Mapping[str, str]) -> Check:
    """Return the check of some flaws, what to do about each by its name in `FAULTS`."""
    _NAMES.add(name)

    def measure(evaluation: Evaluation) -> Iterator[Value]:
        for fault in faults:
            yield Value(fault, ONE, float(evaluation.fault == fault))
        if UNKEYED in faults and evaluation.loaded and not evaluation.is_controlled:
            yield Value("no keys", ONE, 1.0)

    def judge(numbers: Measured, settings: Settings) -> Finding:
        there = [fault for fault in faults if numbers.one(fault)]
        if there:
            return failed(f"the model {FAULTS[there[0]]}", 1.0, settle=faults[there[0]])
        if numbers.has("no keys"):
            return open_question("two equal calls differ under fresh randomness: `clock` asks why")
        return passed(f"the model was asked twice: none {FAULTS[next(iter(faults))]}", 0.0)

    return Check(
        name=name,
        about=about,
        source=source,
        threshold="any",
        measure=measure,
        judge=judge,
    )


def is_about_faults(check: Check) -> bool:
    """Return whether a check is about what a model is refused for."""
    return check.name in _NAMES
