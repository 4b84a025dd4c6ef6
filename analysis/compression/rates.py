"""The compression rate of a purifier, CR(f, x, eta) = ||f(x + eta) - f(x)||_2 / ||eta||_2.

Both sides see the same noise xi. Below 1 the purifier shrinks the neighbourhood of the image, and
an attacker must move further. The expected rate averages over random eta.

The norm of eta is that of the perturbation as realised: after rounding x + eta, and after clipping
where it is asked for. Differences and norms are taken in float64 and add no error of their own;
what remains is the rounding inside f. If that has root mean square r (about 1e-7 to 1e-6 for a
float32 network on images in [0, 1]), the squared rate grows by at most about 2 (r / rms(eta))^2.
Strengths below the square root of the dtype's machine epsilon (3.5e-4 in float32, 1.5e-8 in
float64) are refused; for smaller ones pass float64 images to a float64 purifier, or take the limit
itself (`infinitesimal_compression_rate`).

Source: [Wei2025], section 3 (the ratio of norms, not of a normalised eta).
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.compression.result import CompressionKey, CompressionResult, CompressionRow
from advpure.analysis.perturbations import Distribution, check_strength, directions
from advpure.analysis.target import (
    Given,
    Target,
    as_target,
    batch_rows,
    choose_ids,
    refuse_fresh,
)
from advpure.base.budget import check_repeats
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural
from advpure.base.text import read_seed, several
from advpure.base.units import check_images, check_plain, parse_eps
from advpure.base.validation import fields_of, instance, resolved, validate, whole
from advpure.core.randomness import Ids, RandomnessConfig

Strength = str | float
_SMALLER = "use float64 images and purifier, or infinitesimal_compression_rate"


@dataclass(frozen=True, kw_only=True)
class CompressionSettings:
    """Which perturbations to measure.

    Attributes:
        eps: Strengths in [0, 1] units, one or a list such as 2/255,8/255.
        distribution: ``uniform`` in [-eps, eps]; ``gaussian`` with standard deviation
            eps / sqrt(3), the root mean square of uniform; ``sign``: eps or -eps.
        perturbations: Perturbations per image, seed and strength.
        seeds: Base seeds, one or several. Each gives the purifier another noise and the images
            other perturbations.
        clip: Clip perturbed images to [0, 1]; realised norms count. It takes the outward half of a
            perturbation at black and white pixels.

    Raises:
        BadInput: for values that make no sense, naming the rule.

    Example:
        >>> CompressionSettings(eps=["2/255", 0.25]).eps[1]
        0.25
    """

    eps: Strength | Sequence[Strength] = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Natural = 10
    seeds: int | Sequence[int] = 0
    clip: bool = False

    def __post_init__(self) -> None:
        """Check and normalise to tuples."""
        validate(self)
        eps = several(self.eps, parse_eps, "epsilons", "write 2/255,8/255")
        seeds = several(self.seeds, read_seed, "seeds", "write 0,1,2")
        check_repeats(self.perturbations * len(eps) * len(seeds), "perturbations of an image")
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "seeds", seeds)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths as numbers."""
        return tuple(float(value) for value in self.eps)  # type: ignore[union-attr]

    @property
    def base_seeds(self) -> tuple[int, ...]:
        """The seeds as a tuple."""
        return tuple(self.seeds)  # type: ignore[arg-type]


def compression_rate(
    purifier: Given,
    images: Tensor,
    perturbations: Tensor,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
) -> Tensor:
    """Measure the compression rate of given perturbations.

    Args:
        purifier: A purifier, a defense (its purifier is measured) or any map of images.
        images: [B, C, H, W] in [0, 1].
        perturbations: eta, [B, C, H, W], [0, 1] units; x + eta is not clipped.
        ids: Sample ids [B]; None for those the purifier is bound to, else 0 .. B-1.
        xi: Randomness; None for the purifier's own.

    Returns:
        [B], float64, on the CPU. Detached: no gradient flows. Cost: two purifications an image.

    Raises:
        BadInput: for images or perturbations that cannot be used: a zero perturbation has no rate,
            and one below the rounding floor of the module has no digits.

    Example:
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> compression_rate(lambda y: y / 4, x, torch.full_like(x, 0.125)).tolist()
        [0.25]
    """
    check_images(images)
    check_plain(perturbations, "perturbations", "pass a tensor like the images")
    if perturbations.shape != images.shape or not perturbations.is_floating_point():
        raise BadInput(
            f"perturbations of shape {tuple(perturbations.shape)} and dtype {perturbations.dtype}",
            f"do not match images of shape {tuple(images.shape)}",
            "give one float perturbation per image",
        )
    if not bool(perturbations.isfinite().all()):
        raise BadInput("a perturbation", "is not finite", "remove the NaN or infinite values")
    if perturbations.numel() and (largest := float(perturbations.detach().abs().max())) > 1:
        raise BadInput(
            f"a perturbation of {largest:.4g}",
            "is larger than 1, the range of images in [0, 1]",
            "divide by 255",
        )
    target = as_target(purifier)
    xi = xi or target.xi
    refuse_fresh(xi)
    samples = choose_ids(target, images, ids, unique=False)
    moved = images + perturbations.to(images)
    for size in (moved - images).detach().abs().flatten(1).amax(1).tolist():
        if size == 0.0:
            raise BadInput("a zero perturbation", "has no compression rate", "leave it out")
        check_strength(size, images.dtype, _SMALLER)
    with torch.no_grad():
        clean, purified = target(images, samples, xi), target(moved, samples, xi)
    changes, norms = _row_norms(purified, clean), _row_norms(moved, images)
    return torch.tensor(
        [change / norm for change, norm in zip(changes, norms, strict=True)],
        dtype=torch.float64,
        device="cpu",
    )


