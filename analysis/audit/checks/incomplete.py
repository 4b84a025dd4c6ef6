"""The loss has stopped rising when the attack stops.

The loss, from that of the clean image to the final one, must not gain more than 5 % in the last
ten steps. The evaluation's attack is run again with ten steps fewer on what it left: under fixed
randomness it takes the same way.

What to do: more steps, or larger ones.
"""

import statistics
from collections.abc import Iterator

from advpure.analysis.audit.attempts import own_cost
from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_fixed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.attacks.losses import LOSSES

_LAST, _MOST = 10, 0.05


def _applies(settings: Settings) -> bool:
    attack = settings["attack"]
    return (
        is_fixed(settings)
        and "step_size" in attack
        and attack["steps"] > _LAST + 1
        and attack.get("restarts", 1) == 1
    )


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.survivors
    if not len(batch.ids):
        return
    steps = evaluation.settings["attack"]["steps"]
    size = evaluation.settings["attack"]["step_size"]
    before = evaluation.own_attack(batch, steps=steps - _LAST, step_size=size)
    loss = LOSSES[evaluation.settings["attack"]["loss"]]
    start = loss(evaluation.climbed(batch.images, batch.ids), batch.labels, False)
    final = evaluation.recorded.attacked("loss")
    for i, first, late in zip(
        batch.ids.tolist(), start.tolist(), before.loss.tolist(), strict=True
    ):
        whole = max(final[i], late) - first
        yield Value("gain", i, max(final[i] - late, 0.0) / whole if whole > 0 else 1.0)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    gains = numbers.values("gain")
    if not gains:
        return passed("no image is left to gain on", 0.0)
    middle = statistics.median(gains)
    told = f"the last ten steps gain {100 * middle:.0f} % of the loss (median of what is left)"
    return (failed if middle > _MOST else passed)(told, middle, n=len(gains))


CHECK = Check(
    name="incomplete",
    about="the last ten steps gain at most 5 % of the loss (indicator I4)",
    source="[Pintor2022]",
    threshold="median over the images that are left above 0.05",
    needs="attack",
    applies=_applies,
    cost=own_cost,
    measure=_measure,
    judge=_judge,
    settle="run again with more --steps",
)
