"""RayS: an attack that sees decisions alone, neither scores nor gradients.

It looks for the direction of signs d in {-1, 1}^n along which the border is nearest: the image at
distance r along d is x + r d (linf), or x + r d / sqrt(n) (l2), cut to the box. A step turns the
signs of one block of a hierarchy that halves the image again and again, 1, 2, 4, ... blocks. If the
point at the distance of the best direction is still adversarial, that distance is searched by
bisection; otherwise the next block is tried. A sample is done when its distance is within the
radius. Source: [Chen2020], algorithms 1 and 2.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advpure.attacks.balls import row_radii
from advpure.attacks.oracle import Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Tally, conclude
from advpure.attacks.settings import AttackSettings, Count, Passes, resolve
from advpure.base.units import Norm
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids
from advpure.core.tiling import tiled

_SHARE = 1e-3
"""Where a bisection ends, as a share of the radius."""


@dataclass(frozen=True, kw_only=True)
class RaySSettings(AttackSettings):
    """Settings of RayS; those of `AttackSettings` apply as well.

    Args:
        queries: Decisions asked for, at most.
    """

    queries: Count = 1000

    @property
    def most_passes(self) -> Passes:
        """The queries, and the tests before and after."""
        return Passes(self.queries + 2, 0)


class _State(NamedTuple):
    """What each row carries: signs [A, n], the rest [A]; a bisection has low < high <= best."""

    signs: Tensor
    trial: Tensor
    best: Tensor
    low: Tensor
    high: Tensor
    searching: Tensor
    level: Tensor
    block: Tensor

    def select(self, mask: Tensor) -> "_State":
        return _State(*(part[mask] for part in self))


@takes_pairs
def rays(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: RaySSettings | None = None,
    *,
    ids: Ids | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with RayS; arguments, result and errors are those of `pgd`.

    Cost: `queries` forward passes, and two tests; no backward pass. Under fixed randomness samples
    leave when they succeed; under fresh randomness each decision is another draw of the attack.

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> rays(towards_white, gray, torch.tensor([1]), eps=0.25).success.item()
        True
    """
    chosen = resolve(RaySSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    oracle, tally = Oracle(model, chosen), Tally(batch)
    exact = row_radii(radii, chosen.eps, len(batch.images))
    sizes = exact.to(batch.images)
    active = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    if chosen.randomness == "fixed":
        tally.count(active, 1)
        active = active[~oracle.judge(*batch, step=0).success.cpu()]
    state = _begin(batch.images[active], chosen.norm)
    norm = chosen.norm

    def along(centres: Tensor, signs: Tensor, distance: Tensor) -> Tensor:
        unit = signs.reshape(centres.shape)
        unit = unit if norm == "linf" else unit / unit[0].numel() ** 0.5
        return (centres + unit * distance[:, None, None, None]).clamp(0.0, 1.0)

    for step in range(chosen.queries):
        if not len(active):
            break
        distance = torch.where(state.searching, (state.low + state.high) / 2, state.best)
        points = tiled(along, oracle.tile)(batch.images[active], state.trial, distance)
        verdict = oracle.judge(points, batch.labels[active], batch.ids[active], step + 1)
        tally.count(active, 1)
        tally.iterations[active] += 1
        state = _answer(state, distance, verdict.success, sizes[active])
        ends = tiled(along, oracle.tile)(
            batch.images[active], state.signs, torch.minimum(state.best, sizes[active])
        )
        tally.images[active] = ends
        going = state.best > sizes[active]
        active, state = active[going.cpu()], state.select(going)
    return conclude(tally, batch, oracle, chosen.queries + 1, exact)


def _begin(images: Tensor, norm: Norm) -> _State:
    rows = len(images)
    signs = torch.ones((rows, images[0].numel() if rows else 1), device=images.device).to(images)
    far = 1.0 if norm == "linf" else float(signs.shape[1]) ** 0.5
    best = signs.new_full((rows,), far)
    none = torch.zeros(rows, dtype=torch.int64, device=images.device)
    # The first question is about the corner of the box along all signs.
    return _State(
        signs=signs,
        trial=signs,
        best=best,
        low=torch.zeros_like(best),
        high=best,
        searching=none.bool(),
        level=none,
        block=none - 1,
    )


def _answer(state: _State, distance: Tensor, success: Tensor, sizes: Tensor) -> _State:
    """Take the answers [A] to the questions at a distance [A]."""
    hit = ~state.searching & success
    low = torch.where(state.searching & ~success, distance, state.low)
    high = torch.where(state.searching & success, distance, state.high)
    low, high = torch.where(hit, torch.zeros_like(low), low), torch.where(hit, distance, high)
    searching = state.searching | hit
    # Nothing below the radius is of interest, so there the bisection ends as well.
    ended = searching & ((high - low <= _SHARE * sizes) | (high <= sizes))
    best = torch.where(ended, high, state.best)
    signs = torch.where(ended[:, None], state.trial, state.signs)
    missed = ~state.searching & ~success
    state = state._replace(signs=signs, best=best, low=low, high=high, searching=searching & ~ended)
    return _next_block(state, ended | missed)


def _next_block(state: _State, which: Tensor) -> _State:
    """Turn the signs of the next block of the rows in `which` [A]."""
    count = state.signs.shape[1]
    block = state.block + which
    last = block >= torch.minimum(2**state.level, torch.full_like(block, count))
    level = state.level + (which & last)
    level = torch.where(2 ** (level - 1).clamp(min=0) >= count, torch.zeros_like(level), level)
    block = torch.where(which & last, torch.zeros_like(block), block)
    parts = torch.minimum(2**level, torch.full_like(level, count))
    place = torch.arange(count, device=block.device)[None]
    inside = place * parts[:, None] // count == block[:, None]
    turned = torch.where(inside, -state.signs, state.signs)
    trial = torch.where(which[:, None], turned, state.trial)
    return state._replace(trial=trial, level=level, block=block)
