"""A certificate is wrong with a small, stated probability.

Each image's certificate is a bet at the level alpha; with 0.05 one of twenty is wrong by chance.
The published ones use 0.001.

What to do: `--alpha 0.001`.
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

_USUAL, _MOST = 0.001, 0.05


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("alpha", ONE, float(evaluation.settings["procedure"]["alpha"]))
    yield Value("images", ONE, float(len(evaluation.recorded.samples)))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    alpha, n = numbers.one("alpha"), int(numbers.one("images"))
    told = f"alpha {alpha:g}: of {n} certificates {alpha * n:.2g} are wrong by chance on average"
    if alpha >= _MOST:
        return failed(told, alpha, n=n)
    return (open_question if alpha > _USUAL else passed)(told, alpha, n=n)


CHECK = Check(
    name="certificate-alpha",
    about="a certificate is wrong with a probability of at most 0.001",
    source="[Cohen2019]",
    threshold="0.05* and more; above 0.001 is inconclusive",
    verb="certify",
    measure=_measure,
    judge=_judge,
    settle="advpure certified-accuracy RUN --alpha 0.001 reads the same counts",
)
