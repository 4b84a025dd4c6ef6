"""APGD: projected gradient ascent that chooses its own step.

A step from x_k is z = P(x_k + eta s(grad L)), then x_{k+1} = P(x_k + a (z - x_k) + (1 - a)
(x_k - x_{k-1})) with a = 0.75; the first step has no momentum. eta starts at 2 epsilon. At the
checkpoints w_j of `checkpoints` a sample halves its eta and goes back to its best point when

1. the loss rose in fewer than rho of the steps since the last checkpoint, or
2. neither eta nor the best loss has changed since the last checkpoint.

All of this state belongs to one sample. After such a return "rose" compares with the loss of the
best point, from which the step was taken, as in the paper's algorithm; the official code compares
with the loss of the point that was left. Source: [Croce2020], algorithm 1.

`climb` is the ascent itself. Its rows may be lanes: several to one image, each with a start and a
goal of its own, which all leave when one of them succeeds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, cast

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from advpure.attacks.balls import ascent, project, row_radii
from advpure.attacks.oracle import Batch, Model, Oracle, Slope, check_batch
from advpure.attacks.outcome import AttackResult, Best, Tally, conclude, restarted
from advpure.attacks.projected import begin, offer_last
from advpure.attacks.settings import Count, RestartSettings, resolve
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids
from advpure.core.tiling import tiled

Share = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class APGDSettings(RestartSettings):
    """Settings of APGD; those of `RestartSettings` and its bases apply as well.

    Args:
        steps: Gradient steps.
        momentum: Weight a of the new direction.
        rho: Share of steps that must raise the loss for eta to be kept.
    """

    steps: Count = 100
    momentum: Share = 0.75
    rho: Share = 0.75


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps at which eta may be halved, w_j = ceil(p_j steps).

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    Example:
        >>> checkpoints(100)
        (0, 22, 41, 57, 70, 80, 87, 93, 99)
    """
    # Hundredths are exact, so that no rounding moves a checkpoint.
    places, gap = [0, 22], 22
    while places[-1] < 100:
        gap = max(gap - 3, 6)
        places.append(places[-1] + gap)
    nodes = (math.ceil(place * steps / 100) for place in places if place <= 100)
    return tuple(dict.fromkeys(nodes))


class _State(NamedTuple):
    """What each active sample carries: points [A, C, H, W], the rest [A]."""

    points: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    loss: Tensor
    best_loss: Tensor
    eta: Tensor
    rises: Tensor
    marked_loss: Tensor
    kept: Tensor

    def select(self, mask: Tensor) -> "_State":
        return _State(*(part[mask] for part in self))


