"""How consistency training refines its grid while it goes on, in pixels and in features.

Original: N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1, mu(k) = exp(s0 ln mu0 / N(k)).
Improved: N(k) = min(s0 2^floor(k / K'), s1) + 1, K' = floor(K / (log2 floor(s1 / s0) + 1)), mu = 0.

Source: [Song2023], appendix C; [Song2024], section 3.4. For features: [Lei2025].
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf


def original_nodes(step: int, steps: int, first: int = 2, last: int = 150) -> int:
    """Return N(k), which grows from s0 to s1 + 1.

    Example:
        >>> [original_nodes(k, 100) for k in (0, 25, 100)]
        [2, 76, 151]
    """
    grown = step / steps * ((last + 1) ** 2 - first**2) + first**2
    return math.ceil(math.sqrt(grown) - 1) + 1


def original_decay(nodes: int, first: int = 2, start: float = 0.9) -> float:
    """Return mu(k), the decay of the target network, for N(k) nodes.

    Example:
        >>> round(original_decay(2), 6), round(original_decay(151), 6)
        (0.9, 0.998605)
    """
    return math.exp(first * math.log(start) / nodes)


def improved_nodes(step: int, steps: int, first: int = 10, last: int = 1280) -> int:
    """Return N(k), which doubles from s0 + 1 to s1 + 1 in equal times.

    Example:
        >>> [improved_nodes(k, 400_000) for k in (0, 49_999, 50_000, 399_999)]
        [11, 11, 21, 1281]
    """
    period = max(math.floor(steps / (math.log2(last // first) + 1)), 1)
    return int(min(first * 2 ** (step // period), last)) + 1


def improved_probabilities(
    grid: NDArray[np.float64], mean: float = -1.1, std: float = 2.0
) -> NDArray[np.float64]:
    """Return how often each pair of neighbouring nodes is drawn: a lognormal on the grid.

    p(i) is proportional to erf((ln t_{i+1} - P) / (sqrt 2 S)) - erf((ln t_i - P) / (sqrt 2 S)).

    Args:
        grid: Noise levels, ascending, model units, [N].
        mean: P.
        std: S.

    Returns:
        [N - 1], sums to 1.
    """
    reached = erf((np.log(grid) - mean) / (math.sqrt(2.0) * std))
    weights = np.diff(reached)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def representation_nodes(step: int, steps: int, first: int = 20, last: int = 80) -> int:
    """Return N(k) of representation consistency, which doubles from s0 + 1 to s1 + 1.

    N(k) = min(s0 2^ceil(k / K'), s1) + 1, K' = ceil(K / log2(ceil(s1 / s0) + 1)). As the power is
    rounded up, the first grid lasts for the first step alone.

    Source: the released code of [Lei2025].

    Example:
        >>> [representation_nodes(k, 300_000) for k in (0, 1, 129_203, 129_204)]
        [21, 41, 41, 81]
    """
    period = math.ceil(steps / math.log2(math.ceil(last / first) + 1))
    doublings = min(math.ceil(step / period), 63)
    return int(min(first * 2**doublings, last)) + 1


def sigmoid_decay(
    step: int, steps: int, start: float = 0.99, end: float = 0.9999, sharpness: float = 15.0
) -> float:
    """Return the decay of a target network at step k: from e0 to e1 along half a sigmoid.

    e = sqrt(k / K (e1^2 - e0^2) + e0^2), c = 2 / (1 + exp(-A (e - e0) / (e1 - e0))) - 1, and the
    decay is c e1 + (1 - c) e0.

    Args:
        step: k.
        steps: K.
        start: e0.
        end: e1, above e0.
        sharpness: A.

    Source: the released code of [Lei2025].

    Example:
        >>> [round(sigmoid_decay(k, 100), 6) for k in (0, 10, 100)]
        [0.99, 0.996308, 0.9999]
    """
    share = min(step / steps, 1.0)
    reached = math.sqrt(share * (end**2 - start**2) + start**2)
    way = sharpness * (reached - start) / (end - start)
    risen = 2.0 / (1.0 + math.exp(-way)) - 1.0
    return risen * end + (1.0 - risen) * start
