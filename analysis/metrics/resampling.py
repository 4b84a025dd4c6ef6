"""The bootstrap of Frechet distances over images, for several pairs of sets at once.

Every resample gives each image the same weight in all sets: in the originals and the purified, and
in the runs that are compared. So a difference of two distances is paired.

A resample holds copies, and a set of copies looks further from another set than it is; the mean of
the bootstrap lies above the value, by about as much as the value itself at a few hundred images.
Intervals are therefore centred on the value. They are wider than those of the infinitesimal
jackknife (`frechet_estimate`), by a third in simulations.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from advpure.analysis.metrics.frechet import check_features, check_pairs, weighted_distance
from advpure.base.errors import BadInput
from advpure.statistics.rates import Interval


def bootstrap_distances(
    pairs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    resamples: int,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> npt.NDArray[np.float64]:
    """Return the Frechet distance of every pair of sets in every resample of the images.

    Args:
        pairs: Features ([n, d], [n, d]) of the same n images in the same order everywhere.
        resamples: How many, 2 or more. Each costs as much as the distances themselves.
        seed: Key of the resamples.
        progress: Called with the number of finished resamples.

    Returns:
        [resamples, pairs].

    Raises:
        BadInput: for sets of unlike images, or too few resamples.
    """
    sets = [(check_features(a), check_features(b)) for a, b in pairs]
    for a, b in sets:
        check_pairs(a, b)
        check_pairs(a, sets[0][0])
    if resamples < 2:
        raise BadInput(f"{resamples} resamples", "have no spread", "use 200")
    n = len(sets[0][0])
    generator = np.random.Generator(np.random.Philox(key=[seed, n]))
    distances = np.empty((resamples, len(sets)))
    for k in range(resamples):
        weights = np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
        distances[k] = [weighted_distance(a, b, weights) for a, b in sets]
        progress(k + 1)
    return distances


def centred_interval(
    value: float, resampled: npt.NDArray[np.float64], level: float = 0.95
) -> Interval:
    """Return the percentile interval of resampled values, moved so that their mean is the value.

    Example:
        >>> centred_interval(1.0, np.linspace(4.0, 6.0, 41), level=0.9)
        Interval(low=0.1, high=1.9)
    """
    tails = np.quantile(resampled - resampled.mean(), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    low, high = (round(float(value + tail), 15) for tail in tails)
    return Interval(low, high)
