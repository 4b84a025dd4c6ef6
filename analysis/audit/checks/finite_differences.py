"""The gradient is the slope.

Whatever computes it, the gradient must say by how much the loss changes along a direction, at
equal noise. A backward pass with other noise, an adjoint that drifts, states of two grids mixed
up, or a step that is detached give a direction that leads elsewhere, and a loss with jumps
(rounding, JPEG) has no slope at all. Along random directions the slope by central differences is
compared with the gradient's; their mean squared difference, relative to the slope's, is that of
the whole gradients.

What to do: `advpure check-grad`; recompute each step with the same noise.
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
from advpure.analysis.audit.evaluation import Evaluation
from advpure.core.gradients import GradientMode
from advpure.core.purifier import Purifier
from advpure.data import Images

_IMAGES, _DIRECTIONS = 8, 6
_STEPS = (4e-3, 1e-3, 2.5e-4)
_AGREE, _ROUNDING = 0.1, 64 * 1.2e-7
_MOST, _ROUGH, _STEEP = 0.3, 0.5, 4.0


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    batch, points = evaluation.first(_IMAGES), evaluation.inside[:_IMAGES]
    mode = exact_mode(evaluation.defense.purifier)
    gradient = evaluation.slope(points, batch, gradient=mode).gradient.double()
    size = evaluation.answers(points, batch.ids).abs().amax(1)
    sums = torch.zeros(3, len(batch.ids), dtype=torch.float64)
    steps = torch.zeros(2, len(batch.ids), dtype=torch.float64)
    for direction in evaluation.directions(_DIRECTIONS, batch):
        slope, smooth = slopes_along(evaluation, batch, points, direction, size)
        own = (gradient * direction.double()).sum((1, 2, 3))
        sums += torch.stack([smooth * slope**2, smooth * (slope - own) ** 2, 1 - smooth])
        reach = _reach(evaluation) * direction.clamp(-4, 4)
        far = evaluation.margins((points + reach).clamp(0, 1), batch)
        far = (far - evaluation.margins((points - reach).clamp(0, 1), batch)) / 2
        steps += torch.stack([far**2, (own * _reach(evaluation)) ** 2])
    for k, i in enumerate(batch.ids.tolist()):
        yield Value("far", i, float(steps[0, k]))
        yield Value("near", i, float(steps[1, k]))
        yield Value("slope", i, float(sums[0, k]))
        yield Value("miss", i, float(sums[1, k]))
        yield Value("rough", i, float(sums[2, k]) / _DIRECTIONS)


def _reach(evaluation: Evaluation) -> float:
    """Return a quarter of the radius, as root mean square of a change."""
    pixels = 1.0 if evaluation.norm == "linf" else evaluation.batch.images[0].numel() ** 0.5
    return min(evaluation.eps / pixels / 4, 0.1)


def exact_mode(purifier: Purifier) -> GradientMode:
    """Return the gradient mode that follows the purifier itself."""
    return "full" if purifier.chain.evaluations <= 4 else "checkpoint"


def slopes_along(
    evaluation: Evaluation,
    batch: Images,
    points: torch.Tensor,
    direction: torch.Tensor,
    size: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return slopes [B] by central differences, and whether two steps agree on them.

    Args:
        evaluation: What is asked.
        batch: The images that the points belong to.
        points: Points [B, C, H, W], `INSIDE` the box.
        direction: Directions of the same shape.
        size: Largest logits [B], which say how large rounding is.
    """

    def difference(step: float) -> torch.Tensor:
        ahead = evaluation.margins(points + step * direction.clamp(-4, 4), batch)
        behind = evaluation.margins(points - step * direction.clamp(-4, 4), batch)
        return (ahead - behind) / (2 * step)

    found = torch.zeros(len(points), dtype=torch.float64)
    smooth = torch.zeros(len(points), dtype=torch.float64)
    for step in _STEPS:
        whole, half = difference(step), difference(step / 2)
        rounding = 2 * _ROUNDING * size / step
        agree = (whole - half).abs() <= _AGREE * half.abs() + rounding
        fresh = agree & (smooth == 0)
        found = torch.where(fresh, half, found)
        smooth = torch.where(fresh, torch.ones_like(smooth), smooth)
        if bool((smooth == 1).all()):
            break
    return found, smooth


def _judge(numbers: Measured, settings: Settings) -> Finding:
    slopes, misses = numbers.values("slope"), numbers.values("miss")
    if not slopes:
        return open_question("the model draws anew on every call: a difference is one of noise")
    n, rough = len(slopes), numbers.mean("rough")
    if rough > _ROUGH:
        return failed(f"{100 * rough:.0f} % of the slopes have no limit", rough, n=n)
    errors = [
        (miss / slope) ** 0.5 if slope else 1.0 for miss, slope in zip(misses, slopes, strict=True)
    ]
    if not any(slopes):
        return failed("the loss is flat in every direction: steps, or no connection", 1.0, n=n)
    error = statistics.median(errors)
    pairs = zip(numbers.values("far"), numbers.values("near"), strict=True)
    step = statistics.median((far / near) ** 0.5 if near else float("inf") for far, near in pairs)
    if not 1 / _STEEP <= step <= _STEEP:
        told = f"a quarter of the ball changes the loss by {step:.2g} times what the gradient says"
        return failed(told, step, n=n)
    told = f"the gradient misses the slope by {error:.2g} of its size (median)"
    return (failed if error > _MOST else passed)(told, error, n=n)


CHECK = Check(
    name="finite-differences",
    about="the gradient agrees with finite differences under equal noise",
    source="[Athalye2018]",
    threshold="median error above 0.3*, half of the slopes without a limit*, or a change over a "
    "quarter of the ball 4* times larger or smaller than the gradient says",
    needs="gradient",
    cost=lambda settings: 40,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="advpure check-grad",
)
