"""What noising does to an image and its neighbourhood, in closed form.

Noising is affine, so it has one compression rate for all perturbations; distances between noisy
states and clean images follow from the same factors. All distances are in [0, 1] units.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.validation import Range, instance, number, truth, whole
from advpure.core.chain import Chain
from advpure.data import dataset_info

_LARGEST_SIDE = 2**14
"""Pixels; the weights of a side take 8 times its square in bytes."""


def forward_compression_rate(chain: Chain) -> float:
    """Return the compression rate of a purifier's forward phase: the product of its gains.

    For variance-preserving noising to index i that is sqrt(abar_i) (not abar_i); for
    added noise it is 1.

    Raises:
        BadInput: when a forward step is no scalar times the state plus noise.

    Example:
        >>> from advpure.purifiers.vp import noising_steps
        >>> from advpure.core.schedules import linear_schedule
        >>> chain = Chain(noising_steps(linear_schedule(), 99, "stepwise"))
        >>> round(forward_compression_rate(chain), 4)
        0.9471
    """
    instance(chain, Chain, "chain", "pass the chain of a purifier")
    rate = 1.0
    for step in chain:
        if step.phase != "forward":
            continue
        if step.gain is None:
            raise BadInput(
                f"forward step {step.name!r}", "has no gain", "measure expected_compression_rate"
            )
        rate *= abs(step.gain)
    return rate


def default_strength(dataset: str) -> float:
    """Return the strength of the uniform noise that belongs to a data set's radius.

    That is the default of every verb that perturbs by noise: the radius itself in linf, in l2 the
    noise of that norm; 8/255 for images whose data set has no radius.

    Example:
        >>> default_strength("digits"), round(default_strength("cifar10") * 255, 6)
        (0.15, 8.0)
    """
    info = dataset_info(dataset)
    if info.eps is None:
        return 8 / 255
    if info.norm == "linf":
        return info.eps
    return info.eps / uniform_noise_norm(1.0, math.prod(info.shape))


def uniform_noise_norm(eps: Annotated[float, Ge(0)], dimensions: Annotated[int, Ge(1)]) -> float:
    """Return the root mean square L2 norm of noise uniform in [-eps, eps]: eps sqrt(d / 3).

    Example:
        >>> round(uniform_noise_norm(8 / 255, 3072), 4)
        1.0039
    """
    eps = number(eps, "eps", Range(least=0))
    return eps * math.sqrt(whole(dimensions, "dimensions", 1) / 3)


def noised_distance(
    abar: Annotated[float, Ge(0), Le(1)],
    start: Annotated[float, Ge(0)],
    dimensions: Annotated[int, Ge(1)],
    rms: Annotated[float, Ge(0)] = 0.5,
) -> float:
    """Predict the L2 distance between a clean image and its perturbed, noised state.

    Three independent parts: noise sqrt(1 - abar) z, shrinkage (1 - sqrt(abar)) x, and what is left
    of the perturbation. Exact for the root mean square over noise and independent perturbations.

    Args:
        abar: Signal variance of the state.
        start: L2 norm of the perturbation, [0, 1] units.
        dimensions: d.
        rms: Root mean square of the clean image in model units ([-1, 1]).

    Source: [Wei2025], the Max column of table S8.
    """
    abar = number(abar, "abar", Range(least=0, most=1))
    start, rms = (number(value, "a norm", Range(least=0)) for value in (start, rms))
    side = 0.5 * math.sqrt(whole(dimensions, "dimensions", 1))
    root = math.sqrt(abar)
    return math.hypot(math.sqrt(1 - abar) * side, (1 - root) * rms * side, root * start)


def resized_noise_factor(source: int, target: int, *, antialias: bool = False) -> float:
    """Return the root mean square of resized white noise relative to before, bilinear, square.

    Averaged over positions: with the weights w of one axis, 2-D noise keeps the variance
    (mean_i sum_j w_ij^2)^2. From 256 to 224 pixels that is (65 / 98)^2.

    Args:
        source: Side before, pixels.
        target: Side after.
        antialias: Whether the kernel widens with the scale.

    Example:
        >>> round(resized_noise_factor(256, 224), 4)
        0.6633
    """
    source, target = (whole(side, "side", 1, _LARGEST_SIDE) for side in (source, target))
    antialias = truth(antialias, "antialias")
    rows: Tensor = torch.eye(source, dtype=torch.float64, device="cpu").reshape(
        source, 1, 1, source
    )
    weights = torch.nn.functional.interpolate(
        rows, size=(1, target), mode="bilinear", align_corners=False, antialias=antialias
    )
    return float(weights.square().sum(0).mean())
