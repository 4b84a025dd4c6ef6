"""Other draws of the noise decide the same.

What was chosen by the draws that decide looks stronger, or weaker, in them than it is: the best
of twenty candidates by twenty draws is lucky there. The evaluation's adversarial images are
decided again in draws that nothing has seen.

What to do: choose and decide in disjoint draws, as `advpure attack` does.
"""

from collections.abc import Iterator

from advpure.analysis.audit.attempts import own_cost
from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_fixed,
    passed,
)
from advpure.analysis.audit.evaluation import FRESH_DECISIONS, Evaluation
from advpure.statistics.rates import mean_interval

_TIE = 0.03


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    again = evaluation.right(evaluation.adversarial, evaluation.batch)
    for i, right in again.items():
        yield Value("again", i, right)
        yield Value("recorded", i, evaluation.before[i])


def _judge(numbers: Measured, settings: Settings) -> Finding:
    again, recorded = numbers.by_image("again"), numbers.by_image("recorded")
    gaps = mean_interval([again[i] - recorded[i] for i in again], within=(-1, 1))
    told = f"new draws of the noise change the accuracy by {100 * gaps.value:+.1f} points"
    more = {"n": gaps.n, "interval": gaps.interval}
    low, high = gaps.interval or (-1.0, 1.0)
    return (failed if low > _TIE or high < -_TIE else passed)(told, gaps.value, **more)


CHECK = Check(
    name="fresh-decisions",
    about="new draws of the noise leave the accuracy as it is",
    source="[Athalye2018], [Lee2023]",
    threshold="Student's interval of the difference beyond 3 points*",
    needs="attack",
    applies=lambda settings: not is_fixed(settings),
    cost=lambda settings: FRESH_DECISIONS + (0 if settings.get("kept") else own_cost(settings)),
    measure=_measure,
    judge=_judge,
    settle="keep the images, --save-images, and decide again in other draws",
)
