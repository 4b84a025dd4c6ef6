"""Distances to the clean image along a purification: before it, and after every step of the chain.

States are mapped to [0, 1] units by (x + 1) / 2 and nothing else: not clipped, and not divided by
the scale of a variance-preserving state, so that shrinkage counts as distance ([Wei2025], figure
1c and tables S7 to S9; the metric `distance` undoes the scale).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.analysis.target import check_result
from advpure.base.units import to_model, to_unit
from advpure.core.chain import Noise, Step
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled


class Trajectory(NamedTuple):
    """Distances to the clean images along the purification of a batch, and its end.

    Attributes:
        l2: Euclidean distances [B, steps + 1], float64, on the CPU; index 0 is before the chain.
        linf: Largest distances of a pixel, likewise.
        purified: Purified images [B, C, H, W], not clipped.
    """

    l2: Tensor
    linf: Tensor
    purified: Tensor


def measure_trajectory(
    purifier: Purifier,
    images: Tensor,
    moved: Tensor,
    ids: Tensor,
    xi: RandomnessConfig | None,
    tile: int | None = None,
) -> Trajectory:
    """Purify perturbed images and measure every state on the way.

    Args:
        purifier: What purifies; its own randomness, ids and tile are not used.
        images: Clean images [B, C, H, W] in [0, 1].
        moved: What enters the purifier, the same shape; it may leave [0, 1].
        ids: Sample ids [B].
        xi: Randomness; None for a purifier that needs none.
        tile: Compute tile: with one, a row has the same bits in any batch.

    Returns:
        Distances in [0, 1] units, and the purified images, with the bits that `Purifier` gives at
        this tile. Detached. Cost: one purification.

    Raises:
        BadInput: when a purified image is not finite.

    Example:
        >>> from advpure.loading import load_purifier
        >>> x = torch.full((1, 1, 8, 8), 0.5)
        >>> ids, purifier = torch.tensor([0]), load_purifier("none")
        >>> trajectory = measure_trajectory(purifier, x, x + 0.25, ids, None)
        >>> trajectory.l2.tolist(), trajectory.linf.tolist()
        ([[2.0]], [[0.25]])
    """

    def run(clean: Tensor, x: Tensor, rows: Tensor) -> Trajectory:
        reference = clean.cpu().double()
        lengths, peaks, last = [], [], x
        for state in _units(x, purifier.chain.states(to_model(x), Noise(xi, rows))):
            change = (state.cpu().double() - reference).flatten(1)
            lengths.append(change.square().sum(dim=1).sqrt())
            peaks.append(change.abs().amax(dim=1))
            last = state
        return Trajectory(torch.stack(lengths, 1), torch.stack(peaks, 1), last)

    with torch.no_grad():  # a measurement, not a gradient
        trajectory: Trajectory = tiled(run, tile)(images, moved, ids)
    check_result(trajectory.purified, images, ids.tolist())
    return trajectory


def _units(start: Tensor, states: Iterable[tuple[Step, Tensor]]) -> Iterator[Tensor]:
    """Yield the start and the states after it in [0, 1] units."""
    yield start
    for _, state in states:
        yield to_unit(state)
