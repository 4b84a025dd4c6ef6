"""Purified versions of noisy images, and how far they are from the originals.

For an image x, noise z and a purifier pi, the row holds ||x - pi(x + sigma z)||_2 in [0, 1] units
and what the classifier makes of pi(x + sigma z). The purified image is neither clipped nor rounded,
as under randomized smoothing.
"""

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import torch
from torch import Tensor, nn

from advpure.analysis.certification.base_classifier import RowNoise
from advpure.analysis.certification.noise import sample_rows
from advpure.analysis.target import check_result
from advpure.base.units import to_model, to_unit
from advpure.core.chain import Chain
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled
from advpure.data import Images

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


def purified_batches(
    chains: Mapping[float, Chain],
    images: Images,
    *,
    draws: int,
    xi: RandomnessConfig,
    classifier: nn.Module | None = None,
    tile: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    skip: Set[Key] = frozenset(),
) -> Iterator[Purified]:
    """Purify noisy versions of images, level by level.

    The noise of (image, draw) is the same for every level and every purifier.

    Args:
        chains: Noise level to the steps that follow the noise, see `chains_at`.
        images: Images, labels, ids.
        draws: Noisy versions of every image.
        xi: Configuration of the noise.
        classifier: Images [B, C, H, W] in [0, 1] to logits, if classes are wanted.
        tile: Compute tile.
        batch_size: Noisy images in memory at once; four tiles by default. No result depends on it.
        device: Where networks compute.
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
            found = torch.tensor(todo[start : start + step], dtype=torch.int64, device="cpu")
            yield _purify(sigma, chain, found, images, xi, classifier, tile, device)


def _purify(
    sigma: float, chain: Chain, todo: Tensor, images: Images, xi: RandomnessConfig,
    classifier: nn.Module | None, tile: int | None, device: torch.device | str,
) -> Purified:  # fmt: skip
    places, rows = todo[:, 0], todo[:, 1:]
    clean = images.images[places]
    noise = sample_rows(xi, rows, "forward", 0, clean.shape[1:])
    noisy = (clean + sigma * noise).to(device)

    def run(x: Tensor, keys: Tensor) -> Tensor:
        if not len(chain):
            return x
        return to_unit(chain.run(to_model(x), RowNoise(xi, None, rows=keys)))

    with torch.no_grad():  # a measurement, not a gradient
        purified = check_result(tiled(run, tile)(noisy, rows), noisy, rows[:, 0].tolist())
        classes = None if classifier is None else tiled(classifier, tile)(purified).argmax(1).cpu()
    away = (purified.cpu().double() - clean.double()).flatten(1)
    return Purified(
        sigma, rows, places, noisy, purified, away.square().sum(1).sqrt(), classes
    )  # fmt: skip
