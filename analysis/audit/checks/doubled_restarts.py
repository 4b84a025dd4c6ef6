"""Twice as many starts fool nothing more.

The guideline asks for ten random starts and more, until twice as many change nothing. The
evaluation's own attack is run on what it left with twice its restarts, twenty at least; the
standard attack, whose lanes start at points of their own, with twice its budget.

What to do: `--attack-option restarts=20`, or a larger `--budget`.
"""

from collections.abc import Iterator
from typing import Any

from advpure.analysis.audit.attempts import PAIRED, retried
from advpure.analysis.audit.check import Check, Settings, Value
from advpure.analysis.audit.evaluation import Evaluation

_LEAST = 20


def _changes(attack: Settings) -> dict[str, Any]:
    """Return what doubles the starts of an attack."""
    if attack["name"] == "standard":
        return {"budget": 2 * attack["budget"], "seed": attack["seed"] + 1}
    return {
        "restarts": max(2 * attack["restarts"], _LEAST),
        "random_start": True,
        "seed": attack["seed"] + 1,
    }


def _cost(settings: Settings) -> int:
    attack = settings["attack"]
    if attack["name"] == "standard":
        return 2 * int(attack["budget"])
    once = (
        attack["steps"] * attack.get("eot", 1) + 3 + (0 if attack["randomness"] == "fixed" else 20)
    )
    return int(_changes(attack)["restarts"] * once)


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield from retried(evaluation, **_changes(evaluation.settings["attack"]))


CHECK = Check(
    name="doubled-restarts",
    about="twice the starts, twenty at least, fool nothing more",
    source="[Carlini2019]",
    threshold=PAIRED,
    needs="attack",
    applies=lambda settings: (
        settings["attack"]["name"] == "standard" or "restarts" in settings["attack"]
    ),
    cost=_cost,
    thorough=True,
    measure=_measure,
    judge=retried.judge("the attack from twice as many starts"),
    settle="run again with more --attack-option restarts=, or a larger --budget",
)
