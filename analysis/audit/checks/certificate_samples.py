"""There are enough noise samples for the radii that are asked for.

With N samples that all agree the lower bound of the class is alpha^(1/N), so the radius cannot
exceed sigma times its normal quantile: at alpha 0.001 ten samples certify nothing but a quarter
of sigma whatever the images, and a curve that ends early is one of the budget, not of the
defense.

What to do: `-N 100000`, or a larger sigma.
"""

from collections.abc import Iterator

from scipy.special import ndtri

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
    asked = evaluation.settings["procedure"]
    bound = asked["alpha"] ** (1 / asked["samples"])
    reach = max(asked["sigmas"]) * float(ndtri(bound)) if bound > 0.5 else 0.0
    yield Value("reach", ONE, reach)
    yield Value("asked", ONE, float(max(asked.get("radii") or [0.0])))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    reach, asked = numbers.one("reach"), numbers.one("asked")
    told = f"no image can get a radius above {reach:.3g}; {asked:.3g} is asked for"
    if reach <= 0:
        return failed("no image can be certified at all with so few samples", reach)
    return (passed if reach >= asked else open_question)(told, reach)


CHECK = Check(
    name="certificate-samples",
    about="the samples reach the radii that are asked for",
    source="[Cohen2019]",
    threshold="no radius possible; less than the largest asked for is inconclusive",
    verb="certify",
    measure=_measure,
    judge=_judge,
    settle="run again with more samples, -N 100000",
)
