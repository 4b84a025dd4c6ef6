"""Square: a random search over squares of the image that asks for scores alone, no gradient.

A step proposes points that differ from the current one in a square window, and takes the best of
them if its loss is larger. Under linf a window gets one random sign a channel times the radius;
under l2 the mass of one window moves into another, in the shape of two opposite pyramids. The share
p of pixels in a window shrinks along the schedule of the paper, stretched to the number of steps.
The start is stripes of random signs (linf), or a grid of such pyramids (l2).

Several proposals a step fill a compute tile that few images leave empty; one is the paper's
algorithm. Under fresh randomness the current point is asked again beside its proposals, under the
same draws. Source: [Andriushchenko2020], algorithms 1 to 3.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from advpure.attacks.balls import project, row_norms, row_radii
from advpure.attacks.losses import LossName
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Tally, conclude
from advpure.attacks.settings import AttackSettings, Count, Passes, resolve
from advpure.base.units import Norm
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.core.tiling import tiled

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps of 10,000 after which the share of pixels in a window is halved."""
_GRID = 5
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class SquareSettings(AttackSettings):
    """Settings of Square; those of `AttackSettings` apply as well.

    Args:
        queries: Forward passes an image, at most.
        proposals: Points tried in one step; the best of them may become the current one.
        eot: Passes that each point is judged by under fresh randomness.
        share: Share of the pixels in a window at first.
    """

    loss: LossName = "margin"
    queries: Count = 1000
    proposals: Count = 1
    eot: Count = 1
    share: Annotated[float, Gt(0), Le(1)] = 0.8

    @property
    def steps(self) -> int:
        """Steps of proposals that the queries pay for, after those of the start."""
        fresh = self.randomness == "fresh"
        first, each = (0, (self.proposals + 1) * self.eot) if fresh else (1, self.proposals)
        return max((self.queries - first) // each, 0)

    @property
    def most_passes(self) -> Passes:
        """The queries, and the tests before and after."""
        return Passes(max(self.queries, 1) + 2, 0)


@takes_pairs
def square(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: SquareSettings | None = None,
    *,
    ids: Ids | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with Square; arguments, result and errors are those of `pgd`.

    Cost: `queries` forward passes, and two tests; no backward pass. Under fixed randomness samples
    leave when they succeed, those that succeed unchanged at once.

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> square(towards_white, gray, torch.tensor([1]), eps=0.25).success.item()
        True
    """
    chosen = resolve(SquareSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    oracle, tally = Oracle(model, chosen), Tally(batch)
    sizes = row_radii(radii, chosen.eps, len(batch.images))
    active = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    if chosen.randomness == "fixed":
        tally.count(active, 1)
        active = active[~oracle.judge(*batch, step=0).success.cpu()]
    search(oracle, chosen, batch, tally, active, sizes, first=1)
    return conclude(tally, batch, oracle, chosen.steps + 3, sizes)


def search(
    oracle: Oracle,
    settings: SquareSettings,
    batch: Batch,
    tally: Tally,
    active: Tensor,
    sizes: Tensor,
    *,
    first: int = 0,
) -> None:
    """Search from a new start, and leave the last points in the tally.

    Args:
        oracle: The model.
        settings: Those of the search.
        batch: The input.
        tally: Counts and results go here.
        active: Rows to attack [A].
        sizes: Radius of every row [B].
        first: Number of the first pass, which selects fresh randomness.
    """
    fresh, count = settings.randomness == "fresh", settings.proposals
    xi = RandomnessConfig(settings.seed, "counter").fold("attack", "square")
    losses = torch.full((len(batch.images),), -torch.inf, device=batch.images.device)
    if not len(active):
        return
    channels, height, width = batch.images.shape[1:]
    numbers = channels * width if settings.norm == "linf" else (channels + 1) * _GRID**2
    begin = partial(_start, norm=settings.norm)
    drawn = xi.uniform(batch.ids[active], 0, (numbers,)).to(batch.images)
    points = tiled(begin, oracle.tile)(batch.images[active], drawn, sizes[active])
    tally.images[active] = points
    if not fresh:
        verdict = oracle.judge(points, batch.labels[active], batch.ids[active], first)
        tally.count(active, 1)
        losses[active] = verdict.loss.to(losses)
        active = active[~verdict.success.cpu()]

    for step in range(settings.steps):
        if not len(active):
            return
        side = side_at(step, settings.steps, settings.share, height, width, settings.norm)
        move = tiled(partial(_propose, side=side, norm=settings.norm), oracle.tile)
        centres, points = batch.images[active], tally.images[active]
        tried = [points] if fresh else []
        for number in range(count):
            drawn = xi.uniform(batch.ids[active], step + 1, (5 + channels,), number).to(points)
            tried.append(move(points, centres, drawn, sizes[active]))
        verdict = oracle.judge(
            torch.cat(tried),
            batch.labels[active].repeat(len(tried)),
            batch.ids[active].repeat(len(tried)),
            first + 1 + step,
            draws=settings.eot,
        )
        tally.count(active, len(tried) * (settings.eot if fresh else 1))
        tally.iterations[active] += 1
        loss = verdict.loss.reshape(len(tried), -1).to(losses)
        if not fresh:
            # What succeeds wins, though the loss of another were larger.
            loss = torch.where(verdict.success.reshape(loss.shape), torch.inf, loss)
        best, which = loss.max(dim=0)
        old = loss[0] if fresh else losses[active]
        better = best > old
        stacked = torch.stack(tried)[which, torch.arange(len(active), device=which.device)]
        tally.images[active] = torch.where(better[:, None, None, None], stacked, points)
        losses[active] = torch.where(better, best, old)
        if not fresh:
            active = active[~(best == torch.inf).cpu()]


def side_at(step: int, steps: int, share: float, height: int, width: int, norm: Norm) -> int:
    """Return the side of the window at a step.

    Example:
        >>> [side_at(k, 100, 0.8, 32, 32, "linf") for k in (0, 1, 50, 99)]
        [29, 14, 3, 1]
    """
    place = step * 10000 // steps
    pixels = share / 2 ** sum(place > mark for mark in _HALVINGS) * height * width
    side = max(round(pixels**0.5), 1 if norm == "linf" else 3)
    if norm == "l2" and side % 2 == 0:
        side += 1
    return int(min(side, height, width))


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers)


def _start(centres: Tensor, drawn: Tensor, sizes: Tensor, *, norm: Norm) -> Tensor:
    rows, channels, height, width = centres.shape
    if norm == "linf":
        stripes = _signs(drawn).reshape(rows, channels, 1, width)
        reach = sizes.to(centres)[:, None, None, None]
        return project(centres + stripes * reach, centres, sizes, norm)
    side = max(min(height, width) // _GRID, 1)
    signs = _signs(drawn[:, : channels * _GRID**2]).reshape(rows, channels, _GRID**2)
    turned = drawn[:, channels * _GRID**2 :] < 0.5
    delta = torch.zeros_like(centres)
    across = min(_GRID, height // side, width // side)
    margins = (height - side * across) // 2, (width - side * across) // 2
    for k in range(across**2):
        top, left = margins[0] + k // across * side, margins[1] + k % across * side
        shape = pyramids(side).to(centres)
        shape = torch.where(turned[:, k, None, None], shape.T, shape)[:, None]
        delta[:, :, top : top + side, left : left + side] = shape * signs[:, :, k, None, None]
    return _stretched(centres, delta, sizes)


def _propose(
    points: Tensor, centres: Tensor, drawn: Tensor, sizes: Tensor, *, side: int, norm: Norm
) -> Tensor:
    """Return a point [B, C, H, W] that differs in a window, from uniform numbers [B, 5 + C]."""
    signs = _signs(drawn[:, 5:])[:, :, None, None]
    window, down, right = _window(points, drawn[:, 0], drawn[:, 1], side)
    if norm == "linf":
        reach = sizes.to(points)[:, None, None, None]
        moved = torch.where(window, centres + signs * reach, points)
        return project(moved, centres, sizes, norm)
    delta = points - centres
    other, _, _ = _window(points, drawn[:, 2], drawn[:, 3], side)
    spare = (sizes.to(points)[:, None, None, None].square() - row_norms(delta).square()).clamp(0)
    held = (delta * (window | other)).square().sum(dim=(2, 3), keepdim=True)
    shape = pyramids(side).to(points)
    shape = torch.where(drawn[:, 4, None, None] < 0.5, shape.T, shape)
    index = (down.clamp(0, side - 1) * side + right.clamp(0, side - 1)).flatten(1)
    spread = shape.flatten(1).gather(1, index).reshape(len(points), 1, *points.shape[2:])
    inside = delta * window
    size = inside.square().sum(dim=(2, 3), keepdim=True).sqrt()
    fill = (spread * signs + inside / (size + _TINY)) * window
    length = fill.square().sum(dim=(2, 3), keepdim=True).sqrt()
    fill = fill / (length + _TINY) * (spare / points.shape[1] + held).sqrt()
    return _stretched(centres, torch.where(window, fill, delta * ~other), sizes)


def _window(
    points: Tensor, vertical: Tensor, horizontal: Tensor, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pixels lie in a square [B, 1, H, W], and their places in it [B, H, W]."""
    height, width = points.shape[2:]
    top = (vertical * (height - side + 1)).floor().clamp(max=height - side).long()
    left = (horizontal * (width - side + 1)).floor().clamp(max=width - side).long()
    down = torch.arange(height, device=points.device)[None, :, None] - top[:, None, None]
    right = torch.arange(width, device=points.device)[None, None, :] - left[:, None, None]
    down, right = down.expand(-1, -1, width), right.expand(-1, height, -1)
    inside = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    return inside[:, None], down, right


def _stretched(centres: Tensor, delta: Tensor, sizes: Tensor) -> Tensor:
    """Return centres plus delta, scaled to the radius and cut to the box."""
    reach = sizes.to(centres)[:, None, None, None]
    return (centres + delta / (row_norms(delta) + _TINY) * reach).clamp(0.0, 1.0)


def pyramids(side: int) -> Tensor:
    """Return two opposite pyramids above each other, [side, side], of l2 norm 1.

    Example:
        >>> shape = pyramids(4)
        >>> round(shape.norm().item(), 6), round(shape.sum().item(), 6)
        (1.0, 0.0)
    """
    half = side // 2
    both = torch.cat([_pyramid(half, side), -_pyramid(side - half, side)])
    shape: Tensor = both / both.norm()
    return shape


def _pyramid(height: int, width: int) -> Tensor:
    layers = torch.zeros((height, width), device="cpu")
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        layers[rows, columns] += 1 / (ring + 1) ** 2
    return layers / max(float(layers.norm()), _TINY)
