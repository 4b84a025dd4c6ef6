"""More steps fool nothing more.

An attack that still gains when its steps are doubled was stopped early. The evaluation's own
attack is run with twice the steps on what it left, and compared image by image.

What to do: `--steps` until doubling changes nothing, or `--attack standard`.
"""

from collections.abc import Iterator

from advpure.analysis.audit.attempts import own_cost, retried
from advpure.analysis.audit.check import Check, Settings, Value
from advpure.analysis.audit.evaluation import Evaluation


def _applies(settings: Settings) -> bool:
    return "steps" in settings["attack"]


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield from retried(evaluation, steps=2 * evaluation.settings["attack"]["steps"])


CHECK = Check(
    name="more-steps",
    about="twice the steps fool nothing more",
    source="[Carlini2019]",
    threshold="paired difference beyond 0 (Tango, 95 %); one image is inconclusive",
    needs="attack",
    applies=_applies,
    cost=lambda settings: 2 * own_cost(settings),
    measure=_measure,
    judge=retried.judge("twice the steps"),
    settle="run again with more --steps",
)
