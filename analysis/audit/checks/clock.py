"""Answers do not depend on when they are asked.

Noise that is seeded by the clock, or a schedule by the time of day, follows no key: the attack and
the decision see two models, and nobody can repeat either. The model is asked under clocks that are
put forward by seconds and by a day. One that answers two equal calls differently is made again
twice: copies that agree have a generator of their own, which is a question of keys; others draw
from the clock or from the system.
It misses clocks that compiled code reads, unless the records were made under another hour
(`reproducible`).

What to do: draw from torch's global generator, or take `(images, ids, randomness)`.
"""

import datetime
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

from torch import Tensor

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
from advpure.base.imports import OWN, seeded

_IMAGES, _MOST = 8, 1e-4
_AHEAD = (1.37, 90061.0)
"""Seconds: a bit more than one, and a day, an hour, a minute and a second."""
_CLOCKS = ("time", "monotonic", "perf_counter", "process_time")


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.first(_IMAGES)
    if not evaluation.is_controlled:
        with seeded():
            first = evaluation.decided(batch.images, batch, evaluation.new_defense)
        with seeded():
            second = evaluation.decided(batch.images, batch, evaluation.new_defense)
        yield Value("copies", ONE, _gap(first, second))
        return
    now = evaluation.answers(batch.images, batch.ids)
    for ahead in _AHEAD:
        with ExitStack() as stack:
            _put_forward(stack, ahead)
            later = evaluation.answers(batch.images, batch.ids)
        yield Value(f"{ahead:g} s later", ONE, _gap(now, later))


def _put_forward(stack: ExitStack, seconds: float) -> None:
    """Let the clocks of `time`, and copies of them in somebody's files, be ahead."""
    clocks: dict[Any, Any] = {}
    for name in _CLOCKS:
        plain, whole = getattr(time, name), getattr(time, f"{name}_ns")
        clocks[plain] = lambda plain=plain: plain() + seconds
        clocks[whole] = lambda whole=whole: whole() + int(seconds * 1e9)
        stack.enter_context(mock.patch.object(time, name, clocks[plain]))
        stack.enter_context(mock.patch.object(time, f"{name}_ns", clocks[whole]))
    clocks[datetime.datetime] = _days(seconds)
    stack.enter_context(mock.patch.object(datetime, "datetime", clocks[datetime.datetime]))
    for module in [each for name, each in sys.modules.items() if name.startswith(OWN)]:
        for name, value in [*vars(module).items()]:
            if getattr(value, "__module__", "") in ("time", "datetime") and value in clocks:
                stack.enter_context(mock.patch.object(module, name, clocks[value]))


def _days(seconds: float) -> type[datetime.datetime]:
    """Return `datetime` whose now is later."""

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Later":
            return super().now(tz) + datetime.timedelta(seconds=seconds)

    return Later


def _gap(first: Tensor, second: Tensor) -> float:
    """Return the largest change of a logit, in units of the spread of the logits of its image."""
    spread = (first.amax(1) - first.amin(1)).clamp(min=1e-12)
    return float(((first - second).abs().amax(1) / spread).max())


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if numbers.has("copies"):
        gap = numbers.one("copies")
        if gap > _MOST:
            told = "two new copies answer one call differently: by the clock, or by the system"
            return failed(f"{told} ({gap:.2g} of the spread)", gap)
        return open_question("the model draws from a generator of its own, which has no key", gap)
    gap = max(numbers.one(f"{ahead:g} s later") for ahead in _AHEAD)
    told = f"logits move by up to {gap:.2g} of their spread when the clock is put forward"
    return (failed if gap > _MOST else passed)(told, gap)


CHECK = Check(
    name="clock",
    about="answers stay when the clock is put forward",
    source="[Carlini2019]",
    threshold="a change of more than 0.0001* of the spread of the logits",
    needs="model",
    cost=lambda settings: 3,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="draw from torch's global generator, or take (images, ids, randomness)",
)
