"""Uniform noise in the ball: the baseline that a gradient attack has to beat."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advpure.attacks.balls import draw_in_ball, place, project
from advpure.attacks.oracle import Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Best, Tally, conclude
from advpure.attacks.settings import AttackSettings, Count, Passes, resolve
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.core.tiling import tiled


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(AttackSettings):
    """Settings of the noise baseline; those of `AttackSettings` apply as well.

    Args:
        draws: Points tried per sample. One is the baseline; more make a random search that keeps
            the best, where samples that succeed under fixed randomness leave the search.
    """

    draws: Count = 1

    @property
    def most_passes(self) -> Passes:
        """One test for each of several draws, and the last."""
        return Passes(self.draws + 1, 0)


@takes_pairs
def uniform_noise(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: NoiseSettings | None = None,
    *,
    ids: Ids | None = None,
    **overrides: Any,
) -> AttackResult:
    """Add noise that is uniform in the ball, cut to the box.

    Every sample gets noise, also one that is misclassified without it, so with one draw
    1 - mean(success) is the accuracy under noise.

    Args:
        model: Images [B, C, H, W] in [0, 1] to logits [B, classes].
        images: [B, C, H, W], floating point in [0, 1].
        labels: True classes [B], or the classes to reach when targeted.
        settings: All choices; None for the defaults.
        ids: Data-set indices [B]; None means those that the model is bound to, else 0 .. B-1.
        overrides: Single settings, such as eps="8/255".

    Returns:
        As for `pgd`; iterations counts the draws. Cost: one forward pass at the end, and with
        several draws one more for each.

    Raises:
        BadInput: for settings, images, labels or outputs that cannot be used.

    Example:
        >>> coin = lambda x: torch.stack([x.sum((1, 2, 3)), 1 + 0 * x[:, 0, 0, 0]], 1)
        >>> result = uniform_noise(coin, torch.full((1, 1, 1, 2), 0.5), torch.tensor([1]), eps=0.1)
        >>> result.linf.item() <= 0.1, result.forwards.item()
        (True, 1)
    """
    chosen = resolve(NoiseSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    oracle, tally, best = Oracle(model, chosen), Tally(batch), Best(batch.images)
    xi = RandomnessConfig(chosen.seed, "counter").fold("attack", "uniform_noise")

    def noisy(centres: Tensor, offset: Tensor, radius: Tensor | None) -> Tensor:
        return project(place(centres, offset, radius), centres, chosen.eps, chosen.norm)

    active = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    for step in range(chosen.draws):
        centres, numbers = batch.images[active], batch.ids[active]
        offset, radius = draw_in_ball(xi, numbers, centres, chosen.eps, chosen.norm, step)
        points = tiled(noisy, oracle.tile)(centres, offset, radius)
        tally.images[active] = points
        tally.iterations[active] += 1
        if chosen.draws == 1:
            break
        verdict = oracle.judge(points, batch.labels[active], numbers, step)
        tally.count(active, 1)
        best.update(active, points, verdict)
        tally.images[active] = best.images[active]
        if chosen.randomness == "fixed":
            active = active[~verdict.success.cpu()]
        if not len(active):
            break
    return conclude(tally, batch, oracle, chosen.draws + 1)
