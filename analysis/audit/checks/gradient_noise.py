"""The mean of the draws points where the mean of all draws points.

A gradient of a random defense is signal and noise; with too few draws the attack walks at random
and the defense looks robust. The cosine of a mean over as many draws as the attack takes with the
mean of others estimates how much of the direction is left.

What to do: more draws, `--eot`; `advpure gradients` says how many.
"""

import statistics
from collections.abc import Iterator

import torch

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_fixed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_IMAGES, _DRAWS = 8, 16
_LEAST, _GOOD = 0.3, 0.6


def _applies(settings: Settings) -> bool:
    return not is_fixed(settings) and "eot" in settings["attack"]


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, points = evaluation.first(_IMAGES), evaluation.inside[:_IMAGES]
    gradients = torch.stack(
        [
            evaluation.slope(points, batch, draw=draw, purpose="gradient")
            .gradient.double()
            .flatten(1)
            .cpu()
            for draw in range(_DRAWS)
        ]
    )
    energy = gradients.square().sum(2).mean(0)
    signal = (gradients.sum(0).square().sum(1) - _DRAWS * energy) / (_DRAWS * (_DRAWS - 1))
    for i, a, b in zip(batch.ids.tolist(), energy.tolist(), signal.tolist(), strict=True):
        yield Value("energy", i, a)
        yield Value("signal", i, b)
    yield Value("eot", ONE, float(evaluation.settings["attack"]["eot"]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    energy, signal = numbers.values("energy"), numbers.values("signal")
    draws = numbers.one("eot")
    cosines = [
        (max(s, 0.0) / (max(s, 0.0) + max(e - max(s, 0.0), 0.0) / draws)) ** 0.5 if e else 0.0
        for e, s in zip(energy, signal, strict=True)
    ]
    middle, n = statistics.median(cosines), len(cosines)
    told = f"a mean of {draws:.0f} draws has a cosine of {middle:.2f} to the mean gradient"
    if middle < _LEAST:
        return failed(told, middle, n=n)
    return (passed if middle >= _GOOD else open_question)(told, middle, n=n)


CHECK = Check(
    name="gradient-noise",
    about="as many draws as the attack takes show the direction",
    source="[Athalye2018], [Lee2023]",
    threshold="estimated cosine below 0.3*; below 0.6* is inconclusive",
    needs="gradient",
    applies=_applies,
    cost=lambda settings: _DRAWS,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="run again with more draws, --eot 32",
)
