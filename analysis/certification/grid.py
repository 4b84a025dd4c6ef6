"""Smoothing noise on a grid, so that the certificate holds in floating point too.

A certificate is about f(x + sigma z) with real numbers; a program rounds the sum, and a float32
keeps traces of x in its last bits. A classifier may read them, and is then certified far beyond its
radius ([Voracek2023]). Here the images are whole multiples x = m / G of a grid, and the noise is
rounded to it: round(x + sigma z) = x + round(sigma z), because x is on the grid. The numerator
m + k is computed with integers, and the classifier is given the float nearest to (m + k) / G, a
function of the integer alone. What is smoothed is the classifier behind this rounding, for which
the certificate is exact.

k is drawn by its own law, P(|k| <= j) = erf((j + 1/2) / (sqrt(2) sigma G)), from 62 random bits and
a sign. That law is met up to 2e-16 for each j in use: below 1e-8 in probability for all pixels of
an image of CIFAR-10 at sigma 1 together, the only thing that is not exact.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from advpure.analysis.certification.noise import CHUNK
from advpure.base.errors import BadInput
from advpure.core.randomness import RandomnessConfig

_LEVELS = (255, 16, 1)
"""Grey levels that images are stored with."""
_FINEST = 255
_BITS = 62
_TAIL = 9.5
"""Standard deviations beyond which no noise is drawn; the law there is below 2e-21."""
_CLOSE = 1e-3


def find_grid(images: Tensor) -> int:
    """Return the steps of a grid in [0, 1] that images [B, C, H, W] lie on, 255 or more.

    Raises:
        BadInput: for images that are no whole grey levels of 255 or 16.

    Example:
        >>> [find_grid(torch.tensor([[[[each]]]])) for each in (3 / 16, 3 / 255)]
        [256, 255]
    """
    values = images.double()
    for levels in _LEVELS:
        scaled = values * levels
        if bool(((scaled - scaled.round()).abs() < _CLOSE).all()):
            return int(levels * 2 ** math.ceil(math.log2(_FINEST / levels)))
    raise BadInput(
        "images that are no whole grey levels",
        "lie on no grid of 1/255 or 1/16, which grid noise needs",
        "store them with 8 bits, or use normal noise",
    )


@lru_cache(maxsize=16)
def law(sigma: float, grid: int) -> NDArray[np.int64]:
    """Return thresholds of 62-bit numbers: of j + 1/2 at place j, up to the tail.

    Example:
        >>> table = law(0.25, 255)
        >>> bool(abs(table[0] / 2**62 - math.erf(0.5 / (2**0.5 * 0.25 * 255))) < 1e-6)
        True
    """
    places = np.arange(math.ceil(_TAIL * sigma * grid))
    shares = erf((places + 0.5) / (math.sqrt(2.0) * sigma * grid))
    return np.floor(shares * 2.0**_BITS).astype(np.int64)


class GridNoise:
    """Noisy images on a grid, for consecutive samples of an image.

    Attributes:
        xi: The stage's configuration.
        grid: Steps of the grid in [0, 1].
    """

    def __init__(self, xi: RandomnessConfig, grid: int) -> None:
        """Begin with nothing drawn."""
        self.xi, self.grid = xi, grid
        self._key: tuple[int, int, float] | None = None
        self._chunk: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def place(self, out: Tensor, image: Tensor, sample: int, first: int, sigma: float) -> None:
        """Write an image with the noise of its samples first, first + 1, ...

        Args:
            out: Where to, [n, C, H, W], float32 on the CPU.
            image: The clean image [C, H, W] in [0, 1].
            sample: Its id.
            first: Number of the first sample.
            sigma: Standard deviation of the noise, [0, 1] units.
        """
        levels = (image.double() * self.grid).round().numpy().astype(np.int64)
        at = 0
        while at < len(out):
            chunk, row = divmod(first + at, CHUNK)
            rows = out[at : at + CHUNK - row]
            steps = self._steps(sample, chunk, tuple(image.shape), sigma)[row : row + len(rows)]
            rows.copy_(torch.from_numpy((levels + steps) / self.grid))
            at += len(rows)

    def _steps(
        self, sample: int, chunk: int, shape: Sequence[int], sigma: float
    ) -> NDArray[np.int64]:
        """Return the noise of a chunk in steps of the grid, [64, *shape]."""
        if self._key != (sample, chunk, sigma):
            bits = self.xi.bits(sample, 0, (CHUNK, *shape), draw=chunk)
            size = np.searchsorted(law(sigma, self.grid), bits >> 1, side="right")
            self._chunk = np.where(bits & 1, size, -size)
            self._key = (sample, chunk, sigma)
        return self._chunk
