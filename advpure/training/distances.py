"""Distances between pairs of images that consistency losses minimise, by name.

lpips, l1 (mean absolute error), l2 (mean squared error), huber (sqrt(|a - b|^2 + c^2) - c over the
whole image, c = 0.00054 sqrt(d)).

Source: [Song2023] (the first three), [Song2024] (pseudo-Huber).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from advpure.base.validation import check_choice
from advpure.networks.lpips import load_lpips
from advpure.training.precision import InBfloat16

Distance = Callable[[Tensor, Tensor], Tensor]
"""Maps two batches of images [B, C, H, W] in [-1, 1] to distances [B]."""

SETTINGS: Mapping[str, Any] = {
    "distance": "huber",
    "lpips_weights": "",
    "lpips_size": 224,
    "lpips_bfloat16": False,
}
"""The settings of a recipe's loss that choose a distance, with their defaults."""


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute error of each pair, [B]."""
    return (a - b).abs().flatten(1).mean(dim=1)


def mean_squared(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of each pair, [B]."""
    return (a - b).square().flatten(1).mean(dim=1)


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    """Return sqrt(|a - b|^2 + c^2) - c of each pair, [B], with the norm over the whole image."""
    squared = (a - b).square().flatten(1)
    c = 0.00054 * math.sqrt(squared.shape[1])
    return (squared.sum(dim=1) + c**2).sqrt() - c


_PLAIN: Mapping[str, Distance] = {"l1": mean_absolute, "l2": mean_squared, "huber": pseudo_huber}


def make_distance(settings: Mapping[str, Any]) -> Distance:
    """Build the distance of a recipe.

    Args:
        settings: distance; for lpips also lpips_weights (a file; empty means its usual place),
            lpips_size (side that images are resized to; 0 leaves them), and lpips_bfloat16
            (whether its features are computed in bfloat16: twice as fast, its gradient turns by
            about 5 degrees).

    Raises:
        BadInput: for an unknown name, or when the weights of LPIPS are missing.
    """
    name = settings["distance"]
    if name == "lpips":
        network = load_lpips(settings["lpips_weights"] or None, int(settings["lpips_size"]))
        wrapped = InBfloat16(network, bool(settings["lpips_bfloat16"]))

        def perceptual(a: Tensor, b: Tensor) -> Tensor:
            distance: Tensor = wrapped.to(a.device)(a, b)
            return distance

        return perceptual
    check_choice(name, ("lpips", *_PLAIN), "distance")
    return _PLAIN[name]
