"""The loss that attacks climb has a gradient.

Logits in the hundreds, as after a large factor or a low temperature, make the softmax exactly 0
and 1 in float32. The cross-entropy is then flat: an attack stands still although the margin has a
slope. It is a flaw of the model also where the attack gets over it with another loss.

What to do: `--loss margin` or `dlr`; divide the logits by their size.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
    share,
)
from advpure.analysis.audit.evaluation import Evaluation

_MOST = 0.1


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.batch
    points = evaluation.inside
    flat = evaluation.slope(points, batch, loss="ce", gradient=None)
    steep = evaluation.slope(points, batch, loss="margin", gradient=None)
    zero, other = ((each.gradient == 0).flatten(1).all(1).tolist() for each in (flat, steep))
    for i, a, b in zip(batch.ids.tolist(), zero, other, strict=True):
        yield Value("saturated", i, float(a and not b))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    count, n = numbers.total("saturated"), len(numbers.values("saturated"))
    told = share(count, n, "images have a slope of the margin and none of the cross-entropy")
    return (failed if count / n > _MOST else passed)(told, count / n, n=n)


CHECK = Check(
    name="saturated-loss",
    about="the cross-entropy has a gradient where the margin has one",
    source="[Carlini2017], [Croce2020]",
    threshold="more than 10 % of the images*",
    needs="gradient",
    cost=lambda settings: 2,
    measure=_measure,
    judge=_judge,
    settle="run again with --loss margin",
)
