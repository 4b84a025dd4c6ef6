"""Ascent on a noisy gradient: momentum, and a step that shrinks.

    m_{k+1} = 0.9 m_k + g_k / mean |g_k|,        x_{k+1} = P(x_k + a_k s(m_{k+1}))

with a_k falling linearly from 0.21 to 0.01 of the radius. Where a gradient is a mean over few draws
of a random defense, APGD's own rules mislead: a loss that rose may be luck, and so may the best
point. Here no loss decides anything, momentum averages over steps what a mean over more draws
would average at one point, and the last point is returned. So few draws a step and many steps are
better than the reverse.

Source: [Dong2018] (momentum of normalised gradients).
"""

from typing import Any

import torch
from torch import Tensor

from advpure.attacks.balls import ascent, project
from advpure.attacks.oracle import Batch, Oracle
from advpure.attacks.outcome import Tally
from advpure.base.units import Norm
from advpure.core.tiling import tiled

MOMENTUM = 0.9
_FIRST, _LAST = 0.21, 0.01
"""Of the radius: the first step and what the last one tends to."""
_TINY = 1e-30


def drift(
    oracle: Oracle, batch: Batch, tally: Tally, rows: Tensor, sizes: Tensor, steps: int
) -> None:
    """Climb from the points of the tally, and leave the last ones there.

    Args:
        oracle: The model, with `GradientSettings`, whose `eot` is the passes of a step.
        batch: The input.
        tally: Starting points; counts and results go here.
        rows: Rows to move [A].
        sizes: Radius of every row [B].
        steps: Steps.
    """
    norm, draws = oracle.settings.norm, oracle.gradient_settings.eot
    velocity = torch.zeros_like(batch.images[rows])
    for step in range(steps):
        points = tally.images[rows]
        slope = oracle.slope(points, batch.labels[rows], batch.ids[rows], step)
        tally.count(rows, draws, draws)
        if step == 0:
            tally.note_gradients(rows, slope)
        share = _FIRST - (_FIRST - _LAST) * step / steps
        moved, velocity = tiled(_mover(norm, share), oracle.tile)(
            points, batch.images[rows], slope.gradient, velocity, sizes[rows]
        )
        tally.images[rows] = moved
        tally.iterations[rows] += 1


def _mover(norm: Norm, share: float) -> Any:
    def move(
        points: Tensor, centres: Tensor, gradient: Tensor, velocity: Tensor, radii: Tensor
    ) -> tuple[Tensor, Tensor]:
        size = gradient.abs().flatten(1).mean(dim=1)[:, None, None, None]
        velocity = MOMENTUM * velocity + gradient / (size + _TINY)
        reach = share * radii.to(points)[:, None, None, None]
        return project(points + ascent(velocity, norm) * reach, centres, radii, norm), velocity

    return move
