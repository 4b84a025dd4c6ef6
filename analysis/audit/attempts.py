"""Checks that try another attack on what the evaluation's left, and compare image by image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    compared,
    is_fixed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier

PAIRED = "paired difference beyond 0 (Tango's or Student's interval); one image is inconclusive"
FIXED_BUDGET = 60
"""Evaluations of a short standard attack under fixed randomness."""
_FEW = 40


class _Retried:
    """Run the evaluation's own attack again on what it left, with other settings."""

    def __call__(self, evaluation: Evaluation, **changes: Any) -> Iterator[Value]:
        """Yield what one variant leaves."""
        return self.best(evaluation, [changes])

    def best(
        self, evaluation: Evaluation, variants: Sequence[Mapping[str, Any]]
    ) -> Iterator[Value]:
        """Yield what the best of some variants leaves: image by image, or on average if fresh."""
        batch, outcomes = evaluation.survivors, [dict(evaluation.before)]
        if len(batch.ids):
            outcomes = [
                evaluation.before
                | evaluation.right(evaluation.own_attack(batch, **each).images, batch)
                for each in variants
            ]
        if evaluation.fixed:
            after = {i: min(each[i] for each in outcomes) for i in outcomes[0]}
        else:
            after = min(outcomes, key=lambda each: sum(each.values()))
        return self.values(evaluation, after)

    def values(self, evaluation: Evaluation, after: Mapping[int, float]) -> Iterator[Value]:
        """Yield the shares of right decisions before and after."""
        for i, right in after.items():
            yield Value("before", i, evaluation.before[i])
            yield Value("after", i, right)

    def judge(self, words: str) -> Callable[[Measured, Settings], Finding]:
        """Return the verdict on such shares."""

        def judged(numbers: Measured, settings: Settings) -> Finding:
            return compared(numbers.by_image("after"), numbers.by_image("before"), words, settings)

        return judged


retried = _Retried()
"""Run the evaluation's own attack again, and judge what that leaves."""


def attempt(
    *,
    name: str,
    about: str,
    source: str,
    words: str,
    attack: str,
    options: Callable[[Evaluation], Mapping[str, Any]],
    cost: Callable[[Settings], int],
    settle: str,
    thorough: bool = False,
    applies_fixed: bool = False,
) -> Check:
    """Return the check that one of our attacks fools nothing more than the evaluation's did."""

    def measure(evaluation: Evaluation) -> Iterator[Value]:
        yield from retried.values(evaluation, evaluation.tried(attack, **options(evaluation)))

    return Check(
        name=name,
        about=about,
        source=source,
        threshold=PAIRED,
        needs="attack",
        applies=is_fixed if applies_fixed else lambda settings: True,
        cost=lambda settings: cost(settings) + (0 if is_fixed(settings) else 10),
        thorough=thorough,
        measure=measure,
        judge=retried.judge(words),
        settle=settle,
    )


def own_cost(settings: Settings) -> int:
    """Return the passes of the evaluation's own attack on one image, at most."""
    attack = settings["attack"]
    if "budget" in attack:
        return int(attack["budget"])
    if "steps" in attack:
        return int(attack["steps"] * attack.get("eot", 1) * attack.get("restarts", 1)) + 3
    return int(attack.get("queries", attack.get("draws", 1))) + 2


def most(settings: Settings) -> int:
    """Return the passes of the evaluation's own attack on one image after `fewer`, at most."""
    attack = settings["attack"]
    if "budget" in attack:
        return _least_budget(attack)
    return int(min(attack.get("steps", _FEW), _FEW) * attack.get("eot", 1)) + 3


def _least_budget(attack: Mapping[str, Any]) -> int:
    """Return a budget that pays for a short standard attack."""
    if attack["randomness"] == "fixed":
        return FIXED_BUDGET
    return 6 * int(attack["eot"]) + 90


def fewer(evaluation: Evaluation) -> dict[str, Any]:
    """Return changes of the evaluation's attack that bound what one image costs."""
    attack, changes = evaluation.settings["attack"], dict[str, Any]()
    if "budget" in attack:
        changes["budget"] = min(attack["budget"], _least_budget(attack))
    if "steps" in attack:
        changes["steps"] = min(attack["steps"], _FEW)
    if attack.get("restarts", 1) > 1:
        changes["restarts"] = 1
    return changes


def purifies(settings: Settings) -> bool:
    """Return whether something stands in front of a classifier of its own."""
    defense = settings.get("defense") or {}
    return defense.get("purifier") != "none" and bool(defense.get("classifier"))


def undefended(evaluation: Evaluation) -> Defense:
    """Return the classifier of a defense without its purifier."""
    defense = evaluation.defense
    return Defense(Purifier("none", Chain()), defense.classifier, xi=defense.xi, tile=defense.tile)
