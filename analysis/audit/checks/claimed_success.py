"""An image that fools the attack's own test fools the decision.

Under fixed randomness both are one function, so a success that is gone when the decision falls
means that the attack saw another model: another checkpoint, another preprocessing, a stand-in or
another seed. Then the decision measures how well attacks carry over, not how robust the defense
is.

What to do: attack the very defense that decides.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed_by_any,
    is_fixed,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    robust = evaluation.recorded.robust
    for i, fooled in evaluation.recorded.attacked("fooled").items():
        yield Value("vanished", i, float(bool(fooled) and robust[i] > 0))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    return failed_by_any(
        numbers, "vanished", "images fool the attack's own test and not the decision"
    )


CHECK = Check(
    name="claimed-success",
    about="what fools in the attack's own test fools the decision (indicator I5)",
    source="[Pintor2022]",
    threshold="any image, under fixed randomness",
    applies=is_fixed,
    measure=_measure,
    judge=_judge,
    settle="attack the defense that decides: leave out --transfer-from",
)
