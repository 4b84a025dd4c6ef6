"""Boosting step by step, and its exact derivative.

PGD (algorithm 2) and SGLD (algorithm 3) move an image x, aimed at a class c, by

    x <- P(x - a g / |g|),    g = grad l(x, c)
    x <- x + a g / |g| + s z,  g = grad f_c(x), z standard normal

with l one of `advpure.boosting.objective`, P the projection to a ball around the image and to the
box [0, 1], and the sign of g in place of g / |g| where the norm is l-inf. The class is given, or
the most likely one before the first step. A row that is real enough stays where it is, and so it
does ever after.

The derivative of a step contains the second derivative of l. A gradient through all of it is exact:
steps are replayed one by one on the way back, so that one step's graph is in memory at a time.

Source: [Golan2024]; step and projection are those of l2 PGD.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from advpure.attacks.balls import direction, project
from advpure.base.errors import BadInput
from advpure.boosting.objective import boosting_loss, is_real_enough
from advpure.boosting.settings import BoostSettings
from advpure.core.gradients import differentiating, plain
from advpure.networks.joint import check_classes

Draw = Callable[[int, Tensor], Tensor]
"""Number of a step and images to standard normal noise of their shape."""
Seen = Callable[[int, Tensor], None]
"""Number of steps taken and the images after them, [B, C, H, W] without a graph."""


class Refined(NamedTuple):
    """Boosted images.

    Attributes:
        images: [B, C, H, W] in [0, 1].
        classes: What they were aimed at, int64 [B].
        taken: Steps that each took before it was left alone, int64 [B].
    """

    images: Tensor
    classes: Tensor
    taken: Tensor


@dataclass(frozen=True)
class Refinement:
    """One booster at work.

    Attributes:
        model: Images [B, C, H, W] in [0, 1] to logits [B, K]; rows are independent.
        settings: What is descended, and how.
        l0: l_BCE of real images; None where that is not known.
        debias: What is added to logits, [K], before a class is chosen.
        draw: The noise of sgld.
    """

    model: nn.Module
    settings: BoostSettings
    l0: float | None = None
    debias: Tensor | None = None
    draw: Draw | None = None

    def run(
        self, images: Tensor, classes: Tensor | None = None, seen: Seen | None = None
    ) -> Refined:
        """Boost images [B, C, H, W] towards classes, int64 [B], or the most likely ones.

        Gradients flow: forward-mode ones and those of one backward pass.

        Raises:
            BadInput: for classes that the model does not have, or gradients that are not finite.
        """
        if images.is_inference():
            images = plain(images)
        is_dual = forward_ad.unpack_dual(images).tangent is not None  # type: ignore[no-untyped-call]
        graph = torch.is_grad_enabled() and images.requires_grad
        if is_dual or not graph:
            return self._walk(images, classes, graph=graph, seen=seen)
        moved, *rest = _Replay.apply(images, classes, self)
        return Refined(moved, *rest)

    def _walk(
        self,
        images: Tensor,
        classes: Tensor | None,
        *,
        graph: bool = False,
        seen: Seen | None = None,
        kept: list[Tensor] | None = None,
    ) -> Refined:
        x = centres = images.clamp(0.0, 1.0)
        taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        is_over = False
        for k in range(self.settings.count):
            if is_over and seen is None:
                break
            if kept is not None:
                kept.append(x)
            if not is_over:
                step = self.step(k, x, centres, classes, graph=graph)
                x, classes = step.images, step.classes
                is_over = step.going is not None and not bool(step.going.any())
                taken += 1 if step.going is None else step.going
                if k == 0 and self.settings.centre == "first":
                    centres = x
            if seen is not None:
                seen(k + 1, x.detach().clamp(0.0, 1.0))
        assert classes is not None
        return Refined(x.clamp(0.0, 1.0), classes, taken)

    def step(
        self, k: int, x: Tensor, centres: Tensor, classes: Tensor | None, *, graph: bool = False
    ) -> "Stepped":
        """Take step k, from 0, differentiably in images and centres of the ball where `graph`."""
        s = self.settings
        gradient, classes, going = self._slope(x, classes, graph, is_first=k == 0)
        peak = gradient.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
        least, most = (each.item() for each in peak.aminmax())  # both NaN where a gradient is
        if not most < float("inf"):
            raise BadInput("gradients", "contain NaN or infinite values", "mend the model")
        goes = None if going is None else going[:, None, None, None]
        is_whole = least > 0 and (goes is None or bool(goes.all()))
        moves, arrow = peak, gradient
        if not is_whole:
            # Rows that stay get some other direction, since none has no derivative.
            moves = peak > 0 if goes is None else goes & (peak > 0)
            arrow = torch.where(moves, gradient, torch.ones_like(gradient))
            peak = torch.where(moves, peak, torch.ones_like(peak))
        if s.direction == "unit":
            arrow = direction(arrow, peak) if s.norm == "l2" else arrow.sign()
        if s.method == "sgld":
            assert self.draw is not None
            drift = arrow if is_whole else torch.where(moves, arrow, torch.zeros_like(arrow))
            moved = x - s.size * drift + s.noise * self.draw(k, x)
            return Stepped(moved if goes is None else torch.where(goes, moved, x), classes, going)
        moved = x - s.size * arrow
        if s.eps < float("inf") and (k or s.centre == "image"):
            moved = project(moved, centres, s.eps, s.norm)
        else:
            moved = moved.clamp(0.0, 1.0)
        return Stepped(moved if is_whole else torch.where(moves, moved, x), classes, going)

    def _slope(
        self, x: Tensor, classes: Tensor | None, graph: bool, *, is_first: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradient of what is descended, the classes, and which rows go on."""
        with differentiating():
            # A view keeps a tangent, which detach() would drop.
            at = x if x.requires_grad else x.view_as(x).requires_grad_()
            logits = self.model(at)
            if classes is None:
                classes = self._choose(logits.detach())
            elif is_first:
                check_classes(classes, logits)
            value = boosting_loss(logits, classes, self.settings, self.l0)
            one = torch.ones_like(value)
            (gradient,) = torch.autograd.grad(value, at, one, create_graph=graph)
        if not self.settings.stops:
            return gradient, classes, None
        return gradient, classes, ~is_real_enough(logits.detach(), classes, self.l0)

    def _choose(self, logits: Tensor) -> Tensor:
        shift = 0.0 if self.debias is None else self.debias.to(logits)
        return (logits + shift).argmax(dim=1)


