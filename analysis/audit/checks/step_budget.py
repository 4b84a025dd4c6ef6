"""The steps of the attack can cross the ball.

From one end of a linf ball to the other is 2 epsilon; steps that travel less cannot reach most of
its corners, however good their direction. The guideline asks for 100 to 1000 iterations of 1/255
at 8/255. Whether more or larger steps fool more is measured by `more-steps` and `step-sizes`.

What to do: `--step-size` of 2.5 epsilon / steps, or `--attack standard`, which chooses its own.
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
from advpure.analysis.robustness.wording import step_of

_LEAST, _ENOUGH, _FEW = 1.0, 2.0, 20


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    attack = evaluation.settings["attack"]
    size = step_of(attack)
    if size is not None and attack.get("steps"):
        yield Value("travel", ONE, attack["steps"] * size / evaluation.eps)
    if "steps" in attack:
        yield Value("steps", ONE, float(attack["steps"]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if not numbers.has("steps"):
        return passed("the attack has no steps of a given size", 0.0)
    steps = numbers.one("steps")
    if not numbers.has("travel"):
        told = f"{steps:.0f} steps whose size the attack chooses itself"
        return open_question(told, steps) if steps < _FEW else passed(told, steps)
    travel = numbers.one("travel")
    told = f"{steps:.0f} steps travel {travel:.3g} epsilon"
    if travel < _LEAST * (1 - 1e-9) or steps < 2:
        return failed(f"{told}; the ball is 2 wide", travel)
    if travel < _ENOUGH * (1 - 1e-9) or steps < _FEW:
        return open_question(f"{told}; the ball is 2 wide", travel)
    return passed(told, travel)


CHECK = Check(
    name="step-budget",
    about="the steps travel 2 epsilon and are 20 or more",
    source="[Carlini2019]",
    threshold="below 1 epsilon*, or a single step; below 2 epsilon or 20 steps* is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="run --attack standard on the same images",
)
