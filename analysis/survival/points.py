"""Where a search starts: at clean images, or at the anchor points of a purifier.

What is attacked, and where, is one of three things:

* no purifier: the classifier g at clean images;
* a purifier f under fixed randomness, at clean images: the whole defense g(f(x));
* a purifier, at its anchor points f(x0): the classifier g alone, at purified clean images with the
  true labels. They are keyed by image, purifier and randomness like every purification.

A purifier's output may leave [0, 1] a little. With ``box`` unit, anchor points are clipped to it
and perturbed ones stay inside, as images do; with ``free`` both may lie anywhere in [-1, 2], like
what the classifier meets behind a purifier.

Source: [Wei2025], section 5 and appendix B (how anchor points meet the box is not stated).
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from advpure.analysis.survival.minimum_radius import (
    RadiusRow,
    RadiusSettings,
    at_radius,
    minimum_radii,
)
from advpure.analysis.target import as_target
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images

Point = Literal["clean", "anchor"]
Box = Literal["unit", "free"]
_FREE = (-1.0, 2.0)


class Points(NamedTuple):
    """Where a batch is attacked.

    Attributes:
        points: [B, C, H, W], in the box.
        moved: L2 distance from the clean image, [0, 1] units; None at clean images.
        clipped: The most that the box took of a pixel, likewise.
    """

    points: Tensor
    moved: list[float | None]
    clipped: list[float | None]


def clean_points(batch: Images) -> Points:
    """Return the clean images."""
    absent: list[float | None] = [None] * len(batch.ids)
    return Points(batch.images, absent, absent)


def anchor_points(defense: Defense, batch: Images, xi: RandomnessConfig, box: Box) -> Points:
    """Purify clean images, without a gradient: where to attack is no part of the attack.

    Args:
        defense: The defense whose purifier is meant.
        batch: Clean images and their ids.
        xi: The purifier's randomness.
        box: Where the points may lie.
    """
    with torch.no_grad():
        purified = as_target(defense)(batch.images, batch.ids.tolist(), xi)
    low, high = (0.0, 1.0) if box == "unit" else _FREE
    points = purified.clamp(low, high)
    cut = (purified - points).abs().amax(dim=(1, 2, 3)).tolist()
    far = (points.double() - batch.images.double()).square().sum(dim=(1, 2, 3)).sqrt().tolist()
    return Points(points, far, cut)


class _Widened:
    """A classifier as seen by an attack whose box [0, 1] stands for [low, high]."""

    def __init__(self, model: Defense) -> None:
        self.tile, self._classifier = model.tile, model.classifier

    def __call__(self, points: Tensor) -> Tensor:
        low, high = _FREE
        logits: Tensor = self._classifier(low + (high - low) * points)
        return logits


def search_free(
    model: Defense, points: Tensor, batch: Images, search: RadiusSettings
) -> list[RadiusRow]:
    """Search the classifier alone in the free box, by a change of variables.

    Args:
        model: A defense; its classifier is attacked.
        points: [B, C, H, W] in the free box.
        batch: Labels and ids of the points.
        search: How to search, in [0, 1] units.

    Returns:
        One row per point, in [0, 1] units.
    """
    low, high = _FREE
    scale = high - low
    settings = at_radius(search.settings, search.top / scale)
    rows = minimum_radii(
        _Widened(model),
        (points - low) / scale,
        batch.labels,
        replace(search, settings=settings),
        ids=batch.ids,
    )
    return [
        row._replace(
            lower=row.lower * scale, upper=None if row.upper is None else row.upper * scale
        )
        for row in rows
    ]
