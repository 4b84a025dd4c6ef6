"""The attack sees a gradient at every image.

An exactly zero gradient leaves a gradient attack where it stands. That is a property of how the
defense computes (rounding, a detached step, a saturated loss), not of where its decisions are,
and an attack that asks for no gradient usually gets through.

What to do: `--gradient bpda`, a `surrogate` of the purifier, or `--attack square`.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed_by_any,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for i, zero in evaluation.recorded.attacked("zero_gradient").items():
        yield Value("zero", i, float(zero))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    return failed_by_any(numbers, "zero", "images gave the attack an exactly zero gradient")


CHECK = Check(
    name="zero-gradient",
    about="no image has an exactly zero gradient (indicator I1)",
    source="[Pintor2022], [Croce2020]",
    threshold="any image",
    measure=_measure,
    judge=_judge,
    settle="run with --gradient bpda, or --attack square, and compare",
)
