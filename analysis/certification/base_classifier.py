"""The base classifier of randomized smoothing: a noisy image at level sigma to a class.

A purifier adds noise of its own strength before it removes it. Under smoothing that noise is the
smoothing noise: the leading noising steps of the chain are replaced by x + sigma z, drawn outside,
and by the scale that the following steps expect. The noise that the chain draws further on (reverse
noise, later consistency steps) belongs to the base classifier, which may be random: the certificate
is about P(f(x + sigma z, xi) = c) over z and xi together, so every sample draws its own.

The noisy image is not clipped, and its noise is sigma exactly, also where a published pipeline adds
slightly more and certifies sigma.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advpure.analysis.certification.noise import sample_rows
from advpure.base.errors import BadInput
from advpure.core.chain import Chain, Noise, RowKeys, Step
from advpure.core.defense import Defense, Policy, classified
from advpure.core.denoisers import check_covered as check_covered
from advpure.core.randomness import RandomnessConfig, joined_id
from advpure.core.recipe import rescale
from advpure.core.tiling import tiled

_CLOSE = 0.1


@dataclass(frozen=True)
class RowNoise(Noise):
    """The noise of a batch whose rows are noise samples, keyed one by one.

    Attributes:
        rows: Image and number of the sample of every row, int64 [B, 2].
    """

    rows: Tensor | None = None

    def of(self, step: Step, like: Tensor) -> Any:
        """Return the step's noise for every row."""
        if not step.noisy:
            return None
        if step.keyed:
            return self.keys(step, like.shape[0])
        assert self.rows is not None
        xi = self._at(step)
        return sample_rows(xi, self.rows, step.phase, step.time, like.shape[1:]).to(like)

    def keys(self, step: Step, count: int) -> RowKeys:
        """Return what each row is keyed by: an id made of image and sample, by SHA-256."""
        assert self.rows is not None
        xi = self._at(step)
        return tuple((xi, joined_id(xi, *row)) for row in self.rows.tolist())

    def _at(self, step: Step) -> RandomnessConfig:
        assert self.xi is not None
        return self.xi.fold("chain", step.stream, self.repetition(step))


def chain_on_noisy(chain: Chain, sigma: float) -> Chain:
    """Replace the leading noise of a chain by the scale that its state has afterwards.

    Args:
        chain: A purifier's steps at strength sigma; without leading noise it stays as it is.
        sigma: Standard deviation of the smoothing noise, [0, 1] units.

    Raises:
        BadInput: when the leading noise is of another strength.

    Example:
        >>> from advpure.core.analytic import GaussianDenoiser
        >>> from advpure.purifiers.oneshot import OneStepEDM
        >>> whole = OneStepEDM(sigma=0.25).chain(GaussianDenoiser(torch.zeros(1, 2, 2), 0.3))
        >>> [step.name for step in chain_on_noisy(whole, 0.25)]
        ['denoise']
    """
    count = 0
    while count < len(chain) and chain[count].noisy and chain[count].phase == "forward":
        count += 1
    if not count:
        return chain
    last = chain[count - 1]
    if abs(last.sigma / (2.0 * sigma) - 1.0) > _CLOSE:
        raise BadInput(
            f"smoothing noise {sigma:g}",
            f"is none of the noise levels of the purifier, which adds {last.sigma / 2:.4g}",
            "choose a larger sigma, and leave the purifier's strength to it",
        )
    rest = chain[count:]
    if last.scale == 1.0:
        return rest
    return Chain([rescale(last.scale, scale=last.scale, sigma=last.sigma), *rest])


Classify = Callable[[Tensor, Tensor], Tensor]
Pack = Callable[[Tensor, Tensor, Tensor], Tensor]


def base_classifier(
    defense: Defense, chain: Chain, xi: RandomnessConfig, pack: Pack | None = None
) -> Classify:
    """Make the base classifier of a defense.

    Args:
        defense: Classifier, policy and tile; each vote of a policy draws its own noise.
        chain: The steps that follow the smoothing noise, see `chain_on_noisy`.
        xi: What the chain's own noise is drawn from.
        pack: Turns the logits [B, K] of a single vote, the noisy images and the rows into what is
            counted instead of classes, int64 [B].

    Returns:
        A function of noisy images [B, C, H, W], [0, 1] units plus noise, and the image and
        sample number of every row, int64 [B, 2]; it returns classes, int64 [B]. Full tiles, no
        gradients. Rows do not depend on each other.
    """
    policy = defense.policy
    is_random = bool(len(chain)) or defense.is_random

    def votes(noisy: Tensor, rows: Tensor | None) -> list[Tensor]:
        if rows is None:
            return [defense.classifier(noisy)]
        draws = [_noise(xi, rows, policy, k) for k in range(policy.draws if is_random else 1)]
        return [
            classified(
                defense.classifier, chain.purify(noisy, noise) if len(chain) else noisy, noise
            )
            for noise in draws
        ]

    def decide(noisy: Tensor, rows: Tensor) -> Tensor:
        logits = votes(noisy, rows)
        answer = _answer(torch.stack(logits) if len(logits) > 1 else logits[0][None], policy, rows)
        return answer if pack is None else pack(logits[0], noisy, rows)

    if policy.draws > 1 or pack is not None:
        return tiled(decide, defense.tile)
    # The largest of a row rounds nothing, so it needs no tile: one call for all of them is cheaper.
    # Without a chain nobody asks which rows they are.
    single = tiled(lambda noisy, rows: votes(noisy, rows)[0], defense.tile)
    return lambda noisy, rows: _answer(
        single(noisy, rows if is_random else None)[None], policy, rows
    )


def _noise(xi: RandomnessConfig, rows: Tensor, policy: Policy, vote: int) -> RowNoise:
    return RowNoise(xi, None, 0 if policy.reverse_only else vote, vote, rows=rows)


def _answer(logits: Tensor, policy: Policy, rows: Tensor) -> Tensor:
    """Turn logits [draws, B, K] into classes [B]; ties of votes go to the lowest class."""
    # One number is looked at first: a sum is finite only if its terms are.
    if not bool(torch.isfinite(logits.sum())) and not bool(torch.isfinite(logits).all()):
        wrong = (~torch.isfinite(logits)).flatten(2).any(2).any(0).nonzero()[0, 0]
        raise BadInput(
            f"the classifier's answer for image {int(rows[wrong, 0])}",
            "is not finite",
            "check the weights, the noise level and the dtype",
        )
    if policy.kind == "majority":
        votes = nn.functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
        return votes.argmax(1)
    return logits.mean(0).argmax(1) if len(logits) > 1 else logits[0].argmax(1)
