"""Sigma is in units of images in [0, 1].

Noise of 0.25 in [-1, 1] units is 0.125 here, and one of 64 grey levels 0.25: a factor that goes
into every radius. What is beyond 2 is no noise level of images in [0, 1].

What to do: state sigma for images in [0, 1]; halve what a paper states for [-1, 1].
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
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_MOST = 2.0


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("sigma", ONE, float(max(evaluation.settings["procedure"]["sigmas"])))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    sigma = numbers.one("sigma")
    told = f"the largest sigma is {sigma:g} for images in [0, 1]"
    return (failed if sigma > _MOST else passed)(told, sigma)


CHECK = Check(
    name="certificate-sigma",
    about="the noise level is one of images in [0, 1]",
    source="[Cohen2019]",
    threshold="above 2*",
    verb="certify",
    measure=_measure,
    judge=_judge,
    settle="give sigma in [0, 1] units, such as 0.25",
)
