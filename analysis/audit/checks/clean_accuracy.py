"""The defense classifies the images before they are attacked, and not all of them.

An accuracy at the level of chance is a wrong normalisation, checkpoint or label file, and
whatever follows from it means nothing. One of 100 % says that the images are too few, or too
easy, to tell what purification costs.

What to do: look at what the classifier is given; take more images.
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
    rate_words,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.statistics.rates import Interval, rate_of_means


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for i, right in evaluation.recorded.clean.items():
        yield Value("right", i, right)
    labels = {row["label"] for row in evaluation.recorded.decisions}
    answers = {row["prediction"] for row in evaluation.recorded.decisions}
    yield Value("classes", ONE, float(max(labels | answers) + 1))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    rate, chance = rate_of_means(numbers.values("right")), 1 / max(numbers.one("classes"), 2.0)
    told = f"clean accuracy {rate_words(rate)} on {rate.n} images"
    more = {"n": rate.n, "interval": Interval(rate.low, rate.high)}
    if rate.low <= chance and rate.value < 0.5:
        return failed(f"{told} is that of chance", rate.value, **more)
    if rate.value == 1.0:
        return open_question(f"{told}: too few or too easy to see a cost", rate.value, **more)
    return passed(told, rate.value, **more)


CHECK = Check(
    name="clean-accuracy",
    about="images are classified before the attack, and not all of them",
    source="[Carlini2019]",
    threshold="chance within the interval; 100 % is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="take more images, -n 200",
)
