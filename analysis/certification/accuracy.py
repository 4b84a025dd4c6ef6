"""What certificates of many images say: certified accuracy, average radius, best over sigma.

Certified accuracy at radius r is the share of images whose certificate is right (its class is the
label) and whose radius is at least r; an abstention counts as wrong. At r = 0 it is the accuracy
of the smoothed classifier, with abstentions as errors. Intervals are Wilson's, with n the number of
images: they speak of other images of the same kind. That some certificates are wrong by bad luck is
another matter, see `accuracy_lower_bound`.

Source: [Cohen2019], section 4 and appendix B.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from advpure.analysis.certification.radius import ABSTAIN, check_alpha
from advpure.analysis.until import Standing
from advpure.base.arguments import checked
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, whole
from advpure.statistics.rates import (
    Difference,
    Mean,
    Rate,
    mean_interval,
    paired_difference,
    wilson,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
RHO = 0.05
"""Probability that a lower bound over images fails."""


@checked
@dataclass(frozen=True, eq=False, kw_only=True)
class CertifiedImages:
    """Certificates of one smoothed classifier, one per image.

    Attributes:
        name: What made them, for tables and legends.
        ids: Positions of the images in their split, [n].
        labels: True classes, [n].
        predictions: Certified classes, [n]; ABSTAIN where nothing is claimed.
        radii: Certified radii, [0, 1] units, [n].
        sigma: Standard deviation of the noise, [0, 1] units; None where unknown or several.
        alpha: Probability that a certificate is wrong; None where unknown.
        times: What a log says of each image's time, as it is written there; empty if nothing.
        by_line: Whether the ids are lines of a log that names no images.
        notes: What a careful reader should know, in sentences.
        standing: Of a run that stopped with its answer, where it stands; rates then have intervals
            that hold at any time.
        tested: The radii that were tested, increasing, where a certificate can have no other; None
            where it can.

    Raises:
        BadInput: for columns of unlike lengths, no images, an image twice, a negative label
            or a negative radius.
    """

    name: str
    ids: Ints
    labels: Ints
    predictions: Ints
    radii: Floats
    sigma: float | None = None
    alpha: float | None = None
    times: tuple[str, ...] = ()
    by_line: bool = False
    notes: tuple[str, ...] = ()
    standing: Standing | None = None
    tested: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the columns."""
        n = self.ids.size
        columns = (self.ids, self.labels, self.predictions, self.radii)
        if not n or any(column.shape != (n,) for column in columns):
            shapes = ", ".join(str(list(column.shape)) for column in columns)
            raise BadInput(
                f"columns {shapes} of {self.name}", "are no certificates", "give [n] each"
            )
        if len(np.unique(self.ids)) != n:
            values, counts = np.unique(self.ids, return_counts=True)
            twice = int(values[np.argmax(counts)])
            raise BadInput(f"image {twice} of {self.name}", "is there twice", "keep one of them")
        if self.labels.min() < 0:
            raise BadInput(
                f"label {self.labels.min()} of {self.name}",
                "is no class, since -1 means that a classifier abstains",
                "number classes from 0",
            )
        if not (self.radii >= 0).all():
            wrong = self.radii[~(self.radii >= 0)][0]
            raise BadInput(
                f"radius {wrong} of {self.name}", "is negative or no number", "see the file"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each certified class is the label, [n]."""
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right


class AtRadius(NamedTuple):
    """Certified accuracy at one radius, and which certificates it is of."""

    radius: float
    rate: Rate
    name: str


def certified_at(images: CertifiedImages, radius: float) -> NDArray[np.bool_]:
    """Return whether each image is certified correctly at a radius, [n].

    Raises:
        BadInput: for a radius below 0.
    """
    radius = number(radius, "radius", Range(least=0.0, most=math.inf), "write 0 or 0.25")
    certified: NDArray[np.bool_] = images.correct & (images.radii >= radius)
    return certified


def certified_by_any(
    curves: Sequence[CertifiedImages], radius: float
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return which images some of several certificates certify correctly at a radius.

    Valid per image for certificates that hold at once (`jointly`).

    Args:
        curves: Certificates, at least one set; images that not all of them hold are left out.
        radius: [0, 1] units.

    Returns:
        Ids of the images and whether each is certified, [n] both.
    """
    common = curves[0].ids
    for curve in curves[1:]:
        common = np.intersect1d(common, curve.ids)
    certified = np.zeros(len(common), dtype=bool)
    for curve in curves:
        certified |= certified_at(curve, radius)[np.searchsorted(curve.ids, common)]
    return common, certified


def certified_accuracy(images: CertifiedImages, radius: float = 0.0) -> Rate:
    """Return the share of images that are certified correctly at a radius, with its interval.

    Args:
        images: The certificates.
        radius: [0, 1] units; 0 gives the accuracy of the smoothed classifier.

    Example:
        >>> one = np.array([0, 1]), np.array([5, 5]), np.array([5, -1]), np.array([0.3, 0.0])
        >>> images = CertifiedImages(
        ...     name="example", ids=one[0], labels=one[1], predictions=one[2], radii=one[3]
        ... )
        >>> [certified_accuracy(images, radius).value for radius in (0.0, 0.3, 0.31)]
        [0.5, 0.5, 0.0]
    """
    return _rate(images, certified_at(images, radius))


def _rate(images: CertifiedImages, values: NDArray[np.bool_]) -> Rate:
    """Return the share of images [n] for which something holds."""
    if images.standing is None:
        return wilson(int(values.sum()), len(images))
    own = dict(zip(images.ids.tolist(), values.tolist(), strict=True))
    return images.standing.estimate([float(own[i]) for i in images.standing.used])


def any_of(curves: Sequence[CertifiedImages], radius: float) -> Rate:
    """Return the share of images that some certificate certifies, see `certified_by_any`."""
    _, certified = certified_by_any(curves, radius)
    return wilson(int(certified.sum()), len(certified))


def abstention(images: CertifiedImages) -> Rate:
    """Return the share of images for which nothing is claimed."""
    return _rate(images, images.predictions == ABSTAIN)


def average_certified_radius(images: CertifiedImages) -> Mean:
    """Return the mean over images of the radius where the class is right, of 0 where it is not.

    It is the area under the curve of certified accuracy over the radius (MACER's ACR).
    """
    return mean_interval(own_radii(images), within=(0.0, math.inf))


def own_radii(images: CertifiedImages) -> Floats:
    """Return the radius of each image where its class is right, 0 where it is not, [n]."""
    return np.where(images.correct, images.radii, 0.0)


def accuracy_curve(images: CertifiedImages) -> tuple[Floats, Ints]:
    """Return the whole curve: at radii[k] and just below, counts[k] images are certified.

    Returns:
        The distinct radii of correct certificates, increasing, beginning with 0, and how many
        images are certified correctly at each.

    Example:
        >>> columns = {name: np.arange(3) for name in ("ids", "labels", "predictions")}
        >>> images = CertifiedImages(name="", **columns, radii=np.array([0.5, 0.0, 0.25]))
        >>> [each.tolist() for each in accuracy_curve(images)]
        [[0.0, 0.25, 0.5], [3, 2, 1]]
    """
    own = np.sort(images.radii[images.correct])
    radii = np.unique(np.append(own, 0.0))
    counts: Ints = len(own) - np.searchsorted(own, radii)
    return radii, counts


def best_over(curves: Sequence[CertifiedImages], radii: Sequence[float]) -> list[AtRadius]:
    """Return, for every radius, the highest certified accuracy of several sets of certificates.

    This is how the published tables choose sigma: for each radius by the result itself. It is an
    oracle, since the choice cannot be made beforehand, and its intervals ignore the choice.
    The first of equals counts.

    Raises:
        BadInput: for no curves.
    """
    if not curves:
        raise BadInput("no certificates", "have no best", "name at least one run or file")
    rates = [
        [AtRadius(radius, certified_accuracy(each, radius), each.name) for each in curves]
        for radius in radii
    ]
    return [max(several, key=lambda each: each.rate.value) for several in rates]


def accuracy_lower_bound(
    certified: int, n: int, *, alpha: float, failure: float = RHO, choices: int = 1
) -> float:
    """Bound the accuracy that is truly certified on these images, with high probability.

    Each of n independent certificates is wrong with probability at most alpha, so the number of
    wrong ones exceeds the (1 - failure) quantile Q of the binomial distribution (n, alpha) with
    probability at most `failure`; then at least certified - Q are right. Cohen's formula,
    `bernstein_lower_bound`, bounds the same quantile by Bernstein's inequality.

    Args:
        certified: Images that are certified correctly.
        n: Images.
        alpha: Probability of error of each certificate.
        failure: Probability rho that the bound fails.
        choices: Number of curves among which this one was chosen by its result.

    Returns:
        The bound, at least 0.

    Example:
        >>> accuracy_lower_bound(60, 100, alpha=0.001)
        0.59
    """
    _check_bound(certified, n, alpha, failure, choices)
    wrong = int(binom.ppf(1.0 - failure / choices, n, alpha))
    return max(certified - wrong, 0) / n


def most_wrong(images: CertifiedImages, *, failure: float = RHO, choices: int = 1) -> int | None:
    """Bound how many certificates are wrong, see `accuracy_lower_bound`; None for unknown alpha."""
    if images.alpha is None:
        return None
    n = len(images)
    least = accuracy_lower_bound(n, n, alpha=images.alpha, failure=failure, choices=choices)
    return n - round(least * n)


def truly_certified(
    images: CertifiedImages, radius: float, *, failure: float = RHO, choices: int = 1
) -> float | None:
    """Bound the share of images that are truly certified at a radius, with high probability.

    Args:
        images: The certificates.
        radius: [0, 1] units; a bound holds for all radii at once.
        failure: Probability that the bound fails.
        choices: Number of curves among which these were chosen by their result.

    Returns:
        `accuracy_lower_bound` of the images; None if their alpha is unknown.
    """
    if images.alpha is None:
        return None
    count = int(certified_at(images, radius).sum())
    return accuracy_lower_bound(
        count, len(images), alpha=images.alpha, failure=failure, choices=choices
    )


def bernstein_lower_bound(certified: int, n: int, *, alpha: float, failure: float = RHO) -> float:
    """Bound the truly certified accuracy by a - alpha - sqrt(2 alpha (1 - alpha) L / n) - L / 3n.

    a is the certified share and L = ln(1 / failure). (Without the 2 under the root the bound
    would fail more often than `failure`, by the central limit theorem for large n.)

    Args:
        certified: Images that are certified correctly.
        n: Images.
        alpha: Probability of error of each certificate.
        failure: Probability rho that the bound fails.

    Example:
        >>> round(bernstein_lower_bound(60, 100, alpha=0.001), 4)
        0.5813
    """
    _check_bound(certified, n, alpha, failure, 1)
    log = -math.log(failure)
    slack = alpha + math.sqrt(2.0 * alpha * (1.0 - alpha) * log / n) + log / (3.0 * n)
    return max(certified / n - slack, 0.0)


def compare(
    first: CertifiedImages, second: CertifiedImages, radii: Sequence[float]
) -> list[tuple[float, Difference]]:
    """Compare two sets of certificates on the images that both hold, paired image by image.

    Args:
        first: Certificates.
        second: Certificates of another method or noise level.
        radii: [0, 1] units.

    Returns:
        For every radius, the certified accuracy of the first minus that of the second, with
        interval and p-value.

    Raises:
        BadInput: for sets without a common image, or with other labels for one, or if only one of
            them says which images it is of.
    """
    if first is second:
        raise BadInput(first.name, "is compared with itself", "give two sets of certificates")
    if not len(radii):
        raise BadInput("the list of radii", "is empty", "write [0, 0.25]")
    if first.by_line != second.by_line:
        unnamed, other = (first, second) if first.by_line else (second, first)
        raise BadInput(
            f"{unnamed.name} beside {other.name}",
            "has no column idx, so it is unknown which of its images are the other's",
            "add the column idx to the log",
        )
    common, left, right = np.intersect1d(first.ids, second.ids, return_indices=True)
    if not len(common):
        subject = f"{first.name} and {second.name}"
        raise BadInput(subject, "have no image in common", "compare runs on the same images")
    differs = np.flatnonzero(first.labels[left] != second.labels[right])
    if len(differs):
        raise BadInput(
            f"image {common[differs[0]]}",
            f"has other labels in {first.name} and {second.name}",
            "compare runs on the same data set",
        )
    return [
        (r, paired_difference(certified_at(first, r)[left], certified_at(second, r)[right]))
        for r in radii
    ]


def _check_bound(certified: int, n: int, alpha: float, failure: float, choices: int) -> None:
    wilson(certified, n)  # refuses counts that are none
    check_alpha(alpha)
    number(failure, "failure", Range(above=0.0, below=1.0), "write 0.05")
    whole(choices, "choices", 1)
