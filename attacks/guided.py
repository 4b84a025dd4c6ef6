"""Projected gradient ascent on any function of images, row by row: what trains and what boosts.

    x_{k+1} = P(x_k + a s(grad V(x_k)))

with the ball, the box and the step of `projected`, for a value V of the caller's. No label decides
what a success is: a row ends when the caller says so, or after all steps. Nothing is drawn.

Source: [Golan2024], algorithm 1, and the published code of [Ganz2022]. What algorithm 1 prints
differs in three ways, each a setting: its loop runs from 0 to T, T + 1 updates of which the last
is thrown away (`extra`); its gradient is not normalised, although radii and step sizes are those of
l2 steps of unit direction (`direction`); the norm of the ball is not named (`norm`). In the code of
[Ganz2022] the ball is centred at the first iterate instead of the image (`centre`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from advpure.attacks.balls import ascent, project
from advpure.base.errors import BadInput
from advpure.base.kinds import Limit, Natural, Positive
from advpure.base.units import Norm, check_images, refuse_l1
from advpure.base.validation import validate
from advpure.core.gradients import differentiating, plain
from advpure.core.tiling import tiled


@dataclass(frozen=True, kw_only=True)
class GuidedSettings:
    """How far and how often images move.

    Attributes:
        steps: Gradient steps.
        step_size: Size of a step in [0, 1] units; with a raw gradient its factor.
        eps: Radius of the ball in [0, 1] units; infinity for none.
        norm: Norm of the ball.
        direction: "unit": steps of one size, the sign of the gradient (linf) or its direction (l2).
            "raw": the gradient itself.
        centre: "image": the ball lies around the image. "first": around the first iterate, so that
            an image can move by a step more than eps.
        extra: Whether a gradient is computed and thrown away at the end, as is printed; it costs a
            pass more and changes no image.
    """

    steps: Natural
    step_size: Positive
    eps: Limit
    norm: Norm = "l2"
    direction: Literal["unit", "raw"] = "unit"
    centre: Literal["image", "first"] = "image"
    extra: bool = False

    def __post_init__(self) -> None:
        """Check every choice.

        Raises:
            BadInput: naming the setting and the rule.
        """
        refuse_l1(self.norm)
        validate(self)

    @classmethod
    def bigroc(
        cls, eps: float, *, labelled: bool = True, centre: Literal["image", "first"] = "image"
    ) -> "GuidedSettings":
        """Return the schedule of [Ganz2022], which climbs a classifier's -l_CE.

        Args:
            eps: Radius in [0, 1] units; 1 to 15 there, by generator.
            labelled: Whether the generator gives classes: then 7 steps of 1.5 eps / 7; else 30 of
                eps / 30, towards classes chosen after `advpure.networks.joint.debias`.
            centre: "first" is what the published code does.

        Example:
            >>> GuidedSettings.bigroc(7.0).step_size
            1.5
        """
        steps, step_size = (7, 1.5 * eps / 7) if labelled else (30, eps / 30)
        return cls(steps=steps, step_size=step_size, eps=eps, centre=centre)


class Aim(NamedTuple):
    """What is climbed.

    Attributes:
        value: [B], differentiable in the images; each row depends on its own image.
        done: bool [B], rows that stay where they are; None for none.
    """

    value: Tensor
    done: Tensor | None = None


Objective = Callable[[Tensor, Tensor], Aim]
"""Maps images [A, C, H, W] and their rows in the batch, int64 [A], to an `Aim`."""


class Guided(NamedTuple):
    """Where images went.

    Attributes:
        images: [B, C, H, W], in [0, 1] and in the ball.
        steps: int64 [B], steps taken, on the CPU.
        stopped: bool [B], which rows ended before all steps were taken, on the CPU.
    """

    images: Tensor
    steps: Tensor
    stopped: Tensor


def guide(
    objective: Objective,
    images: Tensor,
    settings: GuidedSettings,
    *,
    start: Tensor | None = None,
    tile: int | None = None,
) -> Guided:
    """Move images uphill.

    Args:
        objective: What to climb. It is asked for one gradient a step and row, of its values' sum,
            which is the exact gradient of every row; parameters get none.
        images: [B, C, H, W] in [0, 1].
        settings: How far.
        start: First iterates [B, C, H, W], pulled into the ball; None for the images.
        tile: Rows per call of the objective, which then sees no other number; None for all.

    Returns:
        Images that have no graph.

    Raises:
        BadInput: for images that cannot be used, or a gradient that is not finite.

    Cost: at most `steps` forward and backward passes an image.

    Example:
        >>> white = lambda points, rows: Aim(points.sum((1, 2, 3)))
        >>> settings = GuidedSettings(steps=2, step_size=0.25, eps=0.4, norm="linf")
        >>> guide(white, torch.full((1, 1, 1, 1), 0.5), settings).images.item()
        0.8999999761581421
    """
    check_images(images)

    def bound(points: Tensor, centres: Tensor) -> Tensor:
        return project(points, centres, settings.eps, settings.norm)

    centres = plain(images)
    points = centres.clone()
    if start is not None:
        if start.shape != images.shape:
            rule = f"is not {tuple(images.shape)}, the shape of the images"
            raise BadInput(f"start of shape {tuple(start.shape)}", rule, "give one each")
        points = tiled(bound, tile)(plain(start).to(centres), centres)
    taken = torch.zeros(len(images), dtype=torch.int64, device="cpu")
    active = torch.arange(len(images), dtype=torch.int64, device="cpu")

    def slope(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return _slope(objective, points, rows)

    def move(points: Tensor, gradient: Tensor) -> Tensor:
        if settings.direction == "unit":
            gradient = ascent(gradient, settings.norm)
        return points + gradient * settings.step_size

    for step in range(settings.steps + settings.extra):
        gradient, done = tiled(slope, tile)(points[active], active.to(points.device))
        going = ~done.cpu()
        active, gradient = active[going], gradient[going]
        if step == settings.steps or not len(active):
            break
        moved = tiled(move, tile)(points[active], gradient)
        if step == 0 and settings.centre == "first":
            centres[active] = moved.clamp(0.0, 1.0)
        points[active] = tiled(bound, tile)(moved, centres[active])
        taken[active] += 1
    return Guided(points, taken, taken < settings.steps)


def _slope(objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of every row [A, C, H, W], and which rows are done [A]."""
    with differentiating():
        points = plain(images).requires_grad_()
        aim = objective(points, rows)
        (gradient,) = torch.autograd.grad(aim.value.sum(), points)
    if not bool(gradient.isfinite().all()):
        raise BadInput("gradients", "contain NaN or infinite values", "mend the model")
    if aim.done is None:
        return gradient, torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return gradient, aim.done.detach()
