"""Statistics over images of values that were measured several times for each image.

The images are the independent cases: an interval has n = number of images, never of draws.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from advpure.base.errors import BadInput
from advpure.statistics.rates import Mean, mean_interval


def means_by_image(values: Iterable[tuple[int, float | None]]) -> dict[int, float]:
    """Average the values of every image; images without any value are left out.

    Args:
        values: Pairs (sample id, value), None where a value is absent.

    Returns:
        Mean by sample id, ascending.

    Example:
        >>> means_by_image([(3, 1.0), (1, 5.0), (3, 2.0), (2, None)])
        {1: 5.0, 3: 1.5}
    """
    groups: dict[int, list[float]] = defaultdict(list)
    for i, value in values:
        if value is not None:
            groups[i].append(value)
    return {i: float(np.mean(groups[i])) for i in sorted(groups)}


def mean_over_images(
    means: dict[int, float], what: str, level: float = 0.95, *, within: tuple[float, float]
) -> Mean:
    """Estimate the mean over images with Student's interval, cut to what values cannot leave.

    Raises:
        BadInput: when there is no image with a value.
    """
    if not means:
        raise BadInput(what, "has no value at all", "use more draws, or images that can change")
    return mean_interval(list(means.values()), level, within=within)
