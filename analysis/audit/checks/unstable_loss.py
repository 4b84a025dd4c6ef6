"""The loss changes little when the image changes little.

A loss that jumps about within the ball tells an attack nothing of where to go. The mean relative
change of the margin under uniform noise in half the ball, cut to 1, is the second indicator of
attack failure; its source gives no bound, and near the border any model has a large one.

What to do: look at `finite-differences`; smooth what jumps for the attack, or attack without
gradients.
"""

from collections.abc import Iterator

import torch

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
from advpure.core.randomness import RandomnessConfig

_DRAWS, _IMAGES, _MOST = 10, 8, 0.5


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.first(_IMAGES)
    images, shape = batch.images, tuple(batch.images.shape[1:])
    reach = evaluation.eps / 2
    if evaluation.norm != "linf":
        reach = evaluation.eps / 2 * (3 / images[0].numel()) ** 0.5
    xi = RandomnessConfig(0, "counter").fold("audit", "unstable")
    base = evaluation.margins(images, batch)
    total = torch.zeros_like(base)
    for draw in range(_DRAWS):
        noise = (2 * xi.uniform(batch.ids, draw, shape).to(images) - 1) * reach
        moved = evaluation.margins((images + noise).clamp(0, 1), batch)
        total += ((moved - base).abs() / base.abs().clamp(min=1e-12)).clamp(max=1)
    for i, change in zip(batch.ids.tolist(), (total / _DRAWS).tolist(), strict=True):
        yield Value("change", i, change)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    change, n = numbers.mean("change"), len(numbers.values("change"))
    told = f"noise in half the ball changes the margin by {100 * change:.0f} % on average"
    return (open_question if change > _MOST else passed)(told, change, n=n)


CHECK = Check(
    name="unstable-loss",
    about="noise in half the ball changes the margin by less than half (indicator I2)",
    source="[Pintor2022]",
    threshold="never a failure; above 0.5* is inconclusive",
    needs="model",
    cost=lambda settings: _DRAWS + 1,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="run --attack square on the same images",
)
