"""The standard attack: an ensemble on exact gradients and on none, within a stated budget.

Its members, in order, each on the images that no earlier one has fooled in all selection draws:

1. `apgd-ce`: APGD on the cross-entropy from one random start;
2. `apgd-targeted` and `apgd-restart`, side by side as lanes of one image (`advpure.attacks.lanes`):
   APGD on the margin to each of the nearest classes, and on cross-entropy and margin from other
   starts;
3. `square`: a random search on the margin that no missing gradient blinds. An image whose first
   gradient is exactly zero skips the others and spends all here.

Under fresh randomness few images are ever fooled in all draws, and a gradient is a mean over noise:
there the first climb is `momentum` (`advpure.attacks.drift`), which gets most of the budget and
the lanes the rest, and Square is left to images without a gradient.

Every member ends in candidates, the unchanged image being the first. For each image the one is
returned that fails in the fewest selection draws: under fixed randomness that is the model's own
answer, under fresh randomness 20 draws that no gradient and no report sees. The best of many noisy
candidates looks stronger in the draws that chose it than it is; decisions are therefore made on
draws of their own, and what a run reports has no such bias.

The budget counts evaluations: forward passes of one image through the whole defense, with or
without a gradient. `StandardSettings.plan` divides it; samples that are fooled spend less. The
default, 2000, is about 275 tile steps where few images are left: 100, 57 and 118.

Source: [Croce2020] (ensemble), [Andriushchenko2020] (square), [Athalye2018] (EOT).
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from advpure.attacks.autopgd import APGDSettings, climb
from advpure.attacks.balls import row_radii
from advpure.attacks.drift import drift
from advpure.attacks.lanes import climb_lanes
from advpure.attacks.losses import MARGIN, LossName
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Contest, Tally, conclude, starting_point
from advpure.attacks.projected import first_iterates
from advpure.attacks.settings import SELECTION, AttackSettings, Count, Passes, resolve
from advpure.attacks.square import SquareSettings, search
from advpure.base.display import counted
from advpure.base.errors import BadInput
from advpure.core.given import takes_pairs
from advpure.core.gradients import GradientMode
from advpure.core.randomness import Ids

MEMBERS = ("clean", "apgd-ce", "momentum", "apgd-targeted", "apgd-restart", "square")
"""The names of the members, by their numbers in a contest."""
_TARGETS, _LANES = 9, 16
_MOST, _ENOUGH = 100, 20
"""Steps of a climb, at most, and those below which fewer lanes are better than shorter ones."""
_PROPOSALS = 8
_FIRST, _DEEP, _WIDE = 0.05, 0.8, 0.5
"""Shares: of the budget for the first climb, fixed and fresh; of the rest for the lanes."""
_JUDGED = 4
"""Passes by which a random search judges a point of a random defense, and that look whether a
gradient is there."""
_SPARSE = 4
"""By how much fewer passes a step of the first climb takes on a random defense, and has more."""
_GROWTH, _FEWEST = 4, 10
"""From one rung of a ladder of budgets to the next, and steps of the first climb on the first."""
_LONG = 10**6
"""Between the numbers of passes of two members, so that fresh draws never meet."""


class Plan(NamedTuple):
    """How a budget is divided.

    Attributes:
        first: Steps of the first climb.
        targets: Lanes towards a class.
        restarts: Lanes from another start.
        steps: Steps of every lane.
        queries: Forward passes of the random search.
        passes: Passes of a step of the first climb where that is `momentum`, 0 for APGD.
    """

    first: int
    targets: int
    restarts: int
    steps: int
    queries: int
    passes: int = 0

    @property
    def text(self) -> str:
        """What is run, in words."""
        parts = [f"APGD {counted(self.first, 'step')}"]
        if self.passes:
            each = "passes" if self.passes > 1 else "pass"
            parts = [f"momentum {counted(self.first, 'step')} of {self.passes} {each}"]
        if self.targets:
            parts.append(counted(self.targets, "target"))
        if self.restarts:
            parts.append(counted(self.restarts, "restart"))
        if self.targets:
            parts[-1] += f" of {counted(self.steps, 'step')}"
        parts.append(f"Square {self.queries} queries" if self.queries else "no Square")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class StandardSettings(AttackSettings):
    """Settings of the standard attack; those of `AttackSettings` apply as well.

    Args:
        loss: The margin, by which candidates are compared; the members climb losses of their own.
        budget: Evaluations an image, at most: forward passes through the whole defense.
        eot: Passes per gradient under fresh randomness; fixed randomness needs one.
        gradient: Gradient mode of the defense during the attack; None keeps the defense's own.
    """

    loss: LossName = "margin"
    budget: Annotated[int, Ge(1), Le(10**6)] = 2000
    eot: Count = 16
    gradient: GradientMode | None = None

    def __post_init__(self) -> None:
        """Check, and refuse what the ensemble cannot do."""
        super().__post_init__()
        if self.targeted:
            raise BadInput("targeted", "is not what the standard attack does", "use apgd")
        if self.loss != "margin":
            raise BadInput(
                f"loss {self.loss}",
                "is not for the standard attack, whose members have losses of their own",
                "leave it out, or name one attack",
            )
        if self.budget < self._least:
            raise BadInput(
                f"budget {self.budget}",
                f"pays for no step under {self.randomness} randomness",
                f"give at least {self._least} evaluations an image",
            )

    @property
    def _passes(self) -> int:
        """Passes a gradient."""
        return self.eot if self.randomness == "fresh" else 1

    @property
    def look(self) -> int:
        """Passes that look for a gradient."""
        return min(self._passes, _JUDGED)

    @property
    def _draws(self) -> int:
        """Passes by which one candidate is compared."""
        return SELECTION if self.randomness == "fresh" else 1

    @property
    def _least(self) -> int:
        return 2 * self._draws + 2 * self._passes + self.look + 2

    @property
    def plan(self) -> Plan:
        """How the budget is divided among the members.

        Example:
            >>> StandardSettings(eps=0.1).plan
            Plan(first=99, targets=9, restarts=7, steps=57, queries=950, passes=0)
            >>> StandardSettings(eps=0.1, budget=100).plan
            Plan(first=20, targets=3, restarts=0, steps=22, queries=0, passes=0)
        """
        draws, passes, ends = self._draws, self._passes, self._draws + self._passes
        # The unchanged image, a look for a gradient, and the last test.
        left = self.budget - draws - self.look - 1
        if self.randomness == "fresh":
            sparse, most = max(passes // _SPARSE, 1), left - draws
            share = int(_DEEP * left)
            if most - share < _ENOUGH * passes + ends + 1:
                share = most  # what is too little for a lane makes the climb longer
            first = max(min(share // sparse, _SPARSE * _MOST), 1)
            left -= first * sparse + draws + 1
        else:
            sparse = 0
            first = max(min(max(int(_FIRST * left), _ENOUGH), _MOST, left - ends), 1)
            left -= first + ends + 1
        wide = int(_WIDE * left)
        # Too little for both goes to the gradients, and noise leaves a random search nothing.
        if self.randomness == "fresh" or left - wide < 10 * _PROPOSALS + draws:
            wide = left
        lanes = min(max(wide, 0) // (_ENOUGH * passes + ends), _LANES)
        steps = min((wide // lanes - ends) // passes, _MOST) if lanes else 0
        left -= lanes * (steps * passes + ends)
        queries = left - draws
        queries = queries if wide < left + lanes * (steps * passes + ends) else 0
        targets = min(lanes, _TARGETS)
        return Plan(first, targets, lanes - targets, steps, queries, sparse)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Budgets that grow fourfold up to this one, from the first that pays for ten steps.

        Example:
            >>> StandardSettings(eps=0.1).rungs
            (31, 125, 500, 2000)
            >>> StandardSettings(eps=0.1, randomness="fresh").rungs
            (125, 500, 2000)
        """
        found = [self.budget]
        while (less := found[0] // _GROWTH) >= self._least:
            if replace(self, budget=less).plan.first < _FEWEST:
                break
            found.insert(0, less)
        return tuple(found)

    @property
    def most_passes(self) -> Passes:
        """The budget, of which the random search has no backward pass."""
        plan = self.plan
        lanes = (plan.targets + plan.restarts) * plan.steps * self._passes
        first = plan.first * (plan.passes or self._passes)
        return Passes(self.budget, first + lanes + self.look)

    @property
    def blind_queries(self) -> int:
        """Forward passes of the random search on an image without a gradient."""
        return max(self.budget - 2 * self._draws - self.look - 1, 0)


@takes_pairs
def standard(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: StandardSettings | None = None,
    *,
    ids: Ids | None = None,
    radii: Tensor | None = None,
    known: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with the ensemble; arguments, result and errors are those of `pgd`.

    A defense that says it draws no noise is attacked as one with fixed randomness. `known` are
    candidates of an earlier attack [B, C, H, W], beside the unchanged images.

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> result = standard(towards_white, gray, torch.tensor([1]), eps=0.25)
        >>> result.success.item(), result.members
        (True, ('apgd-ce',))
    """
    given = resolve(StandardSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, given)
    steady = getattr(model, "is_random", True) is False
    chosen = replace(given, randomness="fixed") if steady else given
    sizes = row_radii(radii, chosen.eps, len(batch.images))
    oracle, tally, plan = Oracle(model, chosen), Tally(batch), chosen.plan
    contest = Contest(oracle, batch)

    rows = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    rows = contest.enter(tally, rows, batch.images, 0)
    if len(rows) and (before := starting_point(known, batch, chosen)) is not None:
        rows = contest.enter(tally, rows, before[rows], 0)
    seeing, blind = _told_apart(model, chosen, batch, tally, rows, sizes)
    seeing = _first_climb(model, chosen, batch, tally, contest, seeing, sizes)
    if len(seeing) and plan.targets:
        climbing = Oracle(model, _climbing(chosen, plan.steps))
        lanes = climb_lanes(
            climbing,
            batch,
            tally,
            seeing,
            sizes,
            targets=plan.targets,
            restarts=plan.restarts,
            first=_LONG,
        )
        target, restart = MEMBERS.index("apgd-targeted"), MEMBERS.index("apgd-restart")
        numbers = torch.where(lanes.numbers < plan.targets, target, restart)
        seeing = contest.enter(tally, lanes.rows, lanes.images, numbers)
    _search(oracle, chosen, batch, tally, contest, seeing, sizes, plan.queries)
    _search(oracle, chosen, batch, tally, contest, blind, sizes, chosen.blind_queries)
    tally.images = contest.images
    result = conclude(tally, batch, oracle, 4 * _LONG, sizes)
    members = tuple(MEMBERS[number] for number in contest.winner.tolist())
    unseen = result.zero_gradient & (contest.winner != len(MEMBERS) - 1)
    left = torch.zeros(len(batch.images), dtype=torch.bool, device="cpu")
    left[contest.undecided(torch.arange(len(left), device="cpu"))] = True
    more: dict[str, Any] = {"members": members, "undecided": left}
    return replace(result, zero_gradient=unseen, settings=given, **more)


def _climbing(chosen: StandardSettings, steps: int) -> APGDSettings:
    return APGDSettings(
        eps=chosen.eps,
        norm=chosen.norm,
        loss="ce",
        randomness=chosen.randomness,
        seed=chosen.seed,
        steps=steps,
        eot=chosen._passes,
        gradient=chosen.gradient,
    )


def _first_climb(
    model: Model,
    chosen: StandardSettings,
    batch: Batch,
    tally: Tally,
    contest: Contest,
    rows: Tensor,
    sizes: Tensor,
) -> Tensor:
    if not len(rows):
        return rows
    plan, own = chosen.plan, Tally(batch, quiet=True)
    settings = _climbing(chosen, plan.first)
    if plan.passes:
        settings = replace(settings, eot=plan.passes)
    oracle = Oracle(model, settings)
    own.images[rows] = first_iterates(oracle, batch, None, rows, sizes)
    if plan.passes:
        drift(oracle, batch, own, rows, sizes, plan.first)
    else:
        climb(oracle, batch, own, rows, sizes)
    for name in ("iterations", "forwards", "backwards"):
        getattr(tally, name).add_(getattr(own, name))
    member = MEMBERS.index("momentum" if plan.passes else "apgd-ce")
    return contest.enter(tally, rows, own.images[rows], member)


def _told_apart(
    model: Model,
    chosen: StandardSettings,
    batch: Batch,
    tally: Tally,
    rows: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return those of the rows [A] that have a gradient where the first climb starts, and others.

    That of the cross-entropy rounds to zero where a model is very sure, so the margin's is asked.
    """
    if not len(rows):
        return rows, rows
    _, labels, ids = (part[rows] for part in batch)
    goals = torch.full_like(labels, MARGIN)
    points = first_iterates(Oracle(model, chosen), batch, None, rows, sizes)
    looking = replace(_climbing(chosen, 1), eot=chosen.look)
    slope = Oracle(model, looking).slope(points, labels, ids, 3 * _LONG, goals)
    tally.count(rows, chosen.look, chosen.look)
    blind = (slope.gradient == 0).flatten(1).all(dim=1).cpu()
    tally.zero_gradient[rows] = blind
    return rows[~blind], rows[blind]


def _search(
    oracle: Oracle,
    chosen: StandardSettings,
    batch: Batch,
    tally: Tally,
    contest: Contest,
    rows: Tensor,
    sizes: Tensor,
    queries: int,
) -> None:
    if not len(rows) or not queries:
        return
    noisy = chosen.randomness == "fresh"
    settings = SquareSettings(
        eps=chosen.eps,
        norm=chosen.norm,
        randomness=chosen.randomness,
        seed=chosen.seed,
        queries=queries,
        proposals=1 if noisy else _PROPOSALS,
        eot=min(chosen._passes, _JUDGED),
    )
    search(oracle, settings, batch, tally, rows, sizes, first=2 * _LONG)
    contest.enter(tally, rows, tally.images[rows], len(MEMBERS) - 1)
