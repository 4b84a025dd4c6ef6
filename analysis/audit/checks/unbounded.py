"""With no bound the attack always succeeds.

Where an image may become any other, every classifier can be fooled. An attack that fails even
then is lost: it follows a gradient that leads nowhere. The evaluation's own attack is run with
epsilon 1.

What to do: look for zero, wrong or saturated gradients.
"""

from collections.abc import Iterator
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
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.attacks.engines.contract import is_engine

_IMAGES, _MOST = 8, 0.25


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.first(_IMAGES)
    eps = 1.0 if evaluation.norm == "linf" else float(batch.images[0].numel()) ** 0.5 / 2
    changes: dict[str, Any] = {"eps": eps} | fewer(evaluation)
    size = evaluation.settings["attack"].get("step_size")
    if size is not None:
        changes["step_size"] = min(size * eps / evaluation.eps, eps)
    full = getattr(evaluation.loaded.attack_settings, "budget", 0) if evaluation.loaded else 0
    is_cut = is_engine(evaluation.attack_name) and changes.get("budget", full) < full
    yield Value("cut", ONE, float(is_cut))
    result = evaluation.own_attack(batch, **changes)
    for i, right in evaluation.right(result.images, batch).items():
        yield Value("right", i, right)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    left, n = numbers.mean("right"), len(numbers.values("right"))
    told = f"{100 * left:.0f} % of {n} images are still right when any change is allowed"
    if left > _MOST and not numbers.one("cut"):
        return failed(told, left, n=n)
    return (open_question if left > 0.1 else passed)(told, left, n=n)


CHECK = Check(
    name="unbounded",
    about="the attack fools every image when any change is allowed (indicator I6)",
    source="[Carlini2019], [Athalye2018], [Pintor2022]",
    threshold="more than a quarter* left; more than a tenth* is inconclusive, as is an attack of "
    "another library with a part of its budget",
    needs="attack",
    cost=lambda settings: min(own_cost(settings), most(settings)) + 10,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="run again with --attack standard and --eps 0.49",
)
