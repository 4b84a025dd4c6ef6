"""The attack follows the exact gradient where there is one.

The identity in place of the purifier (BPDA) and a shorter chain (surrogate) are for what has no
derivative, or none that fits into memory. Where the exact one is at hand they only weaken the
attack: the first numbers of diffusion purifiers were too high by that. The cosine of the two
gradients says how much is lost; of 3072 dimensions a random direction has 0.02.

What to do: leave out `--gradient`; exact gradients are the default.
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
)
from advpure.analysis.audit.checks.finite_differences import exact_mode
from advpure.analysis.audit.evaluation import Evaluation
from advpure.core.gradients import GradientMode

_IMAGES, _LEAST = 8, 0.9
_APPROXIMATE = ("bpda", "surrogate")


def mode_of(settings: Settings) -> GradientMode | None:
    """Return the gradient mode that an evaluation's attack used."""
    own = settings["attack"].get("gradient")
    mode: GradientMode | None = own or (settings.get("defense") or {}).get("gradient")
    return mode


def _applies(settings: Settings) -> bool:
    return mode_of(settings) in _APPROXIMATE


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, points = evaluation.first(_IMAGES), evaluation.inside[:_IMAGES]
    mode = mode_of(evaluation.settings)
    used = evaluation.slope(points, batch, gradient=mode).gradient
    exact = evaluation.slope(
        points, batch, gradient=exact_mode(evaluation.defense.purifier)
    ).gradient
    cosines = torch.nn.functional.cosine_similarity(
        used.double().flatten(1), exact.double().flatten(1), dim=1, eps=1e-300
    )
    for i, cosine, each in zip(batch.ids.tolist(), cosines.tolist(), exact, strict=True):
        yield Value("cosine", i, cosine)
        yield Value("exact", i, float(bool(each.any())))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    cosines, mode = numbers.values("cosine"), mode_of(settings)
    n = len(cosines)
    if numbers.mean("exact") < 0.5:
        return passed(f"there is no exact gradient: {mode} stands in", numbers.mean("exact"), n=n)
    middle = statistics.median(cosines)
    told = f"the {mode} gradient has a cosine of {middle:.2f} to the exact one"
    return (failed if middle < _LEAST else open_question)(told, middle, n=n)


CHECK = Check(
    name="gradient-mode",
    about="no approximation stands in for a gradient that is at hand",
    source="[Tramer2020], [Lee2023]",
    threshold="cosine below 0.9* to an exact gradient that exists",
    needs="gradient",
    applies=_applies,
    cost=lambda settings: 2,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="run again without --gradient",
)