def expected_compression_rate(
    purifier: Given,
    images: Tensor,
    settings: CompressionSettings | None = None,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> CompressionResult:
    """Measure the expected compression rate over random perturbations.

    Args:
        purifier: A purifier, a defense (its purifier is measured) or any map of images. A map
            with `at(ids=, xi=)` is driven through it; a plain callable is just called. Both, and a
            network that was not loaded by name, answer two clean images twice, and are refused if
            the answers differ (`advpure.core.steady`).
        images: [B, C, H, W] in [0, 1].
        settings: Which perturbations; None for the defaults, with the seed of `xi`.
        ids: Sample ids [B], all different; None for those the purifier is bound to, else
            0 .. B-1. They key noise and perturbations.
        xi: Scheme and scope of the randomness; its seed is replaced by each of `seeds`. None for
            the purifier's own, else RandomnessConfig(0).
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        changes: Fields of `CompressionSettings` to replace, such as ``eps="4/255"``.

    Returns:
        Rows and summaries. Neither batch size, order nor the other images of the batch change a
        row: to the last bit for a tiled purifier, to rounding for others. Cost: for every seed
        B (1 + strengths * perturbations) purifications (`compression_evaluations`); the clean
        images are purified once per seed.

    Raises:
        BadInput: for settings, images or results that cannot be used, or when no perturbation
            has a rate.

    Example:
        >>> x = torch.full((3, 1, 2, 2), 0.5)
        >>> result = expected_compression_rate(lambda y: y / 4, x, eps=[0.125, 0.25], clip=True)
        >>> [(each.eps, round(each.mean, 4), each.n) for each in result.pooled]
        [(0.125, 0.25, 3), (0.25, 0.25, 3)]
    """
    target = as_target(purifier)
    xi = xi or target.xi or RandomnessConfig(0)
    refuse_fresh(xi)
    chosen = resolved(CompressionSettings, settings, changes, seeds=xi.seed)
    batches = compression_rows(purifier, images, ids, chosen, xi=xi, batch_size=batch_size)
    rows = tuple(row for batch in batches for row in batch)
    result = CompressionResult(rows, describe_compression(purifier, images, chosen, xi))
    for strength in result.eps:
        result.summary(strength)
    return result


def compression_rows(
    purifier: Given,
    images: Tensor,
    ids: Ids | None,
    settings: CompressionSettings,
    *,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    skip: Container[CompressionKey] = (),
) -> Iterator[list[CompressionRow]]:
    """Measure batch by batch, leaving out what is done: the resumable form.

    Args:
        purifier: A purifier, a defense (its purifier is measured) or a map with `at(ids=, xi=)`.
        images: [B, C, H, W] in [0, 1].
        ids: Sample ids [B], all different; None as in `expected_compression_rate`.
        settings: Which perturbations.
        xi: Scheme of the randomness; None as in `expected_compression_rate`.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        skip: Keys (eps, seed, id, draw) that need no row; a set is fast.

    Yields:
        Lists of rows, at most one batch each. Inputs are checked before the first.

    Raises:
        BadInput: for settings, images or results that cannot be used.
    """
    check_images(images)
    target = as_target(purifier)
    samples = choose_ids(target, images, ids, unique=True)
    xi = xi or target.xi or RandomnessConfig(0)
    refuse_fresh(xi)
    for strength in settings.strengths:
        check_strength(strength, images.dtype, _SMALLER)
    batch = batch_rows(target, batch_size)
    return _measure(target, images.detach(), samples, settings, xi, batch, skip)


def compression_evaluations(
    purifier: Given,
    count: int,
    settings: CompressionSettings,
    *,
    batch_size: int | None = None,
) -> int:
    """Count the network evaluations of a whole run, with padded tiles and the check of callables.

    Networks that were loaded by name need no check; others are asked twice, at two images.

    Args:
        purifier: What is measured; a map whose inside is unknown counts 1 per image.
        count: Number of images.
        settings: Which perturbations.
        batch_size: As for the run.

    Example:
        >>> compression_evaluations(lambda x: x, 8, CompressionSettings(seeds=[0, 1]))
        180
    """
    instance(settings, CompressionSettings, "settings", "pass CompressionSettings(...)")
    count, target = whole(count, "count"), as_target(purifier)
    batch, tile = batch_rows(target, batch_size), target.tile or 1
    each = len(settings.strengths) * settings.perturbations

    def rows(chunk: int) -> int:
        return -(-chunk // tile) * tile + -(-chunk * each // tile) * tile

    full, rest = divmod(count, batch)
    total = (full * rows(batch) + rows(rest)) * len(settings.base_seeds)
    return total * target.evaluations + target.asked(min(batch, count))


def describe_compression(
    purifier: Given,
    images: Tensor,
    settings: CompressionSettings,
    xi: RandomnessConfig,
) -> dict[str, Any]:
    """Return what the rows depend on beside the images, as JSON values."""
    randomness = asdict(replace(xi, seed=0))
    del randomness["seed"]
    return {
        **as_target(purifier).settings,
        **fields_of(CompressionSettings, settings),
        "eps": list(settings.strengths),
        "seeds": list(settings.base_seeds),
        "randomness": {**randomness, "path": list(xi.path)},
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def _measure(
    target: Target,
    images: Tensor,
    samples: list[int],
    settings: CompressionSettings,
    xi: RandomnessConfig,
    batch: int,
    skip: Container[CompressionKey],
) -> Iterator[list[CompressionRow]]:
    """Go image by image within a chunk: few ids a batch, so that their noise is drawn once."""
    for seed in settings.base_seeds:
        noise = replace(xi, seed=seed)
        for start in range(0, len(samples), batch):
            chunk, ids = images[start : start + batch], samples[start : start + batch]
            todo = [
                (i, draw, eps)
                for i, sample in enumerate(ids)
                for draw in range(settings.perturbations)
                for eps in settings.strengths
                if (eps, seed, sample, draw) not in skip
            ]
            wanted = sorted({i for i, _, _ in todo})
            if not wanted:
                continue
            indices = {i: index for index, i in enumerate(wanted)}
            kept = [ids[i] for i in wanted]
            with torch.no_grad():
                clean = target(chunk[wanted], kept, noise)
            for first in range(0, len(todo), batch):
                part = todo[first : first + batch]
                where = [indices[i] for i, _, _ in part]
                yield _batch(
                    target,
                    chunk[wanted][where],
                    clean[where],
                    [kept[p] for p in where],
                    part,
                    settings,
                    noise,
                )


def _batch(
    target: Target,
    images: Tensor,
    clean: Tensor,
    ids: list[int],
    jobs: list[tuple[int, int, float]],
    settings: CompressionSettings,
    xi: RandomnessConfig,
) -> list[CompressionRow]:
    """Purify one batch of perturbed images and measure it; no gradient is wanted here."""
    draws = [draw for _, draw, _ in jobs]
    eta = directions(settings.distribution, xi.seed, ids, draws, images.shape[1:]).to(images)
    strengths = torch.tensor([eps for _, _, eps in jobs], dtype=images.dtype, device=images.device)
    moved = images + strengths.reshape(-1, 1, 1, 1) * eta
    if settings.clip:
        moved = moved.clamp(0.0, 1.0)
    with torch.no_grad():
        purified = target(moved, ids, xi)
    changes, norms = _row_norms(purified, clean), _row_norms(moved, images)
    return [
        CompressionRow(eps, xi.seed, i, draw, change / norm if norm else None, norm, change)
        for (_, draw, eps), i, change, norm in zip(jobs, ids, changes, norms, strict=True)
    ]


def _row_norms(left: Tensor, right: Tensor) -> list[float]:
    """Return ||left - right||_2 of every row, in float64; rows one by one, so that none matters."""
    a, b = (side.detach().cpu().double().flatten(1).numpy() for side in (left, right))
    return [float(np.sqrt(np.square(row).sum())) for row in a - b]
