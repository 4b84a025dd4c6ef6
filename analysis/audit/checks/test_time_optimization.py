"""The defense does not optimise while it answers.

A defense that runs its own gradient descent on the image is expensive to differentiate, and
attacks that ignore the inner loop see another function. None of nine such defenses beat its
static base when the attack followed the loop.

What to do: attack through the loop, with `--gradient` exact, and compare with the static model.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_PLACES = ("torch.autograd.grad", "torch.autograd.backward", "torch.Tensor.backward")


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    calls = [0]

    def counted(original: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            calls[0] += 1
            return original(*given, **named)

        return call

    batch = evaluation.first(1)
    with ExitStack() as stack:
        originals = (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward)
        for place, original in zip(_PLACES, originals, strict=True):
            stack.enter_context(mock.patch(place, counted(original)))
        evaluation.answers(batch.images, batch.ids)
    yield Value("calls", ONE, float(calls[0]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    calls = numbers.one("calls")
    told = f"{calls:.0f} gradients are taken within one answer"
    return failed(told, calls) if calls else passed(told, calls)


CHECK = Check(
    name="test-time-optimization",
    about="no gradient is taken while the defense answers",
    source="[Croce2020], [Croce2022]",
    threshold="any",
    needs="model",
    cost=lambda settings: 1,
    images=1,
    measure=_measure,
    judge=_judge,
    settle="compare with the static model, and attack through the loop",
)
