"""The singular values of a whole purification: how much it stretches the worst direction.

For small eta, ||f(x + eta) - f(x)|| / ||eta|| = ||J eta|| / ||eta|| is at most the largest singular
value of J, reached along its right singular vector; its root mean square over isotropic eta is
||J||_F / sqrt(d). The expected compression rate is close to the latter, an attack may choose the
former.

J is never formed. J v comes from forward-mode derivatives of the whole chain, J^T u from reverse
mode with few kept states, both under the same noise; all images share batches. The Frobenius norm
uses the directions found: ||J||_F^2 = ||J V||_F^2 + E||J (I - V V^T) g||^2 with random signs g,
which is exact for any orthonormal V and varies less than without V.

Source of the method: `lanczos`; [Meyer2021] (deflated trace estimates).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.compression.infinitesimal import push_forward
from advpure.analysis.steps.adjoint import pull_back
from advpure.analysis.steps.divergence import ProbeSettings, rademacher
from advpure.analysis.steps.lanczos import Floats, LanczosSettings, Product, Triplets, lanczos
from advpure.analysis.subject import Seeded
from advpure.analysis.target import (
    Given,
    Target,
    as_target,
    batch_rows,
    choose_ids,
    refuse_fresh,
)
from advpure.base.budget import check_repeats
from advpure.base.kinds import Natural
from advpure.base.units import check_images
from advpure.base.validation import resolved
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.statistics.rates import NOT_NEGATIVE, Mean, mean_interval


@dataclass(frozen=True, kw_only=True)
class SingularSettings(LanczosSettings, Seeded):
    """What to find at every image.

    Attributes:
        probes: Probes of the Frobenius norm.
        seed: Base seed of the purifier's noise, the start vectors and the probes.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    probes: Natural = ProbeSettings.probes

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        check_repeats(self.probes, "probes")


class Spectrum(NamedTuple):
    """The leading singular values of a purification's Jacobian at one image.

    Attributes:
        id: Sample id.
        values: Descending, [K], each at most the true one of its rank, to rounding.
        bounds: Distance within which some singular value lies, [K].
        converged: Whether the tolerance was met, [K].
        right: Unit directions that are stretched, [K, *shape], the worst first.
        left: What they become, unit, [K, *shape].
        energy: Estimate of ||J||_F^2; n probes, std and interval over probes.
        dimensions: d.
        products: Products with J, and as many with J^T, that the iteration took.
        mismatch: Relative difference of J and the transpose of J^T, a check of the derivatives.
    """

    id: int
    values: tuple[float, ...]
    bounds: tuple[float, ...]
    converged: tuple[bool, ...]
    right: Tensor
    left: Tensor
    energy: Mean
    dimensions: int
    products: int
    mismatch: float

    @property
    def rms_rate(self) -> float:
        """||J||_F / sqrt(d): the root mean square compression rate."""
        return float(np.sqrt(self.energy.value / self.dimensions))

    @property
    def stable_rank(self) -> float | None:
        """||J||_F^2 / sigma_max^2: how many directions carry the stretching; None for J = 0."""
        return self.energy.value / self.values[0] ** 2 if self.values[0] > 0.0 else None


