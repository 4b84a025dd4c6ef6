"""What an attack returns, and the bookkeeping that leads there."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from advpure.attacks.balls import distances, project, row_radii
from advpure.attacks.oracle import Batch, Oracle, Slope, Verdict
from advpure.attacks.settings import SELECTION, AttackSettings, RestartSettings
from advpure.base.errors import BadInput
from advpure.base.units import check_plain
from advpure.core.tiling import tiled


class ZeroGradientWarning(UserWarning):
    """No undecided sample of a batch has a gradient: the attack is blind, not the model robust."""


class Claims(NamedTuple):
    """What another library says of the images that it made; nothing of ours is decided by it.

    Attributes:
        fooled: [B] bool, whether it says that its image fools the model.
        excess: [B] float64, how far its image lay outside of ball or box before it was pulled in.
        ended: [B] bool, whether the budget ended it.
    """

    fooled: Tensor
    excess: Tensor
    ended: Tensor


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images and what is known of each; all but the images on the CPU.

    Attributes:
        images: [B, C, H, W], in [0, 1] and in the ball, dtype and device of the input.
        success: [B] bool, tested again on the final images: under the model's own randomness if the
            attack held it fixed, else by one draw of the attack, which is no report.
        loss: [B], the loss of the final images in that test.
        iterations: [B] int64, steps taken.
        forwards: [B] int64, forward passes through the whole model, tests included.
        backwards: [B] int64, backward passes.
        linf: [B] float64, largest change of a pixel, in [0, 1] units.
        l2: [B] float64, euclidean size of the change, in [0, 1] units.
        zero_gradient: [B] bool, the first gradient was exactly zero and the sample undecided.
        lost: [B] bool, under fixed randomness an earlier iterate succeeded and what is returned
            does not.
        settings: The settings that were used.
        members: Of an ensemble, the member that made each image; else None.
        claims: Of an attack of another library, what that says; else None.
        undecided: Of an ensemble [B] bool, whether some draw kept for choosing is not fooled, so
            that more evaluations could help; else None.
    """

    images: Tensor
    success: Tensor
    loss: Tensor
    iterations: Tensor
    forwards: Tensor
    backwards: Tensor
    linf: Tensor
    l2: Tensor
    zero_gradient: Tensor
    lost: Tensor
    settings: AttackSettings
    members: tuple[str, ...] | None = None
    claims: Claims | None = None
    undecided: Tensor | None = None


class Tally:
    """Per-sample counts of one attack on one batch, and the images it will return."""

    def __init__(self, batch: Batch, *, quiet: bool = False) -> None:
        """Start from unchanged images and no passes; quiet, no gradient is warned of."""
        count, self._quiet = len(batch.images), quiet
        self.images = batch.images.clone()
        self.iterations = torch.zeros(count, dtype=torch.int64, device="cpu")
        self.forwards = torch.zeros(count, dtype=torch.int64, device="cpu")
        self.backwards = torch.zeros(count, dtype=torch.int64, device="cpu")
        self.zero_gradient = torch.zeros(count, dtype=torch.bool, device="cpu")
        self.succeeded = torch.zeros(count, dtype=torch.bool, device="cpu")

    def count(self, rows: Tensor, forwards: int, backwards: int = 0) -> None:
        """Add passes to the rows [A]."""
        self.forwards[rows] += forwards
        self.backwards[rows] += backwards

    def note_success(self, rows: Tensor, verdict: Verdict | Slope) -> None:
        """Record which rows have succeeded by now."""
        self.succeeded[rows] |= verdict.success.cpu()

    def note_gradients(self, rows: Tensor, slope: Slope) -> None:
        """Record which first gradients are exactly zero; warn if no undecided row has another."""
        zero = (slope.gradient == 0).flatten(1).all(dim=1).cpu()
        undecided = ~slope.success.cpu()
        self.zero_gradient[rows] = zero & undecided
        if not self._quiet and bool(undecided.any()) and bool(zero[undecided].all()):
            warnings.warn(
                f"the gradient is zero for all {int(undecided.sum())} undecided samples; the "
                "attack cannot see the model (try loss='margin' or gradient='bpda')",
                ZeroGradientWarning,
                stacklevel=3,
            )


class Best:
    """For each sample the iterate with the best verdict: success first, then the larger loss."""

    def __init__(self, images: Tensor) -> None:
        """Start below every verdict."""
        self.images = images.clone()
        self._loss = torch.full(
            (len(images),), -torch.inf, dtype=torch.float32, device=images.device
        )
        self._success = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def update(self, rows: Tensor, images: Tensor, verdict: Verdict | Slope) -> None:
        """Offer images [A, C, H, W] for the rows [A]."""
        old_loss, old_success = self._loss[rows], self._success[rows]
        loss = verdict.loss.to(old_loss.dtype)
        better = (verdict.success & ~old_success) | (
            (verdict.success == old_success) & (loss > old_loss)
        )
        chosen = rows[better.cpu()]
        self.images[chosen] = images[better]
        self._loss[chosen] = loss[better]
        self._success[chosen] = verdict.success[better]


