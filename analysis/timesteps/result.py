"""Accuracy and compression of the images at one time step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, Mean, Rate, mean_interval, wilson
from advpure.statistics.repeated import mean_over_images

TIMES = Schema(
    "timesteps",
    keys={"t": Count, "sample": Count},
    values={"clean": bool, "noise": bool, "attacked": bool | None, "rate": float | None},
)
"""One decision under the fixed configuration on clean, noisy and attacked images (absent where
nothing was attacked), and the image's mean compression rate (absent where clipping left none)."""

_COLUMNS = {"clean": "clean", "noise": "noise", "attacked": "attacked", "cr": "rate"}


class Timestep(NamedTuple):
    """The images at one time step.

    Attributes:
        t: The time step.
        clean: Accuracy on clean images.
        noise: Accuracy on uniform noise in the ball.
        attacked: Accuracy under attack; None where there was none.
        cr: Mean compression rate over images; None where no perturbation had one.
        by_image: Of each of these the values of the images by sample id.
    """

    t: int
    clean: Rate
    noise: Rate
    attacked: Rate | None
    cr: Mean | None
    by_image: Mapping[str, Mapping[int, float]]

    def estimate(self, name: str) -> Estimate | None:
        """Return ``clean``, ``noise``, ``attacked`` or ``cr`` with the images behind it."""
        statistic: Rate | Mean | None = getattr(self, name)
        return Estimate.of(statistic, self.by_image[name])


def timestep(t: int, rows: Sequence[Row]) -> Timestep:
    """Average the rows of one time step."""
    by_image = {
        name: {row["sample"]: float(row[column]) for row in rows if row[column] is not None}
        for name, column in _COLUMNS.items()
    }

    def rate(name: str) -> Rate | None:
        right = by_image[name].values()
        return wilson(int(sum(right)), len(right)) if right else None

    clean, noise, rates = rate("clean"), rate("noise"), by_image["cr"]
    assert clean is not None
    assert noise is not None
    what = f"the compression rate at t = {t}"
    mean = mean_over_images(rates, what, within=NOT_NEGATIVE) if rates else None
    return Timestep(t, clean, noise, rate("attacked"), mean, by_image)


def rises(before: Timestep, after: Timestep, level: float = 0.95) -> bool:
    """Return whether the compression rate rises, paired on the images that both have."""
    one, two = before.by_image["cr"], after.by_image["cr"]
    common = sorted(one.keys() & two.keys())
    if len(common) < 2:
        return False
    change = mean_interval([two[i] - one[i] for i in common], level)
    return change.interval is not None and change.interval.low > 0
