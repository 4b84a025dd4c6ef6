"""A new copy of the defense, asked in another order, decides as the records say.

A defense that remembers queries, counts them, or looks at the clock is one function while it is
attacked and another one later. It is made again from its code, asked about the attacked images
first and the clean ones last, in reverse, and its margins are compared with the recorded ones.
Rows that were edited, and weights that changed since, show in the same way.
It misses a memory outside the program (a file, a server, a module of an installed package).

What to do: keep nothing between two calls; run again.
"""

import statistics
from collections.abc import Iterator

import torch

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    open_question,
    passed,
    share,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.robustness.protocol import ADVERSARIAL, CLEAN, NOISE
from advpure.attacks.losses import LOSSES
from advpure.data import Images

_MOST, _SHARE = 0.01, 0.05


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled or evaluation.loaded is None:
        return
    batch, stage, points = evaluation.batch, ADVERSARIAL, evaluation.kept_adversarial
    if points is None:
        stage, noise = NOISE, evaluation.loaded.attacks[NOISE]
        view = evaluation.defense.at(ids=batch.ids)
        made = noise(view, batch.images, batch.labels, batch.ids)
        evaluation.count(len(batch.ids))
        points = made.images.to(batch.images)
    defense = evaluation.new_defense
    for name, seen in ((stage, points), (CLEAN, batch.images)):
        back = Images(*(part.flip(0) for part in batch))
        logits = evaluation.decided(seen.flip(0), back, defense)
        now = -LOSSES["margin"](logits, back.labels.cpu(), False)
        then = evaluation.recorded.margins(name)
        for i, margin in zip(back.ids.tolist(), now.tolist(), strict=True):
            yield Value(f"{name} then", i, then[i])
            yield Value(f"{name} now", i, margin if torch.isfinite(now).all() else 1e9)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    stages = [name for name in (ADVERSARIAL, NOISE, CLEAN) if numbers.has(f"{name} now")]
    if not stages:
        return open_question("the model draws anew on every call, so no decision can be repeated")
    moved: dict[str, int] = {}
    for name in stages:
        then, now = numbers.by_image(f"{name} then"), numbers.by_image(f"{name} now")
        scale = statistics.median(abs(each) for each in then.values())
        moved[name] = sum(
            abs(now[i] - then[i]) > _MOST * max(scale, abs(then[i]), 1e-9) for i in then
        )
    name = max(stages, key=lambda each: moved[each])
    count, n = moved[name], len(numbers.values(f"{name} now"))
    told = share(count, n, f"{name} images get other margins from a new copy of the defense")
    if count > max(1.0, _SHARE * n):
        return failed(told, count / n, n=n)
    return (open_question if count else passed)(told, count / n, n=n)


CHECK = Check(
    name="reproducible",
    about="a new copy of the defense, asked in another order, decides as recorded",
    source="[Carlini2019], [Croce2022]",
    threshold="more than 1 and 5 % of the images with a margin that is off by 1 %*; one is "
    "inconclusive",
    needs="model",
    cost=lambda settings: 3,
    measure=_measure,
    judge=_judge,
    settle="delete the run folder and run again; keep nothing between calls",
)
