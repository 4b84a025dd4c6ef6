"""What transport rows say: the transport, the Markov bound, and single-draw accuracy.

The transport of a purifier pi at noise level sigma is T = E ||x - pi(x + sigma z)||_2 over images x
and noise z ([Li2024], definition 3.2). Theorem 3.3 is Markov's inequality: for every r > 0,

    P(||x - pi(x + sigma z)|| > r) <= T / r,

and it holds exactly, without an interval, for the empirical measure that T is the mean of. Means
over draws come first; the images are the independent cases, so n is their number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from advpure.base.errors import BadInput
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, Interval, Mean, mean_interval, rate_of_means

TRANSPORT = Schema(
    "transport",
    {"sigma": float, "sample": Count, "draw": Count},
    {"distance": float, "label": Count, "predicted": Count | None},
)
"""Distance from image to purified image, [0, 1] units, and the class that the classifier gives."""

PICTURES = Schema(
    "pictures",
    {"sigma": float, "sample": Count},
    {"clean": bytes, "noisy": bytes, "purified": bytes, "shape": str},
)
"""Images of the first draw, float32 little-endian."""


class MarkovBound(NamedTuple):
    """Both sides of theorem 3.3 at one radius.

    Attributes:
        multiple: The radius in multiples of the transport.
        radius: The radius r, [0, 1] units.
        exceeds: Left side: the share of purified images that are further than r.
        bound: Right side: transport / r; its interval is the transport's.
        holds: Whether left <= right, for the measured distances themselves.
    """

    multiple: float
    radius: float
    exceeds: Estimate
    bound: Estimate
    holds: bool


class Level(NamedTuple):
    """One noise level, over images.

    Attributes:
        sigma: The noise level, [0, 1] units.
        n: Number of images.
        transport: Mean distance.
        accuracy: Share of purified images that are classified right, single draws; None without a
            classifier.
        markov: Both sides of the bound, radius by radius.
    """

    sigma: float
    n: int
    transport: Estimate
    accuracy: Estimate | None
    markov: tuple[MarkovBound, ...]


class TransportResult:
    """Rows and what follows from them.

    Args:
        rows: Rows of `TRANSPORT`.
        multiples: Radii of the Markov bound, in multiples of the transport.

    Raises:
        BadInput: for no rows.
    """

    def __init__(self, rows: Sequence[Row], multiples: Sequence[float] = (1.0, 1.5, 2.0)) -> None:
        """Group the rows."""
        if not rows:
            raise BadInput("a transport run", "has no rows yet", "run it first")
        self.multiples = tuple(multiples)
        self._of: dict[float, dict[int, list[Row]]] = {}
        for row in rows:
            self._of.setdefault(row["sigma"], {}).setdefault(row["sample"], []).append(row)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The noise levels, increasing."""
        return tuple(self.level(sigma) for sigma in sorted(self._of))

    def distances(self, sigma: float) -> dict[int, float]:
        """Return the mean distance of every image at a level."""
        return self._means(sigma, lambda row: row["distance"])

    def right(self, sigma: float) -> dict[int, float] | None:
        """Return the share of right classes of every image; None without a classifier."""
        if any(row["predicted"] is None for own in self._of[sigma].values() for row in own):
            return None
        return self._means(sigma, lambda row: row["predicted"] == row["label"])

    def beyond(self, sigma: float, radius: float) -> dict[int, float]:
        """Return the share of every image's purified versions that are further than a radius."""
        return self._means(sigma, lambda row: row["distance"] > radius)

    def radius(self, sigma: float, multiple: float) -> float:
        """Return a multiple of the transport."""
        return multiple * float(np.mean(list(self.distances(sigma).values())))

    def _means(self, sigma: float, value: Callable[[Row], float]) -> dict[int, float]:
        images = sorted(self._of[sigma].items())
        return {i: float(np.mean([value(row) for row in rows])) for i, rows in images}

    def level(self, sigma: float) -> Level:
        """Summarise one level over images."""
        distances, right = self.distances(sigma), self.right(sigma)
        transport = mean_interval(list(distances.values()), within=NOT_NEGATIVE)
        return Level(
            sigma,
            transport.n,
            Estimate.of(transport, distances),
            None if right is None else _share(right),
            tuple(self._bound(sigma, each, transport) for each in self.multiples),
        )

    def _bound(self, sigma: float, multiple: float, transport: Mean) -> MarkovBound:
        radius = multiple * transport.value
        exceeds = _share(self.beyond(sigma, radius))
        assert exceeds.value is not None
        if radius <= 0.0:  # an identity: nothing moves, nothing is beyond
            zero = Estimate.of(Mean(0.0, transport.n, None, None))
            return MarkovBound(multiple, radius, exceeds, zero, exceeds.value == 0.0)
        ends, std, bound = transport.interval, transport.std, transport.value / radius
        scaled = Mean(
            bound,
            transport.n,
            None if std is None else std / radius,
            None if ends is None else Interval(ends.low / radius, ends.high / radius),
        )
        parts = {i: away / radius for i, away in self.distances(sigma).items()}
        return MarkovBound(
            multiple, radius, exceeds, Estimate.of(scaled, parts), exceeds.value <= bound
        )


def _share(by_image: dict[int, float]) -> Estimate:
    return Estimate.of(rate_of_means(list(by_image.values())), by_image)
