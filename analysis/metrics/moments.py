"""Mean and covariance of a stream of features, in float64, without keeping the features.

Batches are joined by the pairwise update of [Chan1979]: each batch is centred
on its own mean, so nothing large cancels.
"""

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from advpure.base.arguments import checked
from advpure.base.errors import BadInput
from advpure.base.validation import floats, whole

MOST_DIMS = 2**14
"""Dimensions whose covariance takes 2 GiB."""

MOST_SIZE = 1e50
"""Size of a feature whose fourth power float64 holds."""


def check_sizes(rows: npt.NDArray[np.float64]) -> None:
    """Refuse features whose products leave float64.

    Raises:
        BadInput: naming the limit.
    """
    if rows.size and (largest := float(np.abs(rows).max())) > MOST_SIZE:
        rule = f"is larger than {MOST_SIZE:g}, and its products leave float64"
        raise BadInput(f"a feature of size {largest:g}", rule, "scale the features")


@checked
class Moments:
    """Mean and covariance of the features seen so far.

    Args:
        dims: Dimensions d of a feature vector. Memory: d^2 doubles.

    Attributes:
        count: Vectors seen.

    Example:
        >>> seen = Moments(1)
        >>> seen.update([[1.0], [3.0]])
        >>> seen.update([[5.0]])
        >>> seen.mean.item(), seen.covariance.item()
        (3.0, 4.0)
    """

    def __init__(self, dims: Annotated[int, Ge(0), Le(MOST_DIMS)]) -> None:
        """Start with nothing."""
        dims = whole(dims, "dimensions", 0, 2**16)
        if dims < 1:
            raise BadInput(f"{dims} dimensions", "make no feature", "use 1 or more")
        self.count = 0
        self._mean = np.zeros(dims)
        self._scatter = np.zeros((dims, dims))

    @classmethod
    def of(cls, features: npt.ArrayLike) -> Self:
        """Return the moments of one batch [n, d]."""
        rows = floats(features, "features")
        seen = cls(rows.shape[1] if rows.ndim == 2 else 0)
        seen.update(rows)
        return seen

    @property
    def dims(self) -> int:
        """Dimensions of a feature vector."""
        return len(self._mean)

    def update(self, features: npt.ArrayLike) -> None:
        """Add a batch [n, d]; the order of batches changes rounding only.

        Raises:
            BadInput: for another shape, or values that are not finite.
        """
        rows = floats(features, "features")
        if rows.ndim != 2 or rows.shape[1] != self.dims:
            rule = f"are not [n, {self.dims}]"
            raise BadInput(f"features of shape {list(rows.shape)}", rule, "give one row an image")
        if not np.isfinite(rows).all():
            raise BadInput("a feature", "is not finite", "leave that image out")
        check_sizes(rows)
        if not len(rows):
            return
        total, mean = self.count + len(rows), rows.mean(axis=0)
        shift, centred = mean - self._mean, rows - mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * (self.count * len(rows) / total)
        self._mean += shift * (len(rows) / total)
        self.count = total

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """The mean, [d]."""
        self._need(1)
        return self._mean.copy()

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """The covariance with n - 1, [d, d]."""
        self._need(2)
        covariance: npt.NDArray[np.float64] = self._scatter / (self.count - 1)
        return covariance

    def _need(self, count: int) -> None:
        if self.count < count:
            raise BadInput(
                f"moments of {self.count} images", "are not defined", f"add at least {count}"
            )