class Contest:
    """For each sample the candidate that fails in the fewest of the draws kept for choosing."""

    def __init__(self, oracle: Oracle, batch: Batch, draws: int = SELECTION) -> None:
        """Start from unchanged images, below every candidate."""
        self._oracle, self._batch = oracle, batch
        self.draws = draws if oracle.settings.randomness == "fresh" else 1
        self.images = batch.images.clone()
        self.winner = torch.full((len(batch.images),), -1, dtype=torch.int64, device="cpu")
        self._failed = torch.full_like(self.winner, 2**31)
        self._margin = torch.full((len(batch.images),), -torch.inf, dtype=torch.float64)

    def enter(self, tally: Tally, rows: Tensor, images: Tensor, numbers: int | Tensor) -> Tensor:
        """Offer candidates, count the passes, and return the rows [A] that are undecided.

        Arguments and cost are those of `offer`.
        """
        self.offer(rows, images, numbers)
        tally.forwards.index_add_(0, rows, torch.full_like(rows, self.draws))
        return self.undecided(torch.tensor(sorted(set(rows.tolist())), dtype=torch.int64))

    def offer(self, rows: Tensor, images: Tensor, numbers: int | Tensor) -> Tensor:
        """Offer candidates [A, C, H, W] of the rows [A] and return whether each won so far [A].

        Args:
            rows: Rows of the batch; one may stand there several times.
            images: The candidates.
            numbers: What they are called in `winner`: one number, or one for each [A].

        Cost: `draws` forward passes a candidate.
        """
        names = torch.as_tensor(numbers).expand(len(rows)).tolist()
        standing = self._oracle.select(
            images, self._batch.labels[rows], self._batch.ids[rows], self.draws
        )
        failed, margins = standing.failed.cpu(), standing.margin.double().cpu()
        won = torch.zeros(len(rows), dtype=torch.bool, device="cpu")
        for place, row in enumerate(rows.tolist()):
            mine, best = (failed[place], -margins[place]), (self._failed[row], -self._margin[row])
            if mine < best:
                self._failed[row], self._margin[row] = failed[place], margins[place]
                self.images[row], self.winner[row], won[place] = images[place], names[place], True
        return won

    def undecided(self, rows: Tensor) -> Tensor:
        """Return those of the rows [A] whose best candidate still fails in some draw."""
        return rows[self._failed[rows] > 0]


def restarted(
    once: Callable[[Batch, Tensor, int], AttackResult],
    oracle: Oracle,
    batch: Batch,
    sizes: Tensor,
) -> AttackResult:
    """Run an attack as often as its settings say, and keep the best result of every sample.

    Args:
        once: One run of the rows of a batch with their radii, numbered from 0.
        oracle: The model, with `RestartSettings`.
        batch: The input.
        sizes: Radius of every row [B].
    """
    settings = cast(RestartSettings, oracle.settings)
    result = once(batch, sizes, 0)
    if settings.restarts == 1:
        return result
    contest, names = Contest(oracle, batch), [each.name for each in dataclasses.fields(result)]
    columns = {name: getattr(result, name) for name in names if name != "settings"}
    rows = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    part = result
    for restart in range(settings.restarts):
        if restart:
            part = once(Batch(*(each[rows] for each in batch)), sizes[rows], restart)
            for name in ("iterations", "forwards", "backwards"):
                columns[name][rows] += getattr(part, name)
        won = contest.offer(rows, part.images, restart)
        columns["forwards"][rows] += contest.draws
        for name in ("images", "success", "loss", "linf", "l2", "lost"):
            columns[name][rows[won]] = getattr(part, name)[won]
        rows = contest.undecided(rows)
        if not len(rows):
            break
    columns["lost"] &= ~columns["success"]
    return dataclasses.replace(result, **columns)


def starting_point(start: Tensor | None, batch: Batch, settings: AttackSettings) -> Tensor | None:
    """Check a start given by the caller and pull it into the ball.

    Raises:
        BadInput: when its shape is not that of the images, or it holds no finite numbers.
    """
    if start is None:
        return None
    check_plain(start, "starting points", "pass a tensor like the images")
    if start.shape != batch.images.shape or not bool(start.isfinite().all()):
        raise BadInput(
            f"start of shape {tuple(start.shape)}",
            f"is not a finite tensor of shape {tuple(batch.images.shape)}",
            "pass one starting point per image",
        )
    return start.detach().to(batch.images)


def conclude(
    tally: Tally, batch: Batch, oracle: Oracle, step: int, radii: Tensor | None = None
) -> AttackResult:
    """Pull the images into ball and box, test them once more, and measure them.

    Args:
        tally: Counts and final images.
        batch: The input.
        oracle: The model under attack.
        step: A step number that no pass of the attack has used.
        radii: Radius of every row [B]; None for that of the settings.
    """
    settings = oracle.settings

    def bound(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
        return project(points, centres, radii, settings.norm)

    sizes = row_radii(radii, settings.eps, len(batch.images))
    images = tiled(bound, oracle.tile)(tally.images, batch.images, sizes)
    verdict = oracle.judge(images, batch.labels, batch.ids, step)
    tally.count(torch.arange(len(images), dtype=torch.int64, device="cpu"), 1)
    linf, l2 = tiled(distances, oracle.tile)(images.cpu(), batch.images.cpu())
    return AttackResult(
        images=images,
        success=verdict.success.cpu(),
        loss=verdict.loss.cpu(),
        iterations=tally.iterations,
        forwards=tally.forwards,
        backwards=tally.backwards,
        linf=linf,
        l2=l2,
        zero_gradient=tally.zero_gradient,
        lost=tally.succeeded & ~verdict.success.cpu() & (settings.randomness == "fixed"),
        settings=settings,
    )
