"""The attack works on the bare classifier.

Without a purifier there is nothing to hide behind, so an attack that fails there is broken, and
its failure at the defense says nothing. The evaluation's own attack is run on the classifier
alone.

What to do: mend the attack until it breaks what is known to be broken; then attack the defense.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from advpure.analysis.audit.attempts import FIXED_BUDGET, own_cost, purifies, undefended
from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.attacks.registry import find

_LEFT = 0.1


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, bare = evaluation.batch, undefended(evaluation)
    assert evaluation.loaded is not None
    changes: dict[str, Any] = {"randomness": "fixed"}
    chosen = evaluation.loaded.attack_settings
    if getattr(chosen, "budget", 0) > FIXED_BUDGET:
        changes["budget"] = FIXED_BUDGET
    view = bare.at(ids=batch.ids)
    run: Any = find(evaluation.attack_name)
    result = run(view, batch.images, batch.labels, replace(chosen, **changes), ids=batch.ids)
    evaluation.count(int(result.forwards.sum()), int(result.backwards.sum()))
    for name, points in (("clean", batch.images), ("attacked", result.images)):
        answers = view(points).argmax(1).cpu() == batch.labels.cpu()
        for i, right in zip(batch.ids.tolist(), answers.tolist(), strict=True):
            yield Value(name, i, float(right))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    clean, left, n = numbers.mean("clean"), numbers.mean("attacked"), len(numbers.values("clean"))
    told = f"of the bare classifier's {100 * clean:.0f} % the attack leaves {100 * left:.0f} %"
    return (passed if left <= _LEFT else open_question)(told, left, n=n)


CHECK = Check(
    name="undefended",
    about="the attack breaks the classifier without its purifier",
    source="[Carlini2019]",
    threshold="never a failure; more than 10 %* left is inconclusive",
    needs="attack",
    applies=purifies,
    cost=lambda settings: min(own_cost(settings), FIXED_BUDGET) + 2,
    measure=_measure,
    judge=_judge,
    settle="run advpure attack --defense none with the same attack",
)
