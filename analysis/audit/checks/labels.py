"""The labels are those of the images.

Labels that count from 1, or come in another order than the images, make every answer wrong: the
attack has nothing to do, and a defense that was never attacked looks broken, or one whose labels
are wrong in the same way for both looks robust to what it never saw. A constant gap between
answer and label is how that shows.

What to do: compare a few images with their labels by eye.
"""

from collections import Counter
from collections.abc import Iterator

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
from advpure.analysis.robustness.protocol import CLEAN

_MOST = 0.5
_ENOUGH = 8


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    rows = [
        row for row in evaluation.recorded.decisions if row["stage"] == CLEAN and row["draw"] == 0
    ]
    classes = 1 + max(max(row["label"], row["prediction"]) for row in rows)
    gaps = Counter((row["prediction"] - row["label"]) % classes for row in rows)
    wrong = {gap: count for gap, count in gaps.items() if gap}
    gap, count = max(wrong.items(), key=lambda each: each[1], default=(0, 0))
    yield Value("gap", ONE, float(gap))
    yield Value("count", ONE, float(count))
    yield Value("images", ONE, float(len(rows)))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    count, n = numbers.one("count"), int(numbers.one("images"))
    told = f"{count:.0f} of {n} clean answers are their label plus {numbers.one('gap'):.0f}"
    if count / n > _MOST:
        told = f"{told}: the labels are shifted"
        return failed(told, count / n, n=n) if n >= _ENOUGH else open_question(told, count / n, n=n)
    return passed(told, count / n, n=n)


CHECK = Check(
    name="labels",
    about="no constant stands between answers and labels",
    source="[Carlini2019]",
    threshold="more than half of the clean answers are off by one constant*",
    measure=_measure,
    judge=_judge,
    settle="let labels count from 0, in the order of the images",
)
