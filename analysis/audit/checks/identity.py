"""An answer depends on the image, not on its number.

Sample ids key the noise of a random defense and nothing else. A defense that looks up the clean
image, or the label, by its number answers right whatever the attack did. Attacked images, or
mixtures with an image of another class, are shown under their own numbers, each under that of
another image, and under numbers that no image has: a model without randomness has to answer the
same, a random one as often right.
It misses a lookup by something else, such as the place in the batch (`reproducible`).

What to do: let the model take images alone; use ids for noise only.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_random,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.statistics.rates import mean_interval

_DRAWS, _TIE, _LEVEL, _MOST = 2, 0.1, 0.999, 1e-3
_STRANGE = 1_000_003
"""Added to ids to have those of no image."""


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    batch, ids = evaluation.batch, evaluation.batch.ids
    shift = _to_another_class(batch.labels)
    shown = evaluation.kept_adversarial
    if shown is None:
        shown = 0.5 * (batch.images + batch.images.roll(-shift, 0))
    numbers = {"own": ids, "rolled": ids.roll(-shift, 0), "strange": ids + _STRANGE}
    draws: list[int | None] = [*range(_DRAWS)] if is_random(evaluation.settings) else [None]
    known: dict[str, Tensor] = {}
    for name, each in numbers.items():
        logits = torch.stack([evaluation.answers(shown, each, draw) for draw in draws]).cpu()
        known[name] = logits
        right = (logits.argmax(2) == batch.labels.cpu()).double().mean(0)
        for i, value in zip(ids.tolist(), right.tolist(), strict=True):
            yield Value(name, i, value)
    if not is_random(evaluation.settings):
        own = known["own"]
        spread = (own.amax(2) - own.amin(2)).clamp(min=1e-12)
        gaps = [((known[n] - own).abs().amax(2) / spread).max() for n in ("rolled", "strange")]
        yield Value("gap", ONE, float(max(gaps)))


def _to_another_class(labels: Tensor) -> int:
    """Return by how many rows to turn so that most images meet one of another class."""
    shifts = range(1, max(len(labels), 2))
    return max(shifts, key=lambda by: int((labels.roll(-by, 0) != labels).sum()))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if not numbers.has("own"):
        return open_question("the model draws anew on every call: no two answers can be compared")
    own, n = numbers.by_image("own"), len(numbers.values("own"))
    if numbers.has("gap"):
        gap = numbers.one("gap")
        told = f"logits move by up to {gap:.2g} of their spread under other numbers"
        return (failed if gap > _MOST else passed)(told, gap, n=n)
    gaps = {
        name: mean_interval([own[i] - each for i, each in numbers.by_image(name).items()], _LEVEL)
        for name in ("rolled", "strange")
    }
    name = max(gaps, key=lambda each: abs(gaps[each].value))
    worst = gaps[name]
    told = f"{name} numbers change the share of right answers by {-100 * worst.value:+.1f} points"
    more = {"n": n, "interval": worst.interval}
    apart = worst.interval is not None and (
        worst.interval.low > _TIE or worst.interval.high < -_TIE
    )
    return (failed if apart else passed)(told, worst.value, **more)


CHECK = Check(
    name="identity",
    about="answers stay when images are shown under other numbers",
    source="[Carlini2019]",
    threshold="a change of more than 0.001* of the spread of the logits; of a random model 10 "
    "points* of accuracy (Student, 99.9 %)",
    needs="model",
    cost=lambda settings: 3 * (_DRAWS if is_random(settings) else 1),
    measure=_measure,
    judge=_judge,
    settle="take images alone; ids are for the keys of noise",
)
