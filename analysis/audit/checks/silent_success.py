"""What the attack found is what it returned.

An attack that passes through an adversarial image and returns a later one that is not has
succeeded, and the image counts as robust. Returning the last iterate without stopping at success
does that.

What to do: `--iterate best` or `--stop success`.
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
    for i, lost in evaluation.recorded.attacked("lost").items():
        yield Value("lost", i, float(lost))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    return failed_by_any(
        numbers, "lost", "images were fooled by an earlier iterate than the returned one"
    )


CHECK = Check(
    name="silent-success",
    about="no earlier iterate fools where the returned one does not (indicator I3)",
    source="[Pintor2022]",
    threshold="any image",
    measure=_measure,
    judge=_judge,
    settle="run again with --iterate best, or --stop success",
)