class Stepped(NamedTuple):
    """Rows after a step, their classes, and which had not been left alone before; None for all."""

    images: Tensor
    classes: Tensor
    going: Tensor | None


class _Replay(torch.autograd.Function):
    """Boost keeping the images before each step; replay each step on the way back."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, classes: Tensor | None, refinement: Refinement
    ) -> Refined:
        kept: list[Tensor] = []
        refined = refinement._walk(images, classes, kept=kept)
        ctx.refinement, ctx.classes = refinement, refined.classes
        ctx.save_for_backward(images, *kept)
        ctx.mark_non_differentiable(refined.classes, refined.taken)
        return refined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *rest: Any) -> tuple[Tensor, None, None]:
        images, *kept = ctx.saved_tensors
        at, first = ctx.refinement, ctx.refinement.settings.centre == "first"
        centres = kept[min(1, len(kept) - 1)] if first else kept[0]
        pulled_centres = torch.zeros_like(gradient)
        last = True
        for k in reversed(range(len(kept))):
            if k == 0 and first:
                gradient, pulled_centres = gradient + pulled_centres, torch.zeros_like(gradient)
            with differentiating():
                x, c = (each.detach().requires_grad_() for each in (kept[k], centres))
                y = at.step(k, x, c, ctx.classes, graph=True).images
                y = y.clamp(0.0, 1.0) if last else y
                gradient, share = torch.autograd.grad(y, (x, c), gradient, materialize_grads=True)
            pulled_centres, last = pulled_centres + share, False
        gradient = gradient + pulled_centres
        with differentiating():
            x = images.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(x.clamp(0.0, 1.0), x, gradient)
        return pulled, None, None