def leading_singular_values(
    purifier: Given,
    images: Tensor,
    settings: SingularSettings | None = None,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> dict[int, Spectrum]:
    """Find the leading singular values and vectors of a purification's Jacobian at every image.

    Args:
        purifier: A purifier, a defense (its purifier is measured) or any differentiable map of
            images with independent rows.
        images: Where, [B, C, H, W] in [0, 1].
        settings: What to find; None for the defaults, with the seed of `xi`.
        ids: Sample ids [B], all different; None for the bound ones, else 0 .. B-1.
        xi: Scheme of the randomness, with the seed replaced; None for the purifier's own.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        changes: Fields of `SingularSettings` to replace, such as ``count=2``.

    Returns:
        By sample id. Neither order nor the other images of the batch change a result, to the
        last bit for a tiled purifier. Cost for every image: at most basis + K + probes products
        with J and basis + K with J^T, each about two to three purifications.

    Raises:
        BadInput: for settings or images that cannot be used, or derivatives that are absent or
            not each other's transpose.

    Example:
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> scales = torch.tensor([[3.0], [1.0]])
        >>> spectra = leading_singular_values(lambda y: y * scales, x, count=2)
        >>> [round(value, 5) for value in spectra[0].values], round(spectra[0].energy.value, 4)
        ([3.0, 3.0], 20.0)
    """
    xi = xi or as_target(purifier).xi or RandomnessConfig(0)
    refuse_fresh(xi)
    chosen = resolved(SingularSettings, settings, changes, seed=xi.seed)
    spectra = singular_rows(purifier, images, ids, chosen, xi=xi, batch_size=batch_size)
    return {spectrum.id: spectrum for spectrum in spectra}


def singular_rows(
    purifier: Given,
    images: Tensor,
    ids: Ids | None,
    settings: SingularSettings,
    *,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    skip: Sequence[int] | set[int] = (),
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[Spectrum]:
    """Find spectra image by image, leaving out what is done: the resumable form.

    Args:
        purifier: As for `leading_singular_values`, like images, ids, xi and batch_size.
        images: Where.
        ids: Sample ids.
        settings: What to find.
        xi: Scheme of the randomness.
        batch_size: Rows at once.
        skip: Sample ids that need no spectrum.
        progress: Called with the number of finished images, fractions included.

    Yields:
        Spectra, some images at a time. Inputs are checked before the first.
    """
    check_images(images)
    forwards = as_target(purifier)
    samples = choose_ids(forwards, images, ids, unique=True)
    xi = replace(xi or forwards.xi or RandomnessConfig(0), seed=settings.seed)
    refuse_fresh(xi)
    rows = batch_rows(forwards, batch_size)
    products = _Products(purifier, images.detach(), samples, xi, rows)
    size = max(1, rows // settings.block)
    todo = [k for k, i in enumerate(samples) if i not in skip]
    done = len(samples) - len(todo)
    most = settings.basis + settings.count + settings.probes
    for start in range(0, len(todo), size):
        part = todo[start : start + size]

        def tell(taken: int, before: int = done + start, count: int = len(part)) -> None:
            progress(before + count * min(1.0, taken / most))

        yield from _together(products, part, settings, tell)
        progress(done + start + len(part))


class _Products:
    """Products with J and J^T at images, in common batches."""

    def __init__(
        self,
        purifier: Given,
        images: Tensor,
        samples: list[int],
        xi: RandomnessConfig,
        rows: int,
    ) -> None:
        self.images, self.samples, self.xi, self.rows = images, samples, xi, rows
        self.targets = {
            "push": as_target(purifier),
            "pull": as_target(purifier, gradient="checkpoint"),
        }

    def __call__(self, kind: str, asked: list[tuple[int, Floats]]) -> list[Floats]:
        """Multiply the rows of several images, (index of the image, [r, d]), keeping the order."""
        chosen = [image for image, rows in asked for _ in rows]
        v = torch.from_numpy(np.concatenate([rows for _, rows in asked]))
        v = v.to(self.images).reshape(-1, *self.images.shape[1:])
        parts = []
        for a in range(0, len(chosen), self.rows):
            own = chosen[a : a + self.rows]
            part = v[a : a + self.rows]
            derivative = push_forward if kind == "push" else pull_back
            parts.append(derivative(self._map(self.targets[kind], own), self.images[own], part))
        products = torch.cat(parts).cpu().double().flatten(1).numpy()
        ends = np.cumsum([len(rows) for _, rows in asked])[:-1]
        return list(np.split(products, ends))

    def _map(self, target: Target, chosen: list[int]) -> Callable[[Tensor], Tensor]:
        ids = [self.samples[image] for image in chosen]
        return lambda x: target(x, ids, self.xi)


def _together(
    products: _Products, chosen: list[int], settings: SingularSettings, tell: Callable[[int], None]
) -> list[Spectrum]:
    """Run the iterations of some images in step; those that are done leave the batch."""
    shape, d = products.images.shape[1:], products.images[0].numel()
    runs = {image: _spectrum(products.samples[image], d, settings) for image in chosen}
    pending = {image: next(run) for image, run in runs.items()}
    results: dict[int, tuple[Triplets, Mean]] = {}
    taken = 0
    while pending:
        for kind in ("push", "pull"):
            asked = [(image, p.rows) for image, p in pending.items() if p.kind == kind]
            if not asked:
                continue
            for (image, rows), product in zip(asked, products(kind, asked), strict=True):
                taken += len(rows) * (kind == "push")
                try:
                    pending[image] = runs[image].send(product)
                except StopIteration as end:
                    results[image] = end.value
                    del pending[image]
            tell(taken // len(chosen))
    return [_read(products.samples[p], *results[p], shape) for p in chosen]


def _spectrum(
    sample: int, dimensions: int, settings: SingularSettings
) -> Generator[Product, Floats, tuple[Triplets, Mean]]:
    """Iterate at one image, then probe what the triplets leave."""

    def draw(purpose: str, count: int, first: int = 0) -> Floats:
        numbers = range(first, first + count)
        v = rademacher(settings.seed, [sample] * count, numbers, (dimensions,), purpose)
        return np.asarray(v.double().numpy())

    triplets = yield from lanczos(dimensions, settings, lambda k: draw("singular", 1, k)[0])
    probes, v = draw("frobenius", settings.probes), triplets.right
    for _ in range(2):
        probes = probes - (probes @ v.T) @ v
    pushed = yield Product("push", probes)
    energies = np.square(triplets.images).sum() + np.square(pushed).sum(1)
    return triplets, mean_interval(energies, within=NOT_NEGATIVE)


def _read(sample: int, triplets: Triplets, energy: Mean, shape: Sequence[int]) -> Spectrum:
    right, left = (
        torch.from_numpy(rows).float().reshape(-1, *shape)
        for rows in (triplets.right, triplets.left)
    )
    return Spectrum(
        sample,
        tuple(triplets.values.tolist()),
        tuple(triplets.bounds.tolist()),
        tuple(triplets.converged.tolist()),
        right,
        left,
        energy,
        triplets.right.shape[1],
        triplets.products,
        triplets.mismatch,
    )


def describe_singular(settings: SingularSettings) -> dict[str, Any]:
    """Return what the spectra depend on beside purifier and images, as JSON values."""
    return {
        "singular": settings.count,
        "singular_block": settings.block,
        "singular_tolerance": settings.tolerance,
        "singular_basis": settings.basis,
    }
