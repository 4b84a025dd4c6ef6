"""The compression of every step of a chain, beside what equation 16 of [Wei2025] predicts for it.

A step kappa (x - gamma epsilon(x)) + noise has the Jacobian kappa (I - gamma J), J that of epsilon.
For isotropic perturbations its root mean square rate is exactly

    kappa sqrt(1 - (2 gamma / d) tr J + (gamma^2 / d) ||J||_F^2),

to first order in gamma kappa (1 - (gamma / d) tr J), which is equation 16. Both are predicted from
probes of epsilon (`divergence`); the rate itself is measured on the step as it runs, from other
random directions, so that the two agree only if the formula holds. A step that adds noise to a
scaled state has the rate of its factor, exactly. Any other step (one that clips, evaluates the
network more than once or learns its variance) is not of that form: it is measured, not predicted.

Measured at every step of the trajectory of a perturbed image x + eta, with fixed noise:

* ``transported``: the distance to the trajectory of the clean image after the step over that
  before. These multiply to the compression rate of the whole chain. One for each perturbation.
* ``linear``: ||J v|| / ||v|| of the direction v that the derivatives of all steps before have made
  of eta; these multiply to the limit of the whole chain's rate for vanishing eta.
* ``isotropic``: a fresh random perturbation of strength eps at the state, and ``limit``: the
  directional derivative for the same perturbation.
* ``along`` and ``across``: directional derivatives along the data and across it (`manifold`).

Source: [Wei2025], section 6.2 and appendix A.3 (equation 15's factor is sqrt(alpha)).
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from torch import Tensor

from advpure.analysis.perturbations import check_strength
from advpure.analysis.steps.manifold import check_spans
from advpure.analysis.steps.result import StepsResult
from advpure.analysis.steps.settings import StepProbe, StepRate, StepSettings, describe_chain
from advpure.analysis.steps.trajectories import Trajectories
from advpure.analysis.target import Given, as_target, batch_rows, choose_ids, refuse_fresh
from advpure.base.units import check_images
from advpure.base.validation import fields_of, instance, resolved
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.given import as_purifier
from advpure.core.purifier import Purifier
from advpure.core.randomness import Ids, RandomnessConfig


class StepBatch(NamedTuple):
    """Everything measured of some images."""

    samples: tuple[int, ...]
    rates: list[StepRate]
    probes: list[StepProbe]


def step_compression(
    purifier: Given,
    images: Tensor,
    settings: StepSettings | None = None,
    *,
    spans: Tensor | None = None,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> StepsResult:
    """Measure the compression of every step of a purifier, and predict it.

    Args:
        purifier: A purifier, a defense, whose purifier is measured, a chain, or a module or
            function of images, which is one step.
        images: Clean images, [B, C, H, W] in [0, 1].
        settings: What to measure; None for the defaults, with the seed of the purifier's noise.
        spans: Directions along the data at every image, [B, k, d] (`local_spans`); None to leave
            ``along`` and ``across`` out.
        ids: Sample ids [B], all different; None for the bound ones, else 0 .. B-1.
        xi: Scheme of the randomness; its seed is replaced. None for the purifier's own.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        changes: Fields of `StepSettings` to replace, such as ``probes=2``.

    Returns:
        Summaries by step and of the whole chain.

    Raises:
        BadInput: for settings or images that cannot be used, or a step without a derivative.

    Example:
        >>> import torch
        >>> from advpure.loading import load_purifier
        >>> purifier = load_purifier("reverse", "digits", t=2, tile=0)
        >>> rates = step_compression(purifier, torch.full((1, 1, 8, 8), 0.5))
        >>> [step.exact.value < step.info.kappa for step in rates.steps()]
        [True, True]
    """
    if not isinstance(purifier, Purifier | Defense):
        purifier = as_purifier(purifier, images)
    xi = xi or as_target(purifier).xi
    refuse_fresh(xi)
    chosen = resolved(StepSettings, settings, changes, seed=0 if xi is None else xi.seed)
    batches = list(
        step_rows(purifier, images, ids, chosen, spans=spans, xi=xi, batch_size=batch_size)
    )
    return StepsResult(
        describe_chain(_chain(purifier), chosen.every),
        [row for batch in batches for row in batch.rates],
        [row for batch in batches for row in batch.probes],
        images[0].numel(),
    )


def _chain(purifier: Purifier | Defense) -> Chain:
    return (purifier.purifier if isinstance(purifier, Defense) else purifier).chain


def step_rows(
    purifier: Purifier | Defense,
    images: Tensor,
    ids: Ids | None,
    settings: StepSettings,
    *,
    spans: Tensor | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    skip: Collection[int] = (),
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[StepBatch]:
    """Measure batch by batch of images, leaving out what is done: the resumable form.

    Args:
        purifier: As for `step_compression`, like images, ids, spans, xi and batch_size.
        images: Clean images.
        ids: Sample ids.
        settings: What to measure.
        spans: Directions along the data.
        xi: Scheme of the randomness.
        batch_size: Rows at once.
        skip: Sample ids that are done.
        progress: Called with the number of finished images, fractions included.

    Yields:
        What was measured of some images. A row does not depend on the other images: to the last
        bit for a tiled purifier, to rounding for others. Cost for every image and step with a
        network: 1 + perturbations + probes evaluations, and 1 + 2 probes + 2 directions
        derivatives of about three evaluations each.

    Raises:
        BadInput: for settings or images that cannot be used, or a step without a derivative.
    """
    check_images(images)
    instance(purifier, (Purifier, Defense), "purifier", "pass a Purifier or a Defense")
    instance(settings, StepSettings, "settings", "pass StepSettings(...)")
    if spans is not None:
        check_spans(spans, images)
    target = as_target(purifier)
    samples = choose_ids(target, images, ids, unique=True)
    xi = replace(xi or target.xi or RandomnessConfig(0), seed=settings.seed)
    refuse_fresh(xi)
    check_strength(settings.strength, images.dtype, "use float64 images and purifier")
    target.check(images.detach(), samples, xi)
    chain = _chain(purifier)
    infos = describe_chain(chain, settings.every)
    rows = batch_rows(target, batch_size)
    each = 1 + settings.probes + (0 if spans is None else 2 * settings.directions)
    size = max(1, rows // each)  # images whose derivatives fill the rows
    todo = [k for k, i in enumerate(samples) if i not in skip]
    done = len(samples) - len(todo)
    for start in range(0, len(todo), size):
        part = todo[start : start + size]
        trajectories = Trajectories.begin(
            images.detach()[part],
            [samples[k] for k in part],
            settings,
            xi,
            None if spans is None else spans[part],
            target.tile,
            rows,
        )
        for info, step in zip(infos, chain, strict=True):
            trajectories.take(step, info)
            progress(done + start + len(part) * (info.step + 1) / len(infos))
        yield StepBatch(tuple(trajectories.samples), trajectories.rates, trajectories.probes)


def describe_steps(
    purifier: Purifier | Defense, images: Tensor, settings: StepSettings, xi: RandomnessConfig
) -> dict[str, Any]:
    """Return what the rows depend on beside the images and the spans, as JSON values."""
    randomness = asdict(replace(xi, seed=0))
    del randomness["seed"]
    return {
        **as_target(purifier).settings,
        **fields_of(StepSettings, settings),
        "randomness": {**randomness, "path": list(xi.path)},
        "dimensions": images[0].numel(),
        "dtype": str(images.dtype).removeprefix("torch."),
    }
