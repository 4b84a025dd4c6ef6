"""Accuracy falls as the ball grows, down to chance.

A larger ball holds the smaller one, so what fools an image in one fools it in the next: an attack
that is run with more room and then fails has lost what it had. Accuracy that does not fall with
epsilon, or stays above chance where the change drowns the image, is that of an attack that fails.
The evaluation's own attack is run with half, once, two, four and eight times the radius.

What to do: look for zero, wrong or saturated gradients.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from advpure.analysis.audit.attempts import fewer, most, own_cost
from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_fixed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import FRESH_DECISIONS, Evaluation
from advpure.statistics.rates import Interval, mean_interval, paired_difference, rate_of_means

_FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)
_STANDS, _LEFT = 0.1, 0.5


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.batch
    most_room = 0.99 if evaluation.norm == "linf" else float("inf")
    size = evaluation.settings["attack"].get("step_size")
    labels = {row["label"] for row in evaluation.recorded.decisions}
    answers = {row["prediction"] for row in evaluation.recorded.decisions}
    yield Value("classes", ONE, float(max(labels | answers) + 1))
    for factor in _FACTORS:
        eps = min(factor * evaluation.eps, most_room)
        changes: dict[str, Any] = {"eps": eps} | fewer(evaluation)
        if size is not None:
            changes["step_size"] = size * eps / evaluation.eps
        result = evaluation.own_attack(batch, **changes)
        for i, right in evaluation.right(result.images, batch).items():
            yield Value(_at(factor), i, right)


def _at(factor: float) -> str:
    return f"right at {factor:g}"


def _judge(numbers: Measured, settings: Settings) -> Finding:
    curve = [numbers.mean(_at(factor)) for factor in _FACTORS]
    n = len(numbers.values(_at(1.0)))
    told = f"{', '.join(f'{100 * each:.0f}' for each in curve)} % are right at 1/2, 1, 2, 4 and 8 "
    told += "epsilon"
    risen = [
        _rise(numbers.by_image(_at(less)), numbers.by_image(_at(more)), settings)
        for less, more in pairwise(_FACTORS)
    ]
    worst = max(risen, key=lambda each: each.low)
    last = rate_of_means(numbers.values(_at(_FACTORS[-1])))
    if worst.low > 0:
        return failed(f"{told}: images come back in a larger ball", curve[-1], n=n, interval=worst)
    if curve[-1] > _LEFT and curve[0] - curve[-1] < _STANDS:
        return failed(f"{told}: it does not fall", curve[-1], n=n)
    more = {"n": n, "interval": Interval(last.low, last.high)}
    chance = 1 / max(numbers.one("classes"), 2.0)
    return (open_question if last.low > chance else passed)(told, curve[-1], **more)


def _rise(less: dict[int, float], more: dict[int, float], settings: Settings) -> Interval:
    """Return the 95 % interval of the share of images that come back in the larger ball.

    Under fixed randomness those are single images (Tango's interval of the worse of the two balls
    against the larger); under fresh randomness it is the mean rise (Student's).
    """
    ids = sorted(less)
    if is_fixed(settings):
        worse = [min(less[i], more[i]) for i in ids]
        drop = paired_difference([more[i] for i in ids], worse)
        return Interval(max(drop.low, 0.0), drop.high)
    mean = mean_interval([more[i] - less[i] for i in ids], within=(-1, 1))
    return Interval(-1.0, 1.0) if mean.interval is None else mean.interval


CHECK = Check(
    name="radius-ladder",
    about="accuracy falls with the radius, image by image, to chance at 8 epsilon",
    source="[Carlini2019], [Athalye2018]",
    threshold="images that come back in a larger ball (paired difference beyond 0), or more than "
    "half left at 8 epsilon with no fall*; above chance there is inconclusive",
    needs="attack",
    cost=lambda settings: (
        len(_FACTORS)
        * (min(own_cost(settings), most(settings)) + (1 if is_fixed(settings) else FRESH_DECISIONS))
    ),
    thorough=True,
    measure=_measure,
    judge=_judge,
    settle="run --attack standard at several --eps",
)
