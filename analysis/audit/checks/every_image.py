"""Every image that was asked for was decided.

Rows that are missing from the middle were taken out, or skipped where something failed: whoever
leaves out what does not fit reports another set than he names. Rows that are missing at the end
are of a run that is not over, which is open until it is. A decision and its margin say the same;
rows where they do not were edited.
It misses images that were left out before the run (`other-images`).

What to do: the same command goes on; delete the folder of a run whose rows were edited.
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
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    done = set(evaluation.recorded.samples)
    planned = {int(i) for i in evaluation.recorded.digests} | done
    last = max(done)
    yield Value("images", ONE, float(len(planned)))
    yield Value("missing", ONE, float(len(planned - done)))
    contradicting = sum(
        row["margin"] != 0 and row["correct"] != (row["margin"] > 0)
        for row in evaluation.recorded.decisions
    )
    yield Value("contradicting", ONE, float(contradicting))
    yield Value("between", ONE, float(sum(i < last for i in planned - done)))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    n, missing = int(numbers.one("images")), numbers.one("missing")
    told = f"{missing:.0f} of {n} images have no decision"
    if numbers.one("contradicting"):
        count = numbers.one("contradicting")
        return failed(f"{count:.0f} decisions are not those of their margins", count, n=n)
    if "until" in settings:
        return passed(f"{told}: the run stopped when its question was answered", missing, n=n)
    if numbers.one("between"):
        between = f"{numbers.one('between'):.0f} of them before the last that has one"
        return failed(f"{told}, {between}", missing, n=n)
    return (open_question if missing else passed)(told, missing, n=n)


CHECK = Check(
    name="every-image",
    about="no image was left out",
    source="[Carlini2019]",
    threshold="an image without a decision before the last, or a decision that is not that of its "
    "margin; at the end it is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="run its command again, which goes on",
)
