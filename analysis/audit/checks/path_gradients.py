"""The gradient is the slope where the attack goes, for every image.

A gradient can be right near the clean image and turn where it matters: close to the border of two
classes, at the edge of the ball, or for some images only. At the attacked images (else at the end
of one step of the whole radius) and close to the border on the way to an image of another class,
slopes along the gradient's own signs and along a random direction are compared with what the
gradient says, image by image.
It misses a gradient that turns in a thin shell elsewhere, or for one image of ten.

What to do: `advpure check-grad`; let one backward pass serve all images.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

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
from advpure.analysis.audit.checks.finite_differences import exact_mode, slopes_along
from advpure.analysis.audit.evaluation import INSIDE, Evaluation

_IMAGES, _HALVINGS, _RANDOM = 16, 6, 1
_MOST, _SHARE, _FEW = 0.5, 0.15, 3


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    for name, points in (("end", _ends(evaluation)), ("border", _border(evaluation))):
        for i, error in _errors(evaluation, points.clamp(INSIDE, 1 - INSIDE)).items():
            yield Value(name, i, error)


def _ends(evaluation: Evaluation) -> Tensor:
    """Return where the attack ended, or would end after a step of the whole radius."""
    kept, batch = evaluation.kept_adversarial, evaluation.first(_IMAGES)
    if kept is not None:
        return kept[:_IMAGES]
    mode = exact_mode(evaluation.defense.purifier)
    gradient = evaluation.slope(batch.images, batch, gradient=mode).gradient
    size = gradient.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)
    step = gradient.sign() if evaluation.norm == "linf" else gradient / size
    return (batch.images + evaluation.eps * step).clamp(0, 1)


def _border(evaluation: Evaluation) -> Tensor:
    """Return points that are just right, on the way to an image of another class."""
    batch = evaluation.first(_IMAGES)
    shifts = range(1, max(len(batch.ids), 2))
    by = max(shifts, key=lambda k: int((batch.labels.roll(k, 0) != batch.labels).sum()))
    way = batch.images.roll(by, 0) - batch.images
    low = torch.zeros(len(batch.ids), 1, 1, 1).to(way)
    high = torch.ones_like(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        won = evaluation.margins(batch.images + middle * way, batch).reshape(-1, 1, 1, 1) > 0
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
    return batch.images + low * way


def _errors(evaluation: Evaluation, points: Tensor) -> dict[int, float]:
    """Return by how much the gradient misses the slope at points that have one."""
    batch = evaluation.first(_IMAGES)
    mode = exact_mode(evaluation.defense.purifier)
    gradient = evaluation.slope(points, batch, gradient=mode).gradient.double()
    size = evaluation.answers(points, batch.ids).abs().amax(1)
    along = torch.where(gradient == 0, 1.0, gradient.sign()).to(points)
    ways = [along, *evaluation.directions(_RANDOM, batch)]
    whole, miss, smooth = (torch.zeros(len(points)).double().to(size) for _ in range(3))
    for way in ways:
        slope, has_slope = slopes_along(evaluation, batch, points, way, size)
        own = (gradient * way.double().clamp(-4, 4)).sum((1, 2, 3))
        whole += has_slope * slope**2
        miss += has_slope * (slope - own) ** 2
        smooth += has_slope
    floor = (1e-7 * size) ** 2
    rows = zip(
        batch.ids.tolist(),
        whole.tolist(),
        miss.tolist(),
        smooth.tolist(),
        floor.tolist(),
        strict=True,
    )
    return {
        i: (b / max(a, c)) ** 0.5 for i, a, b, has, c in rows if has == len(ways) and max(a, b) > c
    }


def _judge(numbers: Measured, settings: Settings) -> Finding:
    found = {name: numbers.values(name) for name in ("end", "border") if numbers.has(name)}
    if not found:
        return open_question("no slope has a limit at any of the points")
    wrong = {name: sum(each > _MOST for each in errors) for name, errors in found.items()}
    name = max(found, key=lambda each: wrong[each] / len(found[each]))
    count, n = wrong[name], len(found[name])
    where = {"end": "where the attack ends", "border": "close to the border"}[name]
    told = f"the gradient misses the slope of {count} of {n} images by half and more {where}"
    if count >= _FEW and count > _SHARE * n:
        return failed(told, count / n, n=n)
    is_open = count >= _FEW or (count and count > _SHARE * n)
    return (open_question if is_open else passed)(told, count / n, n=n)


CHECK = Check(
    name="path-gradients",
    about="the gradient agrees with slopes where the attack ends and close to the border",
    source="[Athalye2018]",
    threshold="3* or more and 15 %* of the images that have a slope missed by half of it",
    needs="gradient",
    cost=lambda settings: 2 * (2 + 4 * 2 * 2) + _HALVINGS + 1,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="advpure check-grad; attack without gradients, --attack square",
)
