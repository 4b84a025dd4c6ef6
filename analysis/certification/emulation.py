"""Read certificates of N samples as if fewer had been drawn.

Each radius is turned back into its Clopper-Pearson bound and that into the number n_A of agreeing
samples; with M samples round(n_A / N M) would have agreed, whose bound gives the radius. It is what
an average run of M samples looks like, made from the logs of a longer one, and no certificate.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.radius import (
    ABSTAIN,
    ALPHA,
    LARGEST_ALPHA,
    bound_for,
    check_alpha,
    radius_of,
)
from advpure.base.errors import BadInput
from advpure.base.validation import whole
from advpure.statistics.rates import clopper_pearson_lower

Ints = NDArray[np.int64]


def emulate(
    images: CertifiedImages,
    *,
    samples: int,
    to: int,
    sigma: float | None = None,
    alpha: float = ALPHA,
    to_alpha: float | None = None,
) -> CertifiedImages:
    """Emulate certificates with fewer samples, or at another alpha.

    Args:
        images: Certificates of Cohen's procedure.
        samples: Samples N of their estimation stage.
        to: Samples M to emulate.
        sigma: Standard deviation of the noise; the images' own by default.
        alpha: Probability of error of the certificates.
        to_alpha: Probability of error to emulate; the same by default.

    Returns:
        Certificates with other radii, some of them abstentions. An abstention stays one.

    Raises:
        BadInput: for samples below 1, an unknown sigma, or radii that N samples cannot reach.

    Example:
        >>> one = np.zeros(1, dtype=np.int64)
        >>> log = CertifiedImages(
        ...     name="log", ids=one, labels=one, predictions=one, radii=one + 0.953, sigma=0.25
        ... )
        >>> emulate(log, samples=100_000, to=10_000).radii.round(4)
        array([0.7996])
    """
    level = images.sigma if sigma is None else sigma
    if level is None:
        raise BadInput(images.name, "does not say its sigma", "pass sigma=0.25, as the log's")
    samples, to = whole(samples, "samples", 1), whole(to, "samples", 1)
    if to > samples:
        rule = f"are more than the {samples:,} that were drawn, of which nothing is known"
        raise BadInput(f"{to:,} samples", rule, f"use {samples} or fewer")
    alpha, to_alpha = (check_alpha(each) for each in (alpha, to_alpha or alpha))
    claimed = images.radii[images.predictions != ABSTAIN]
    if len(claimed):  # the largest first: the alpha that fits it fits all
        agreeing_samples(float(claimed.max()), samples, alpha, level)
    agreeing = np.array(
        [
            0 if answer == ABSTAIN else agreeing_samples(radius, samples, alpha, level)
            for answer, radius in zip(images.predictions, images.radii, strict=True)
        ]
    )
    hits = np.round(agreeing / samples * to).astype(np.int64)
    bounds = np.array([clopper_pearson_lower(k, to, to_alpha) for k in hits.tolist()])
    kept = (images.predictions != ABSTAIN) & (bounds >= 0.5)
    radii = np.array([radius_of(p, level) if k else 0.0 for p, k in zip(bounds, kept, strict=True)])
    return dataclasses.replace(
        images,
        name=f"{images.name} as {to:,} samples",
        radii=radii,
        sigma=level,
        alpha=None,
        predictions=np.where(kept, images.predictions, ABSTAIN),
        notes=(*images.notes, f"{images.name} is emulated with {to:,} of {samples:,} samples"),
    )


def agreeing_samples(radius: float, samples: int, alpha: float, sigma: float) -> int:
    """Return the number of agreeing samples whose Clopper-Pearson radius is nearest to a radius.

    Raises:
        BadInput: for a radius more than 1 % above what the samples can reach.

    Example:
        >>> agreeing_samples(0.25, 10_000, 0.001, 0.25)
        8526
    """
    most = radius_of(clopper_pearson_lower(samples, samples, alpha), sigma)
    if radius > 1.01 * most:
        fitting = fitting_alpha(radius, samples, sigma)
        raise BadInput(
            f"radius {radius:g} at sigma {sigma:g}",
            f"is above {most:.4g}, the most that {samples:,} samples reach at alpha {alpha:g}",
            "give the sigma and samples of the log, with which no alpha fits"
            if fitting is None
            else f"alpha {fitting:g} fits, or give the sigma and samples of the log",
        )
    return _nearest_count(bound_for(radius, sigma), samples, alpha)


def fitting_alpha(radius: float, samples: int, sigma: float) -> float | None:
    """Return the smallest alpha at which samples that all agree reach a radius.

    N agreeing samples have the bound alpha^(1/N), so alpha = Phi(radius / sigma)^N.

    Returns:
        Rounded up to two digits; None where it is above 1/2, so that sigma or samples are others.

    Example:
        >>> fitting_alpha(0.85, 10_000, 0.25)
        0.035
        >>> fitting_alpha(2.0, 10_000, 0.25) is None
        True
    """
    exact = bound_for(radius, sigma) ** samples
    digits = max(1 - math.floor(math.log10(exact)), 0) if exact > 0.0 else 0
    rounded = math.ceil(exact * 10.0**digits) / 10.0**digits
    return rounded if 0.0 < rounded <= LARGEST_ALPHA else None


def _nearest_count(wanted: float, samples: int, alpha: float) -> int:
    """Return the number of agreeing samples whose bound is nearest to the wanted one."""
    low, high = 0, samples  # bisection: the bound increases with the count
    while high - low > 1:
        middle = (low + high) // 2
        below = clopper_pearson_lower(middle, samples, alpha) <= wanted
        low, high = (middle, high) if below else (low, middle)
    return min((low, high), key=lambda k: abs(clopper_pearson_lower(k, samples, alpha) - wanted))
