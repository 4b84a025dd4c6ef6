"""An image's answer does not depend on the images beside it.

Normalising by the batch, or choosing by what else stands in it, makes an attack on a batch
optimise another function than the one that decides about one image. It is a flaw of the model
whatever the attack achieves.

What to do: let rows be independent; statistics come from training.
"""

from collections.abc import Iterator

import torch

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.core.own import OwnModel

_MOST, _IMAGES = 1e-3, 8


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.first(_IMAGES)
    if not evaluation.is_controlled:
        return
    together = evaluation.answers(batch.images, batch.ids)
    spread = (together.amax(1) - together.amin(1)).clamp(min=1e-12)
    gaps = torch.zeros_like(spread)
    for shift in (1, 2):
        other = batch.images.roll(shift, 0)
        for k in range(len(batch.ids)):
            rows = other.clone()
            rows[k] = batch.images[k]
            ids = batch.ids.roll(shift, 0).clone()
            ids[k] = batch.ids[k]
            if k % 4 and not _has_own(evaluation):
                continue
            answer = evaluation.answers(rows, ids)[k]
            gaps[k] = torch.maximum(gaps[k], (answer - together[k]).abs().max() / spread[k])
    for i, gap in zip(batch.ids.tolist(), gaps.tolist(), strict=True):
        yield Value("gap", i, gap)


def _has_own(evaluation: Evaluation) -> bool:
    parts = (evaluation.defense.purifier.model, evaluation.defense.classifier)
    return any(isinstance(each, OwnModel) for each in parts)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    gaps = numbers.values("gap")
    if not gaps:
        return passed("the model draws anew on every call, which is checked elsewhere")
    worst = max(gaps)
    told = f"logits move by up to {worst:.2g} of their spread when the other images change"
    return (failed if worst > _MOST else passed)(told, worst, n=len(gaps))


CHECK = Check(
    name="batch-dependence",
    about="logits of an image stay when the other images of the batch change",
    source="[Croce2021]",
    threshold="a change of more than 0.001* of the spread of the logits",
    needs="model",
    cost=lambda settings: 17,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="let the rows of a batch be independent",
)