@takes_pairs
def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: APGDSettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with APGD; arguments, result, errors and cost are those of `pgd` with iterate "best".

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> apgd(towards_white, gray, torch.tensor([1]), eps=0.25).success.item()
        True
    """
    chosen = resolve(APGDSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    sizes = row_radii(radii, chosen.eps, len(batch.images))
    return apgd_from(Oracle(model, chosen), batch, start, sizes)


def apgd_from(
    oracle: Oracle,
    batch: Batch,
    start: Tensor | None,
    sizes: Tensor,
    shape: Callable[[Tensor], Tensor] | None = None,
) -> AttackResult:
    """Attack a checked batch with APGD and its restarts.

    Args:
        oracle: The model, with `APGDSettings`.
        batch: The input.
        start: Starting points of the first run; None for those of the settings.
        sizes: Radius of every row [B].
        shape: Maps gradients [B, C, H, W] to what is climbed instead; None for themselves.
    """

    def once(batch: Batch, sizes: Tensor, restart: int) -> AttackResult:
        steps = cast(APGDSettings, oracle.settings).steps
        tally, first = Tally(batch), restart * (steps + 2)
        own = start if restart == 0 else None
        active = begin(oracle, batch, tally, own, sizes, restart=restart, step=first)
        climb(oracle, batch, tally, active, sizes, first=first, shape=shape)
        return conclude(tally, batch, oracle, first + steps + 1, sizes)

    return restarted(once, oracle, batch, sizes)


def climb(
    oracle: Oracle,
    batch: Batch,
    tally: Tally,
    active: Tensor,
    sizes: Tensor,
    *,
    first: int = 0,
    owners: Tensor | None = None,
    goals: Tensor | None = None,
    shape: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Climb from the points of the tally, and leave the best ones there.

    Args:
        oracle: The model, with `APGDSettings`.
        batch: The rows' images, labels and ids.
        tally: Starting points; counts and results go here.
        active: Rows to move [A].
        sizes: Radius of every row [B].
        first: Number of the first step, which selects fresh randomness.
        owners: The image that each row belongs to [B]: where samples stop, all rows of an image
            leave when one succeeds. None for one row an image.
        goals: What each row climbs [B], see `losses.towards`; None for the settings' loss.
        shape: Maps gradients to what is climbed instead.
    """
    chosen = cast(APGDSettings, oracle.settings)
    best = Best(batch.images)
    nodes = checkpoints(chosen.steps)
    state: _State | None = None

    for step in range(chosen.steps):
        if not len(active):
            break
        points = tally.images[active]
        own = None if goals is None else goals[active]
        slope = oracle.slope(points, batch.labels[active], batch.ids[active], first + step, own)
        if shape is not None:
            slope = slope._replace(gradient=tiled(shape, oracle.tile)(slope.gradient))
        tally.count(active, *oracle.passes)
        best.update(active, points, slope)
        if state is None:
            tally.note_gradients(active, slope)
            state, gradient = _first(points, slope, 2 * sizes[active]), slope.gradient
        else:
            state = _judge_step(state._replace(points=points), slope)
            gradient = slope.gradient
            if step in nodes:
                length = step - nodes[nodes.index(step) - 1]
                state, gradient = _adapt(state, gradient, chosen.rho * length)
        if chosen.stops:
            going = ~slope.success
            if owners is not None:
                going &= ~torch.isin(owners[active], owners[active[~going.cpu()]]).to(going.device)
            active, gradient, state = active[going.cpu()], gradient[going], state.select(going)
            if not len(active):
                break
        moved = _move(chosen, oracle.tile, step)(
            state.points, state.previous, batch.images[active], gradient, state.eta, sizes[active]
        )
        state = state._replace(previous=state.points)
        tally.images[active] = moved
        tally.iterations[active] += 1
    if len(active):
        offer_last(oracle, batch, tally, best, active, first + chosen.steps, goals)


def _move(settings: APGDSettings, tile: int | None, step: int) -> Any:
    share = 1.0 if step == 0 else settings.momentum

    def move(
        points: Tensor,
        previous: Tensor,
        centres: Tensor,
        gradient: Tensor,
        eta: Tensor,
        radii: Tensor,
    ) -> Tensor:
        reach = points + ascent(gradient, settings.norm) * eta[:, None, None, None]
        reach = project(reach, centres, radii, settings.norm)
        moved = points + (reach - points) * share + (points - previous) * (1.0 - share)
        return project(moved, centres, radii, settings.norm)

    return tiled(move, tile)


def _first(points: Tensor, slope: Slope, eta: Tensor) -> _State:
    return _State(
        points=points,
        previous=points,
        best=points,
        best_gradient=slope.gradient,
        loss=slope.loss,
        best_loss=slope.loss,
        eta=eta.to(slope.gradient),
        rises=torch.zeros_like(slope.loss),
        marked_loss=slope.loss,
        kept=torch.ones_like(slope.success),
    )


def _judge_step(state: _State, slope: Slope) -> _State:
    better = slope.loss > state.best_loss
    return state._replace(
        best=torch.where(_wide(better), state.points, state.best),
        best_gradient=torch.where(_wide(better), slope.gradient, state.best_gradient),
        best_loss=torch.where(better, slope.loss, state.best_loss),
        rises=state.rises + (slope.loss > state.loss),
        loss=slope.loss,
    )


def _adapt(state: _State, gradient: Tensor, needed: float) -> tuple[_State, Tensor]:
    """Apply the two conditions at a checkpoint: halve eta and restart from the best point."""
    stalled = state.kept & (state.marked_loss == state.best_loss)
    halve = (state.rises < needed) | stalled
    adapted = state._replace(
        points=torch.where(_wide(halve), state.best, state.points),
        loss=torch.where(halve, state.best_loss, state.loss),
        eta=torch.where(halve, state.eta / 2, state.eta),
        rises=torch.zeros_like(state.rises),
        marked_loss=state.best_loss,
        kept=~halve,
    )
    return adapted, torch.where(_wide(halve), state.best_gradient, gradient)


def _wide(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]
