"""Read certificates of N samples as if fewer had been drawn.

Each radius is turned back into its Clopper-Pearson bound and that into the number n_A of agreeing
samples; with M samples round(n_A / N M) would have agreed, whose bound gives the radius. It is what
an average run of M samples looks like, made from the logs of a longer one, and no certificate.

Source: spec 4.7.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.radius import ABSTAIN, bound_for, check_alpha, radius_of
from advpure.base.validation import whole
from advpure.errors import BadInput
from advpure.stats import clopper_pearson_lower

Ints = NDArray[np.int64]


def emulate(
    images: CertifiedImages, *, samples: int, to: int, sigma: float | None = None,
    alpha: float = 0.001, to_alpha: float | None = None,
) -> CertifiedImages:  # fmt: skip
    """Emulate certificates with another number of samples.

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
    alpha, to_alpha = (check_alpha(each) for each in (alpha, to_alpha or alpha))
    found = np.array(
        [
            0 if answer == ABSTAIN else agreeing_samples(radius, samples, alpha, level)
            for answer, radius in zip(images.predictions, images.radii, strict=True)
        ]
    )
    hits = np.round(found / samples * to).astype(np.int64)
    bounds = np.array([clopper_pearson_lower(k, to, to_alpha) for k in hits.tolist()])
    kept = (images.predictions != ABSTAIN) & (bounds >= 0.5)
    radii = np.array([radius_of(p, level) if k else 0.0 for p, k in zip(bounds, kept, strict=True)])
    return dataclasses.replace(
        images, name=f"{images.name} as {to:,} samples", radii=radii, sigma=level,
        alpha=None,
        predictions=np.where(kept, images.predictions, ABSTAIN),
        notes=(*images.notes, f"{images.name} is emulated with {to:,} of {samples:,} samples"),
    )  # fmt: skip


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
        raise BadInput(
            f"radius {radius:g} at sigma {sigma:g}",
            f"is above {most:.4g}, the most that {samples:,} samples reach at alpha {alpha:g}",
            "give the sigma, samples and alpha of the log",
        )
    wanted = bound_for(radius, sigma)
    low, high = 0, samples  # bisection: the bound increases with the count
    while high - low > 1:
        middle = (low + high) // 2
        below = clopper_pearson_lower(middle, samples, alpha) <= wanted
        low, high = (middle, high) if below else (low, middle)
    return min((low, high), key=lambda k: abs(clopper_pearson_lower(k, samples, alpha) - wanted))
