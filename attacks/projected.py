"""Projected gradient descent, the attack of the protocol of [Wei2025].

    x_{k+1} = P(x_k + a s(grad L(x_k)))

with s the sign (l-inf) or the unit direction (l2), P the projection to the ball and the box, and a
the step. The defaults, 40 steps of epsilon / 30 from a uniform start, last iterate, are foolbox's
and the paper's; they travel 1.33 epsilon, a weak attack, so also try `step_size` 2/255.

Source: [Madry2018].
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Gt
from torch import Tensor

from advpure.attacks.balls import ascent, draw_in_ball, place, project, row_radii
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import (
    AttackResult,
    Best,
    Tally,
    conclude,
    restarted,
    starting_point,
)
from advpure.attacks.settings import Count, RestartSettings, resolve
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.core.tiling import tiled


@dataclass(frozen=True, kw_only=True)
class PGDSettings(RestartSettings):
    """Settings of PGD; those of `RestartSettings` and its bases apply as well.

    Args:
        steps: Gradient steps.
        step_size: Size of a step in [0, 1] units; None is epsilon / 30.
        iterate: "last": the final iterate. "best": among all iterates a successful one before an
            unsuccessful one, then the one with the larger loss; costs one more forward pass. Under
            fresh randomness each iterate is seen under another draw, so this favours lucky draws.
    """

    steps: Count = 40
    step_size: Annotated[float, Gt(0)] | None = None
    iterate: Literal["last", "best"] = "last"

    @property
    def step(self) -> float:
        """The size of a step in [0, 1] units."""
        return self.eps / 30 if self.step_size is None else self.step_size

    def step_of(self, radii: Tensor) -> Tensor:
        """Return the size of a step [B] for rows with radii [B] of their own, in proportion."""
        return radii / 30 if self.step_size is None else self.step_size * (radii / self.eps)


@takes_pairs
def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: PGDSettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with projected gradient descent.

    Args:
        model: Images [B, C, H, W] in [0, 1] to logits [B, classes].
        images: [B, C, H, W], floating point in [0, 1].
        labels: True classes [B], or the classes to reach when targeted.
        settings: All choices; None for the defaults.
        ids: Data-set indices [B], the key of all randomness; None means those that the model is
            bound to, else 0 .. B-1.
        start: First iterates [B, C, H, W], pulled into the ball; replaces the random start.
        radii: A radius for each row [B], at most eps, instead of eps for all. A row is attacked as
            it would be alone with that eps; a step size that is set belongs to eps, and shrinks
            with the radius.
        overrides: Single settings, such as eps="8/255".

    Returns:
        Adversarial images and per-sample results. A sample's result has the same bits in every
        batch if the model has a `tile`. Cost: `eot` forward and backward passes per step and
        sample, one forward pass at the end, and one at the beginning where samples may stop early.

    Raises:
        BadInput: for settings, images, labels or outputs that cannot be used.

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> result = pgd(towards_white, gray, torch.tensor([1]), eps=0.25, random_start=False)
        >>> result.success.item(), result.iterations.item(), round(result.linf.item(), 3)
        (True, 13, 0.108)
    """
    chosen = resolve(PGDSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    oracle, sizes = Oracle(model, chosen), row_radii(radii, chosen.eps, len(batch.images))

    def once(batch: Batch, sizes: Tensor, restart: int) -> AttackResult:
        return _descend(oracle, batch, start if restart == 0 else None, sizes, restart)

    return restarted(once, oracle, batch, sizes)


def _descend(
    oracle: Oracle, batch: Batch, start: Tensor | None, sizes: Tensor, restart: int
) -> AttackResult:
    chosen = cast(PGDSettings, oracle.settings)
    tally, best = Tally(batch), Best(batch.images) if chosen.iterate == "best" else None
    first = restart * (chosen.steps + 2)
    active = begin(oracle, batch, tally, start, sizes, restart=restart, step=first)

    def advance(points: Tensor, centres: Tensor, gradient: Tensor, radii: Tensor) -> Tensor:
        step = chosen.step_of(radii).to(points)[:, None, None, None]
        return project(points + ascent(gradient, chosen.norm) * step, centres, radii, chosen.norm)

    for step in range(chosen.steps):
        if not len(active):
            break
        points = tally.images[active]
        slope = oracle.slope(points, batch.labels[active], batch.ids[active], first + step)
        tally.count(active, *oracle.passes)
        tally.note_success(active, slope)
        if step == 0:
            tally.note_gradients(active, slope)
        if best is not None:
            best.update(active, points, slope)
        gradient = slope.gradient
        if chosen.stops:
            going = ~slope.success
            active, points, gradient = active[going.cpu()], points[going], gradient[going]
        if not len(active):
            break
        moved = tiled(advance, oracle.tile)(points, batch.images[active], gradient, sizes[active])
        tally.images[active] = moved
        tally.iterations[active] += 1
    if best is not None and len(active):
        offer_last(oracle, batch, tally, best, active, first + chosen.steps)
    return conclude(tally, batch, oracle, first + chosen.steps + 1, sizes)


def begin(
    oracle: Oracle,
    batch: Batch,
    tally: Tally,
    start: Tensor | None,
    radii: Tensor | None = None,
    *,
    restart: int = 0,
    step: int = 0,
) -> Tensor:
    """Put the starting points into the tally and return the rows [A] that need an attack.

    Where samples stop at success, those that succeed unchanged are left out. The radius is that of
    the settings, or one for each row, `radii` [B]. A restart, numbered from 1, takes other random
    points, and only samples that did not succeed before; `step` numbers its first pass.
    """
    settings = oracle.gradient_settings
    active = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    points = starting_point(start, batch, settings)
    moves = points is not None or settings.random_start
    if settings.stops and moves and restart == 0:
        clean = oracle.judge(*batch, step=step)
        tally.count(active, 1)
        active = active[~clean.success.cpu()]
    if moves and len(active):
        repeats = torch.full((len(batch.images),), restart, dtype=torch.int64, device="cpu")
        tally.images[active] = first_iterates(oracle, batch, points, active, radii, repeats)
    return active


def first_iterates(
    oracle: Oracle,
    batch: Batch,
    start: Tensor | None,
    active: Tensor,
    radii: Tensor | None = None,
    repeats: Tensor | None = None,
) -> Tensor:
    """Return the given or drawn starting points of the rows [A], inside ball and box.

    Rows of one id draw the same point, unless their numbers of a repetition, `repeats` [B], differ.
    """
    settings, centres = oracle.settings, batch.images[active]
    sizes = row_radii(radii, settings.eps, len(batch.images))[active]

    def bound(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
        return project(points, centres, radii, settings.norm)

    if start is not None:
        return tiled(bound, oracle.tile)(start[active], centres, sizes)

    def draw(centres: Tensor, radii: Tensor, offset: Tensor, radius: Tensor | None) -> Tensor:
        return bound(place(centres, offset, radius), centres, radii)

    xi = RandomnessConfig(settings.seed, "counter").fold("attack", "start")
    numbers = torch.zeros_like(active) if repeats is None else repeats[active]
    points = centres.clone()
    for number in sorted(set(numbers.tolist())):
        rows = torch.nonzero(numbers == number)[:, 0]
        own, reach = centres[rows], sizes[rows]
        offset, radius = draw_in_ball(
            xi, batch.ids[active][rows], own, reach, settings.norm, number
        )
        points[rows] = tiled(draw, oracle.tile)(own, reach, offset, radius)
    return points


def offer_last(
    oracle: Oracle,
    batch: Batch,
    tally: Tally,
    best: Best,
    active: Tensor,
    step: int,
    goals: Tensor | None = None,
) -> None:
    """Let the last iterates of the rows [A] compete, then return the best ones.

    Under fresh randomness they are judged by as many draws as a gradient takes.
    """
    points, draws = tally.images[active], oracle.gradient_settings.eot
    own = None if goals is None else goals[active]
    verdict = oracle.judge(points, batch.labels[active], batch.ids[active], step, own, draws)
    fresh = oracle.settings.randomness == "fresh"
    tally.count(active, draws if fresh else 1)
    best.update(active, points, verdict)
    tally.images[active] = best.images[active]
