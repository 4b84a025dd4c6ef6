"""Certificates at several noise levels that hold at once, by Bonferroni.

Guarantee: each of the K certificates of an image is made with alpha / K, so all of them are right
together with probability at least 1 - alpha. One may therefore look at all of them and quote any,
such as the largest radius.

What it does not give: the quoted certificate is about the smoothed classifier of its own noise
level. A classifier that chooses its level by looking at the image is another one, whose choice an
attacker can change; `cascade` certifies such a classifier.
"""

from collections.abc import Mapping

from advpure.analysis.certification.radius import ALPHA, check_alpha, read_sigmas
from advpure.analysis.certification.two_stage import Certificate, Counts, certify


def certify_jointly(
    stages: Mapping[float, tuple[Counts, Counts]], *, alpha: float = ALPHA
) -> dict[float, Certificate]:
    """Certify one image at several noise levels with one probability of error for all.

    Args:
        stages: Noise level, [0, 1] units, to the counts of selection and estimation.
        alpha: Probability that any of the certificates is wrong.

    Returns:
        Noise level to certificate, as `certify` with alpha / K.

    Raises:
        BadInput: for levels, counts or alpha out of range.

    Example:
        >>> stages = {0.25: ([100], [1000]), 1.0: ([90, 10], [900, 100])}
        >>> certificates = certify_jointly(stages)
        >>> certificates[0.25] == certify([100], [1000], alpha=0.0005, sigma=0.25)
        True
    """
    levels = read_sigmas(list(stages))
    share = check_alpha(alpha) / len(levels)
    return {level: certify(*stages[level], alpha=share, sigma=level) for level in levels}
