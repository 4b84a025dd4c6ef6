"""What transport rows say: the transport, the Markov bound, and single-draw accuracy.

The transport of a purifier pi at noise level sigma is T = E ||x - pi(x + sigma z)||_2 over images x
and noise z (seed 000, definition 3.2). Theorem 3.3 is Markov's inequality: for every r > 0,

    P(||x - pi(x + sigma z)|| > r) <= T / r,

and it holds exactly, without an interval, for the empirical measure that T is the mean of. Means
over draws come first; the images are the independent cases, so n is their number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import Interval, Mean, Rate, mean_interval, rate_of_means

Floats = npt.NDArray[np.float64]

TRANSPORT = Schema(
    "transport", {"sigma": float, "sample": Count, "draw": Count},
    {"distance": float, "label": Count, "predicted": Count | None},
)  # fmt: skip
"""Distance from image to purified image, [0, 1] units, and the class that the classifier gives."""

PICTURES = Schema(
    "pictures", {"sigma": float, "sample": Count},
    {"clean": bytes, "noisy": bytes, "purified": bytes, "shape": str},
)  # fmt: skip
"""Images of the first draw, float32 little-endian."""

SCHEMAS = (TRANSPORT, PICTURES)


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
    exceeds: Rate
    bound: Mean
    holds: bool


class LevelSummary(NamedTuple):
    """One noise level, over images.

    Attributes:
        sigma: The noise level, [0, 1] units.
        transport: Mean distance.
        accuracy: Share of purified images that are classified right, single draws; None without a
            classifier.
        markov: Both sides of the bound, radius by radius.
    """

    sigma: float
    transport: Mean
    accuracy: Rate | None
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
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels, increasing."""
        return tuple(sorted(self._of))

    def images(self, sigma: float) -> tuple[int, ...]:
        """Return the ids of the images that have rows at a level, ascending."""
        return tuple(sorted(self._of[sigma]))

    def distances(self, sigma: float) -> dict[int, float]:
        """Return the mean distance of every image at a level."""
        return {
            i: float(np.mean([row["distance"] for row in self._of[sigma][i]]))
            for i in self.images(sigma)
        }

    def right(self, sigma: float) -> dict[int, float] | None:
        """Return the share of right classes of every image; None without a classifier."""
        rows = self._of[sigma]
        if any(row["predicted"] is None for own in rows.values() for row in own):
            return None
        return {
            i: float(np.mean([row["predicted"] == row["label"] for row in rows[i]]))
            for i in self.images(sigma)
        }

    def beyond(self, sigma: float, radius: float) -> dict[int, float]:
        """Return the share of every image's purified versions that are further than a radius."""
        return {
            i: float(np.mean([row["distance"] > radius for row in self._of[sigma][i]]))
            for i in self.images(sigma)
        }

    def radius(self, sigma: float, multiple: float) -> float:
        """Return a multiple of the transport."""
        return multiple * float(np.mean(list(self.distances(sigma).values())))

    def summary(self, sigma: float) -> LevelSummary:
        """Summarise one level over images."""
        transport = mean_interval(list(self.distances(sigma).values()))
        right = self.right(sigma)
        return LevelSummary(
            sigma, transport, None if right is None else rate_of_means(list(right.values())),
            tuple(self._bound(sigma, each, transport) for each in self.multiples),
        )  # fmt: skip

    def _bound(self, sigma: float, multiple: float, transport: Mean) -> MarkovBound:
        radius = multiple * transport.value
        exceeds = rate_of_means(list(self.beyond(sigma, radius).values()))
        if radius <= 0.0:  # an identity: nothing moves, nothing is beyond
            zero = Mean(0.0, transport.n, None, None)
            return MarkovBound(multiple, radius, exceeds, zero, exceeds.value == 0.0)
        ends = transport.interval
        bound = transport._replace(
            value=transport.value / radius,
            std=None if transport.std is None else transport.std / radius,
            interval=None if ends is None else Interval(ends.low / radius, ends.high / radius),
        )
        return MarkovBound(multiple, radius, exceeds, bound, exceeds.value <= bound.value)


def level_json(found: LevelSummary) -> dict[str, Any]:
    """Return a level as JSON values; estimates have value, n and interval."""
    return {
        "sigma": found.sigma,
        "n": found.transport.n,
        "transport": _mean(found.transport),
        "accuracy": None if found.accuracy is None else _rate(found.accuracy),
        "markov": [
            {
                "multiple": each.multiple, "radius": each.radius, "exceeds": _rate(each.exceeds),
                "bound": _mean(each.bound), "holds": each.holds,
            }
            for each in found.markov
        ],
    }  # fmt: skip


def _mean(mean: Mean) -> dict[str, Any]:
    return {**mean._asdict(), "interval": mean.interval and list(mean.interval)}


def _rate(rate: Rate) -> dict[str, Any]:
    return {"value": rate.value, "n": rate.n, "interval": [rate.low, rate.high]}
