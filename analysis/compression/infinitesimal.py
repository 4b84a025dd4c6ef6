"""The compression rate of vanishing perturbations, ||J v||_2 / ||v||_2, from derivatives.

J is the Jacobian of the purifier at the image under fixed noise. There is no difference of rounded
numbers, so float32 keeps its digits. Over random v with independent entries of variance s^2,
E ||J v||^2 = s^2 ||J||_F^2 and E ||v||^2 = s^2 d, so ||J v||^2 / (s^2 d) estimates ||J||_F^2 / d
without bias; the square root of that is the exact limit of the root mean square rate.

J v comes from forward-mode derivatives, one pass for a batch since rows are independent. Where an
operation has none, it comes from differentiating the vector-Jacobian product (twice backward).
Where the purifier clips, the derivative is that of the side it is on; at steps of rounding it is 0.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from advpure.analysis.compression.rates import CompressionSettings, describe_compression
from advpure.analysis.perturbations import VARIANCE, Distribution, directions
from advpure.analysis.steps.adjoint import check_directions
from advpure.analysis.target import Given, as_target, batch_rows, choose_ids, refuse_fresh
from advpure.base.errors import BadInput
from advpure.base.units import check_images
from advpure.core.gradients import differentiating, plain
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.statistics.rates import NOT_NEGATIVE, Mean
from advpure.statistics.repeated import mean_over_images, means_by_image


class ProbeRow(NamedTuple):
    """One direction at one image.

    Attributes:
        seed: Base seed of the purifier's noise and of the direction.
        id: Sample id.
        probe: Number of the direction: the draw of the same number in `compression_rows`.
        rate: ||J v|| / ||v||.
        energy: ||J v||^2 / E||v||^2, an unbiased estimate of ||J||_F^2 / d.
    """

    seed: int
    id: int
    probe: int
    rate: float
    energy: float


@dataclass(frozen=True)
class InfinitesimalResult:
    """Limits of the compression rate.

    Args:
        rows: One per seed, image and probe, kept sorted.
        settings: What they depend on, as JSON values.
    """

    rows: tuple[ProbeRow, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows."""
        object.__setattr__(self, "rows", tuple(sorted(self.rows)))

    def image_means(self, seed: int | None = None) -> dict[int, float]:
        """Return each image's mean rate by sample id, at one seed or over all."""
        return means_by_image((row.id, row.rate) for row in self._select(seed))

    def image_rms(self, seed: int | None = None) -> dict[int, float]:
        """Return each image's estimate of sqrt(||J||_F^2 / d), by sample id.

        Its square is unbiased (over seeds: of the mean square); the root is low by about
        var(energy) / (8 probes energy^(3/2)).
        """
        energies = means_by_image((row.id, row.energy) for row in self._select(seed))
        return {i: float(np.sqrt(energy)) for i, energy in energies.items()}

    def summary(self, seed: int | None = None) -> Mean:
        """Return the mean rate over images, with its 95 % interval."""
        return mean_over_images(self.image_means(seed), "the compression rate", within=NOT_NEGATIVE)

    def rms_summary(self, seed: int | None = None) -> Mean:
        """Return the mean over images of the root mean square rate, with its 95 % interval."""
        return mean_over_images(self.image_rms(seed), "the compression rate", within=NOT_NEGATIVE)

    def _select(self, seed: int | None) -> list[ProbeRow]:
        return [row for row in self.rows if seed in (None, row.seed)]


