"""Which training images a step sees: a pure function of the seed and the step."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.training.randomness import integers, step_generator


class BatchOrder(NamedTuple):
    """Images of a batch.

    Attributes:
        positions: int64 [B], positions in the training split.
        mirrored: bool [B], which of them a recipe that flips shows mirrored.
    """

    positions: Tensor
    mirrored: Tensor


def epoch_batch(seed: int, step: int, batch: int, size: int) -> BatchOrder:
    """Return the images of a step when every image comes once an epoch.

    An image is mirrored in every other epoch, beginning with the first or the second by a coin:
    two epochs show both sides of every image.

    Args:
        seed: The recipe's seed.
        step: The step, from 0.
        batch: Images a step; what is left of an epoch below a whole batch is skipped.
        size: Images in the split.

    Raises:
        BadInput: when a batch is larger than the split.

    Source: alternating flips, [Jordan2024], section 3.6.

    Example:
        >>> first, second = (epoch_batch(0, step, 2, 4).positions for step in (0, 1))
        >>> sorted([*first.tolist(), *second.tolist()])
        [0, 1, 2, 3]
    """
    if batch > size:
        raise BadInput(f"batch {batch}", f"is larger than the {size} images", "lower it")
    steps = size // batch
    epoch, within = step // steps, step % steps
    order, coins = _permutation(seed, epoch, size), _coins(seed, size)
    index = order[within * batch : (within + 1) * batch]
    return BatchOrder(index, (coins[index] + epoch) % 2 == 1)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> Tensor:
    """Return the order of an epoch, int64 [size]."""
    return torch.randperm(
        size, generator=step_generator(seed, "epoch", epoch), dtype=torch.int64, device="cpu"
    )


@lru_cache(maxsize=2)
def _coins(seed: int, size: int) -> Tensor:
    """Return which images are mirrored in the first epoch, 0 or 1, [size]."""
    return integers(0, 2, (size,), step_generator(seed, "first side"))
