"""Gradients of a random defense are means over several draws.

One draw of the noise gives one direction among many; following it climbs the loss of a defense
that never decides. The guideline is expectation over transformation. How noisy the mean really
is, is measured by `gradient-noise`.

What to do: `--eot 16`, or `--attack standard`, which takes 16.
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
    is_fixed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.robustness.wording import FEW_DRAWS


def _applies(settings: Settings) -> bool:
    return not is_fixed(settings) and "eot" in settings["attack"]


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("eot", ONE, float(evaluation.settings["attack"]["eot"]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    draws = numbers.one("eot")
    told = f"{draws:.0f} draw{'s' if draws > 1 else ''} a gradient of a random defense"
    if draws == 1:
        return failed(told, draws)
    return open_question(told, draws) if draws < FEW_DRAWS else passed(told, draws)


CHECK = Check(
    name="gradient-draws",
    about="a gradient of a random defense is a mean over 8 draws or more",
    source="[Athalye2018]",
    threshold="one draw; fewer than 8* are inconclusive",
    applies=_applies,
    measure=_measure,
    judge=_judge,
    settle="run again with --eot 16",
)
