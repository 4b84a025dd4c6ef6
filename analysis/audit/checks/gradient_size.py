"""Gradients are neither nothing nor everything.

A gradient of 1e-12 is one that vanished on its way through a chain; one of 1e8 exploded there,
and its direction is that of rounding. The Euclidean norm of the margin's gradient is looked at.

What to do: exact gradients, in float64 where they explode; `advpure check-grad`.
"""

import statistics
from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_LEAST, _MOST = 1e-12, 1e8


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    slope = evaluation.slope(evaluation.inside, evaluation.batch)
    norms = slope.gradient.double().flatten(1).norm(dim=1)
    for i, norm in zip(evaluation.batch.ids.tolist(), norms.tolist(), strict=True):
        yield Value("norm", i, norm)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    norms = numbers.values("norm")
    middle, most = statistics.median(norms), max(norms)
    told = f"the margin's gradient has a norm of {middle:.3g} (median), at most {most:.3g}"
    wrong = middle < _LEAST or most > _MOST
    return (failed if wrong else passed)(told, middle, n=len(norms))


CHECK = Check(
    name="gradient-size",
    about="gradients neither vanish nor explode",
    source="[Athalye2018]",
    threshold="median norm below 1e-12*, or one above 1e8*",
    needs="gradient",
    cost=lambda settings: 1,
    measure=_measure,
    judge=_judge,
    settle="advpure check-grad, or --gradient bpda",
)
