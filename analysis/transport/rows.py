"""Purified versions of noisy images, and how far they are from the originals.

For an image x, noise z and a purifier pi, the row holds ||x - pi(x + sigma z)||_2 in [0, 1] units
and what the classifier makes of pi(x + sigma z). The purified image is neither clipped nor rounded,
as under randomized smoothing.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advpure.analysis.certification.base_classifier import RowNoise, chain_on_noisy, check_covered
from advpure.analysis.certification.noise import sample_rows
from advpure.analysis.target import check_result
from advpure.core.chain import Chain
from advpure.core.defense import classified
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled
from advpure.data import Images
from advpure.runs.schema import Row

Key = tuple[float, int, int]
_TILES = 4


class Purified(NamedTuple):
    """One batch of purified images, of one noise level.

    Attributes:
        sigma: The noise level.
        rows: Image id and draw, int64 [B, 2].
        places: Position of each image among the images, [B].
        noisy: What was purified, [B, C, H, W], [0, 1] units plus noise.
        purified: What came of it, not clipped.
        distances: l2 distance to the clean image, float64 [B], on the CPU.
        classes: Class of every purified image, [B]; None without a classifier.
    """

    sigma: float
    rows: Tensor
    places: Tensor
    noisy: Tensor
    purified: Tensor
    distances: Tensor
    classes: Tensor | None


def chains_at(purifier: Purifier, levels: Sequence[float]) -> dict[float, Chain]:
    """Return the steps of a purifier that follow the smoothing noise, for every noise level.

    Args:
        purifier: A purifier; one whose recipe has no noise level is the same at all of them.
        levels: Standard deviations of the noise, [0, 1] units.

    Raises:
        BadInput: for a level that its denoiser does not cover.
    """
    name = (purifier.settings.get("denoiser") or {}).get("name", "network")
    recipe: Any = purifier.recipe
    names = {each.name for each in dataclasses.fields(recipe)} if recipe is not None else set()
    chains = {}
    for sigma in levels:
        check_covered(purifier.denoiser, name, sigma)
        whole = purifier.chain
        if "sigma" in names:
            whole = purifier.laid_out(dataclasses.replace(recipe, sigma=sigma))
        chains[sigma] = chain_on_noisy(whole, sigma)
    return chains


def purified_batches(
    chains: Mapping[float, Chain],
    images: Images,
    *,
    draws: int,
    xi: RandomnessConfig,
    classifier: nn.Module | None = None,
    tile: int | None = None,
    batch_size: int | None = None,
    skip: Set[Key] = frozenset(),
) -> Iterator[Purified]:
    """Purify noisy versions of images, level by level.

    The noise of (image, draw) is the same for every level and every purifier.

    Args:
        chains: Noise level to the steps that follow the noise, see `chains_at`.
        images: Images, labels, ids; networks compute where the images are.
        draws: Noisy versions of every image.
        xi: Configuration of the noise.
        classifier: Images [B, C, H, W] in [0, 1] to logits, if classes are wanted.
        tile: Compute tile.
        batch_size: Noisy images in memory at once; four tiles by default. No result depends on it.
        skip: (sigma, image, draw) that are done.

    Yields:
        Batches. Cost: one purification for each image, draw and level.

    Raises:
        BadInput: when a purified image is not finite.
    """
    step = batch_size or _TILES * (tile or 32)
    listed = images.ids.tolist()
    for sigma, chain in chains.items():
        todo = [
            (place, i, k)
            for place, i in enumerate(listed)
            for k in range(draws)
            if (sigma, i, k) not in skip
        ]
        for start in range(0, len(todo), step):
            keys = torch.tensor(todo[start : start + step], dtype=torch.int64, device="cpu")
            yield _purify(sigma, chain, keys, images, xi, classifier, tile)


def _judged(classifier: nn.Module, xi: RandomnessConfig, images: Tensor, keys: Tensor) -> Tensor:
    return classified(classifier, images, RowNoise(xi, None, rows=keys))


def _purify(
    sigma: float,
    chain: Chain,
    todo: Tensor,
    images: Images,
    xi: RandomnessConfig,
    classifier: nn.Module | None,
    tile: int | None,
) -> Purified:
    places, rows = todo[:, 0], todo[:, 1:]
    clean = images.images[places].cpu()
    noise = sample_rows(xi, rows, "forward", 0, clean.shape[1:])
    noisy = (clean + sigma * noise).to(images.images.device)

    def run(x: Tensor, keys: Tensor) -> Tensor:
        if not len(chain):
            return x
        return chain.purify(x, RowNoise(xi, None, rows=keys))

    with torch.no_grad():  # a measurement, not a gradient
        purified = check_result(tiled(run, tile)(noisy, rows), noisy, rows[:, 0].tolist())
        classes = None
        if classifier is not None:
            judge = partial(_judged, classifier, xi)
            classes = tiled(judge, tile)(purified, rows).argmax(1).cpu()
    away = (purified.cpu().double() - clean.double()).flatten(1)
    distances = away.square().sum(1).sqrt()
    return Purified(sigma, rows, places, noisy, purified, distances, classes)


def transport_rows(batch: Purified, images: Images) -> list[Row]:
    """Return the distances and classes of a batch as they are stored."""
    labels = images.labels[batch.places].tolist()
    classes = [None] * len(labels) if batch.classes is None else batch.classes.tolist()
    names = ("sigma", "sample", "draw", "distance", "label", "predicted")
    parts = zip(batch.rows.tolist(), batch.distances.tolist(), labels, classes, strict=True)
    return [
        dict(zip(names, (batch.sigma, i, k, away, label, answer), strict=True))
        for (i, k), away, label, answer in parts
    ]


def picture_rows(batch: Purified, images: Images, shown: Set[int]) -> Iterator[Row]:
    """Yield the pictures of a batch as they are stored: first draws of the images to show."""
    for row, (i, k) in enumerate(batch.rows.tolist()):
        if k == 0 and i in shown:
            clean = images.images[batch.places[row]]
            yield {
                "sigma": batch.sigma,
                "sample": i,
                "clean": _stored(clean),
                "noisy": _stored(batch.noisy[row]),
                "purified": _stored(batch.purified[row]),
                "shape": "x".join(map(str, clean.shape)),
            }


def _stored(image: Tensor) -> bytes:
    data: bytes = image.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
    return data
