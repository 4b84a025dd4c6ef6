"""The attack sees a gradient at every image.

An exactly zero gradient leaves a gradient attack where it stands. That is a property of how the
defense computes (rounding, a detached step, a saturated loss), not of where its decisions are,
and an attack that asks for no gradient usually gets through. The standard attack leaves such images
to Square, which may fool them all: the flaw is one of the model, and fails all the same.

What to do: `--gradient bpda`, a `surrogate` of the purifier, or `--attack square`.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed_by_any,
    is_random,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.attacks.standard import StandardSettings


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    recorded = evaluation.recorded
    looks = _looks(evaluation.settings)
    members, backwards = recorded.attacked("member"), recorded.attacked("backwards")
    for i, zero in recorded.attacked("zero_gradient").items():
        left_to_search = members.get(i) == "square" and backwards[i] == looks
        yield Value("zero", i, float(zero or left_to_search))


def _looks(settings: Settings) -> int | None:
    """Return the backward passes by which the standard attack looks for a gradient."""
    attack = settings["attack"]
    if attack["name"] != "standard":
        return None
    known = {name: value for name, value in attack.items() if name != "name"}
    steady = {} if is_random(settings) else {"randomness": "fixed"}
    return StandardSettings(**{**known, **steady}).look


def _judge(numbers: Measured, settings: Settings) -> Finding:
    return failed_by_any(numbers, "zero", "images gave the attack an exactly zero gradient")


CHECK = Check(
    name="zero-gradient",
    about="no image has an exactly zero gradient (indicator I1)",
    source="[Pintor2022], [Croce2020]",
    threshold="any image",
    measure=_measure,
    judge=_judge,
    settle="run with --gradient bpda, or --attack square, and compare",
)