def infinitesimal_compression_rate(
    purifier: Given,
    images: Tensor,
    *,
    probes: int = 10,
    distribution: Distribution = CompressionSettings.distribution,
    seeds: int | Sequence[int] | None = None,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
) -> InfinitesimalResult:
    """Measure the limit of the compression rate for vanishing perturbations.

    Args:
        purifier: See `expected_compression_rate`. The true derivative is taken, whatever the
            purifier's gradient mode; a plain callable must be differentiable.
        images: [B, C, H, W] in [0, 1].
        probes: Directions per image and seed.
        distribution: Of the directions; with the same distribution, seeds and ids they are the
            directions of `expected_compression_rate`.
        seeds: Base seeds; None for the seed of `xi`.
        ids: Sample ids [B], all different; None for the bound ones, else 0 .. B-1.
        xi: See `expected_compression_rate`.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.

    Returns:
        Rows and summaries. Cost: seeds * B * probes purifications with derivatives, each about two
        to three plain ones; no activations are kept, except in the fallback.

    Raises:
        BadInput: for input that cannot be used, or a map without a derivative.

    Example:
        >>> x = torch.full((2, 1, 2, 2), 0.5)
        >>> result = infinitesimal_compression_rate(lambda y: y**2 / 2, x, probes=2)
        >>> result.summary().value, result.rms_summary().n
        (0.5, 2)
    """
    check_images(images)
    target = as_target(purifier)
    samples = choose_ids(target, images, ids, unique=True)
    xi = xi or target.xi or RandomnessConfig(0)
    refuse_fresh(xi)
    settings = CompressionSettings(
        distribution=distribution, perturbations=probes, seeds=xi.seed if seeds is None else seeds
    )
    batch, scale = batch_rows(target, batch_size), VARIANCE[distribution] * images[0].numel()
    jobs = [(i, k) for i in range(len(samples)) for k in range(settings.perturbations)]
    rows: list[ProbeRow] = []
    for seed in settings.base_seeds:
        noise = replace(xi, seed=seed)
        for first in range(0, len(jobs), batch):
            part = jobs[first : first + batch]
            where, numbers = [i for i, _ in part], [k for _, k in part]
            chosen = [samples[i] for i in where]
            v = directions(distribution, seed, chosen, numbers, images.shape[1:]).to(images)

            def purify(x: Tensor, i: Sequence[int] = chosen, z: RandomnessConfig = noise) -> Tensor:
                return target(x, i, z)

            pushed = push_forward(purify, images.detach()[where], v)
            for i, k, over, under in zip(
                chosen, numbers, _squares(pushed), _squares(v), strict=True
            ):
                rows.append(ProbeRow(seed, i, k, float(np.sqrt(over / under)), over / scale))
    described = describe_compression(purifier, images, settings, xi)
    for name in ("eps", "clip"):
        del described[name]
    described["probes"] = described.pop("perturbations")
    return InfinitesimalResult(tuple(rows), described)


def push_forward(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Return J v of a row-wise function at x, by forward-mode derivatives or twice backward.

    Args:
        function: [B, ...] to [B, ...], differentiable, rows independent.
        x: Where, [B, ...].
        v: Directions, [B, ...].

    Returns:
        [B, ...], detached: no gradient flows through the result.

    Raises:
        BadInput: when the function has no derivative, cannot be differentiated this way, or its
            derivative is not finite.

    Example:
        >>> push_forward(lambda y: y**2, torch.tensor([3.0]), torch.tensor([1.0])).tolist()
        [6.0]
    """
    check_directions(function, x, v)
    try:
        x, v = plain(x), plain(v)
        with warnings.catch_warnings(), differentiating(), torch.no_grad(), forward_ad.dual_level():
            # torch compiles its own derivative formulas with a function that it deprecates.
            warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
            warnings.filterwarnings("ignore", r".*torch\.jit\.script", DeprecationWarning)
            result = function(forward_ad.make_dual(x, v))  # type: ignore[no-untyped-call]
            if not isinstance(result, Tensor):
                raise _no_derivative(f"its result is a {type(result).__name__}")
            pushed: Tensor | None = forward_ad.unpack_dual(result).tangent  # type: ignore[no-untyped-call]
            pushed = None if pushed is None else pushed.clone()
    except BadInput:
        raise
    except (NotImplementedError, RuntimeError) as error:
        if not any(word in str(error) for word in ("forward AD", "forward mode AD", "jvp")):
            raise
        pushed = _twice_backward(function, x, v)
    if pushed is None:
        raise _no_derivative("the purified image does not depend on the image differentiably")
    if not bool(pushed.isfinite().all()):
        raise BadInput("a purifier's derivative", "is not finite", "check its settings and dtype")
    return pushed


def _twice_backward(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor | None:
    """Differentiate u -> u^T J, which is linear in u, along v."""
    with differentiating():
        x = x.detach().requires_grad_()
        y = function(x)
        if not y.requires_grad:
            return None
        u = torch.zeros_like(y).requires_grad_()
        try:
            (pulled,) = torch.autograd.grad(y, x, u, create_graph=True, allow_unused=True)
            if pulled is None:
                return None
            pushed: Tensor | None = torch.autograd.grad(pulled, u, v, allow_unused=True)[0]
        except RuntimeError as error:
            raise _no_derivative(str(error).splitlines()[0]) from error
    return pushed


def _no_derivative(why: str) -> BadInput:
    return BadInput(
        f"this purifier ({why})",
        "has no forward-mode derivative",
        'use gradient="full" and differentiable operations, or expected_compression_rate',
    )


def _squares(rows: Tensor) -> list[float]:
    return [float(np.square(row).sum()) for row in rows.cpu().double().flatten(1).numpy()]
