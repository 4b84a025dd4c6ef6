"""What the attack climbs is what makes it succeed.

An objective that rises while the answer stays right is the wrong objective: of a part of the
chain, of another label, or of a detector that is not the decision. Over images, the final loss
has to be larger where the image is fooled.

What to do: optimise the decision itself, end to end, with the margin.
"""

from collections.abc import Iterator

from scipy.stats import mannwhitneyu

from advpure.analysis.audit.check import (
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

_FEW, _ALPHA = 4, 0.025


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    robust = evaluation.recorded.robust
    for i, loss in evaluation.recorded.attacked("loss").items():
        yield Value("loss", i, loss)
        yield Value("right", i, robust[i])


def _judge(numbers: Measured, settings: Settings) -> Finding:
    loss, right = numbers.by_image("loss"), numbers.by_image("right")
    fooled = [loss[i] for i in loss if right[i] < 0.5]
    held = [loss[i] for i in loss if right[i] >= 0.5]
    n = len(loss)
    if min(len(fooled), len(held)) < _FEW:
        told = f"{len(fooled)} of {n} images are fooled: too few of a kind"
        return open_question(told, n=n, settle="take more images, or another --eps")
    test = mannwhitneyu(fooled, held, alternative="less")
    above = float(test.statistic) / (len(fooled) * len(held))
    told = (
        f"the loss of a fooled image is larger than that of another in {100 * above:.0f} % of pairs"
    )
    if above < 0.5 and test.pvalue < _ALPHA:
        return failed(told, above, n=n)
    return passed(told, above, n=n) if above >= 0.5 else open_question(told, above, n=n)


CHECK = Check(
    name="loss-tracks-success",
    about="the final loss is larger where the image is fooled",
    source="[Tramer2020]",
    threshold="smaller, by a one-sided rank test at 2.5 %*",
    measure=_measure,
    judge=_judge,
    settle="climb the margin: --loss margin",
)
