"""There are enough images for what is claimed.

Of 20 images one is 5 points, and the 95 % interval of a robust accuracy of 50 % is 41 points
wide. A difference of two defenses that is smaller than that is no difference. This is never a
failure: the number is honest, and says little.

What to do: more images; compare two defenses on the same ones, `advpure compare`.
"""

import math
from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    open_question,
    passed,
    rate_words,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.statistics.rates import Interval, rate_of_means

_WIDEST = 0.1


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for i, right in evaluation.recorded.robust.items():
        yield Value("right", i, right)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    rate = rate_of_means(numbers.values("right"))
    half = (rate.high - rate.low) / 2
    told = (
        f"robust accuracy {rate_words(rate)} on {rate.n} images, {100 * half:.1f} points each way"
    )
    more = {"n": rate.n, "interval": Interval(rate.low, rate.high)}
    if half <= _WIDEST:
        return passed(told, half, **more)
    spread = max(rate.value * (1 - rate.value), 0.05)
    needed = 50 * math.ceil(1.96**2 * spread / _WIDEST**2 / 50)
    settle = f"the same command with -n {max(needed, 2 * rate.n)}"
    return open_question(told, half, settle=settle, **more)


CHECK = Check(
    name="sample-size",
    about="the interval of the robust accuracy is at most 10 points each way",
    source="[Carlini2019]",
    threshold="never a failure; wider than 10 points each way* is inconclusive",
    measure=_measure,
    judge=_judge,
)
