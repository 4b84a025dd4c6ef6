"""Random perturbations of images, each a function of (seed, sample id, draw) alone.

The same (seed, id, draw) gives the same direction at every strength, so comparisons between
strengths, and with the limit of strength 0, are paired.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from advpure.base.budget import ARRAY, check_repeats
from advpure.base.errors import BadInput
from advpure.base.validation import check_choice, listed, whole
from advpure.core.randomness import RandomnessConfig, check_ids

Distribution = Literal["uniform", "gaussian", "sign"]
# Variance of one entry of a direction: what makes E||J v||^2 / variance the Frobenius norm of J.
VARIANCE: dict[str, float] = {"uniform": 1 / 3, "gaussian": 1 / 3, "sign": 1.0}


def check_distribution(distribution: str) -> None:
    """Refuse an unknown distribution."""
    check_choice(distribution, get_args(Distribution), "distribution")


def check_strength(strength: float, dtype: torch.dtype, fix: str) -> None:
    """Refuse a strength below the square root of the dtype's machine epsilon.

    Raises:
        BadInput: saying what to do instead, `fix`.
    """
    floor = torch.finfo(dtype).eps ** 0.5
    if strength < floor:
        raise BadInput(
            f"epsilon {strength:.3g}",
            f"is below {floor:.2g}, where {str(dtype).removeprefix('torch.')} keeps few digits of "
            "the difference",
            fix,
        )


def directions(
    distribution: Distribution,
    seed: int,
    ids: Sequence[int],
    draws: Sequence[int],
    shape: Sequence[int],
) -> Tensor:
    """Draw perturbations of strength 1.

    Args:
        distribution: ``uniform`` in [-1, 1); ``gaussian`` with standard deviation 1 / sqrt(3), so
            that the same strength means the same root mean square as uniform (and single pixels
            may exceed it); ``sign``: -1 or 1, the corners of the cube.
        seed: Base seed, 0 <= seed < 2**64.
        ids: Sample id of every row.
        draws: Number of the draw of every row.
        shape: Shape of one image.

    Returns:
        [B, *shape], float32, on the CPU. Entries are independent with mean 0 (of the uniform
        grid: -2**-24) and variance `VARIANCE`.

    Example:
        >>> directions("sign", 0, [7, 7], [0, 1], (2,)).abs().tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    check_distribution(distribution)
    ids, size = check_ids(ids), tuple(whole(side, "a side of shape") for side in listed(shape))
    draws = check_ids(draws, len(ids))
    check_repeats(len(ids) * math.prod(size), "numbers of perturbations", ARRAY // 4)
    xi = RandomnessConfig(seed, "counter").fold("perturbation", distribution)
    return torch.stack(
        [_direction(distribution, xi, i, k, size) for i, k in zip(ids, draws, strict=True)]
    )


def _direction(
    distribution: Distribution, xi: RandomnessConfig, i: int, draw: int, shape: Sequence[int]
) -> Tensor:
    if distribution == "gaussian":
        return xi.normal([i], "forward", 0, shape, draw)[0] / math.sqrt(3.0)
    share = xi.uniform([i], 0, shape, draw)[0]
    if distribution == "sign":
        return (share >= 0.5).to(share) * 2.0 - 1.0
    return share * 2.0 - 1.0
