"""Accuracy falls as the ball grows, down to chance.

A larger ball holds the smaller one, so an attack can only gain. Accuracy that does not fall with
epsilon, or stays above chance at large ones, is that of an attack that fails.

What to do: look for zero, wrong or saturated gradients.
"""

from collections.abc import Iterator
from itertools import pairwise

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

_FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, most = evaluation.batch, 0.99 if evaluation.norm == "linf" else float("inf")
    for factor in _FACTORS:
        eps = min(factor * evaluation.eps, most)
        result = evaluation.attack(
            "pgd", batch, eps=eps, steps=20, step_size=eps / 8, loss="margin"
        )
        for i, right in evaluation.right(result.images, batch).items():
            yield Value(f"right at {factor:g}", i, right)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    curve = [numbers.mean(f"right at {factor:g}") for factor in _FACTORS]
    n = len(numbers.values("right at 1"))
    steps = ", ".join(f"{100 * value:.0f}" for value in curve)
    told = f"{steps} % are right at 1/2, 1, 2, 4 and 8 epsilon"
    rise = max(later - earlier for earlier, later in pairwise(curve))
    if rise > 2 / n**0.5 or (curve[-1] > 0.5 and curve[0] - curve[-1] < 0.1):
        return failed(told, curve[-1], n=n)
    return (open_question if curve[-1] > 0.2 else passed)(told, curve[-1], n=n)


CHECK = Check(
    name="radius-ladder",
    about="accuracy falls with the radius, to chance at 8 epsilon",
    source="[Carlini2019], [Athalye2018]",
    threshold="a rise beyond its error, or more than half left at 8 epsilon with no fall*",
    needs="attack",
    cost=lambda settings: 5 * 32,
    thorough=True,
    measure=_measure,
    judge=_judge,
    settle="run --attack standard at several --eps",
)
