"""Lanes: many climbs to one image, which differ in their start and in what they climb.

The first lanes of an image each climb towards one of the classes that come nearest to the true one,
the others are restarts on the untargeted losses in turn. Lanes are rows like any other, so that few
images fill a compute tile; where samples stop at success, an image leaves with all its lanes when
one of them succeeds. Images go through in groups that bound memory, which changes no result.

`apgd_targeted` is the attack of these lanes alone. Source: [Croce2020], section 5, with the margin
z_t - z_y in place of the ratio, which needs no four classes and has the same signs under linf.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from advpure.attacks.autopgd import APGDSettings, climb
from advpure.attacks.balls import row_radii
from advpure.attacks.losses import CROSS_ENTROPY, MARGIN
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Contest, Tally, conclude
from advpure.attacks.projected import first_iterates
from advpure.attacks.settings import SELECTION, Count, Passes, resolve
from advpure.base.errors import BadInput
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids

_ROWS = 256
"""Lanes in memory at once, about."""


class Lanes(NamedTuple):
    """Where lanes ended: [R] rows of the batch, their points [R, C, H, W], numbers [R] of lanes."""

    rows: Tensor
    images: Tensor
    numbers: Tensor


def climb_lanes(
    oracle: Oracle,
    batch: Batch,
    tally: Tally,
    active: Tensor,
    sizes: Tensor,
    *,
    targets: int,
    restarts: int,
    first: int,
) -> Lanes:
    """Climb with all lanes of the rows [A].

    Args:
        oracle: The model, with `APGDSettings`.
        batch: The input.
        tally: Counts go here; its images stay.
        active: Rows to attack [A].
        sizes: Radius of every row [B].
        targets: Lanes with a class to reach; more than there are other classes go round again.
        restarts: Lanes without.
        first: Number of the first pass, which selects fresh randomness.

    Returns:
        The best point of every lane, those that left without one with what they had.
    """
    count = targets + restarts
    group = max(_ROWS // count, 1)
    parts = [
        _climb_group(oracle, batch, tally, rows, sizes, (targets, restarts), first)
        for rows in torch.split(active, group)
    ]
    return Lanes(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _climb_group(
    oracle: Oracle,
    batch: Batch,
    tally: Tally,
    rows: Tensor,
    sizes: Tensor,
    counts: tuple[int, int],
    first: int,
) -> Lanes:
    count = sum(counts)
    images, labels, ids = (part[rows] for part in batch)
    with torch.no_grad():
        ranked = oracle.answer(images, labels, ids, first).climbed
    tally.count(rows, 1)
    goals = lane_goals(ranked, labels, *counts)
    owners, numbers = rows.repeat_interleave(count), torch.arange(count).repeat(len(rows))
    wide = Batch(*(part[owners] for part in batch))
    own, everyone = Tally(wide, quiet=True), torch.arange(len(owners))
    own.images = first_iterates(oracle, wide, None, everyone, sizes[owners], numbers + 1)
    climb(
        oracle,
        wide,
        own,
        everyone,
        sizes[owners],
        first=first + 1,
        owners=owners,
        goals=goals.flatten(),
    )
    for name in ("iterations", "forwards", "backwards"):
        getattr(tally, name).index_add_(0, owners, getattr(own, name))
    return Lanes(owners, own.images, numbers)


def lane_goals(logits: Tensor, labels: Tensor, targets: int, restarts: int) -> Tensor:
    """Return what each lane climbs, [B, targets + restarts], from logits [B, classes].

    Example:
        >>> lane_goals(torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([0]), 2, 2).tolist()
        [[2, 1, -1, -2]]
    """
    others = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
    near = others[:, : max(logits.shape[1] - 1, 1)]
    wanted = [near[:, k % near.shape[1]] for k in range(targets)]
    free = [torch.full_like(labels, (CROSS_ENTROPY, MARGIN)[k % 2]) for k in range(restarts)]
    return torch.stack(wanted + free, dim=1)


@dataclass(frozen=True, kw_only=True)
class APGDTargetedSettings(APGDSettings):
    """Settings of targeted APGD: those of APGD, of which a restart is one more start of each class.

    Args:
        loss: The margin to the class that is to be reached.
        targets: Classes to reach, those with the largest logits first; at most all others count.
    """

    loss: Literal["margin"] = "margin"
    targets: Count = 9

    def __post_init__(self) -> None:
        """Check, and refuse labels that are goals already."""
        super().__post_init__()
        if self.targeted:
            raise BadInput("targeted", "is what this attack does to each class", "use apgd")

    @property
    def most_passes(self) -> Passes:
        """Those of all lanes, with what chooses among them."""
        lanes, chosen = self.targets * self.restarts, _draws(self)
        last = self.eot if self.randomness == "fresh" else 1
        apart = self.steps if self.stops and self.eot > 1 else 0
        each = self.steps * self.eot + apart + last + chosen
        return Passes(lanes * each + chosen + 2, lanes * self.steps * self.eot)


def _draws(settings: APGDSettings) -> int:
    return SELECTION if settings.randomness == "fresh" else 1


@takes_pairs
def apgd_targeted(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: APGDTargetedSettings | None = None,
    *,
    ids: Ids | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with APGD towards each of the nearest classes; otherwise like `apgd`.

    The labels are the true classes. Under fresh randomness the lane is returned that fails in the
    fewest of 20 draws which no gradient and no report sees.
    """
    chosen = resolve(APGDTargetedSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    oracle, tally = Oracle(model, chosen), Tally(batch)
    sizes = row_radii(radii, chosen.eps, len(batch.images))
    contest = Contest(oracle, batch)
    rows = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    rows = contest.enter(tally, rows, batch.images, 0)
    if len(rows):
        lanes = climb_lanes(
            oracle,
            batch,
            tally,
            rows,
            sizes,
            targets=chosen.targets * chosen.restarts,
            restarts=0,
            first=0,
        )
        contest.enter(tally, lanes.rows, lanes.images, lanes.numbers + 1)
    tally.images = contest.images
    return conclude(tally, batch, oracle, chosen.steps + 2, sizes)
