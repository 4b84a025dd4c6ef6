"""A cascade of smoothed classifiers: the largest noise first, a smaller one where it abstains.

With levels sigma_1 > ... > sigma_K and p_k(x, c) = P(f(x + sigma_k z) = c), the cascade answers
the class c of the first level at which p_k(x, c) > t, for a threshold t >= 1/2; it abstains if no
level does. The certificate halts at level k with class y when the lower bound L of p_k(x, y) is
above t, and claims: the cascade answers y on the l2 ball of radius

    min( sigma_k (Phi^-1(L) - Phi^-1(t)),  min_{j < k} sigma_j (Phi^-1(t) - Phi^-1(U_j)) ),

with U_j the upper bound of the probability of every other class at an earlier level j: within the
second radius no earlier level answers another class, so it answers y or passes on; within the
first, level k answers y.

Guarantee: the claim is wrong with probability at most alpha. Each of the K levels may err with
alpha / K: half of it for L (all of it at the last level), half for the U_j of all classes at once,
by exact Clopper-Pearson bounds and Bonferroni over the classes. Where a level is skipped although
its true probability is above t, its upper bound is above t too, and the claim fails to be made.

What it does not do: the level-dependent splitting alpha / (k + 1) of the published code counts
only the levels up to the one that halts. Which one halts is decided by the same samples, so its
total error can reach the sum over levels; a fixed alpha / K cannot.

Source: [Jeong2023], section 3.
"""

from collections.abc import Mapping
from typing import NamedTuple

from scipy.special import ndtri

from advpure.analysis.certification.radius import ABSTAIN, ALPHA, check_alpha, read_sigmas
from advpure.analysis.certification.two_stage import Counts, tallied, top_class
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number
from advpure.statistics.rates import clopper_pearson_lower

_GUARD = 1e-14


class CascadeCertificate(NamedTuple):
    """What the cascade claims about one image.

    Attributes:
        prediction: The class, or ABSTAIN.
        radius: Radius of the certified ball, [0, 1] units; 0.0 where it abstains.
        sigma: The level that halted, None if none did.
        samples: Noise samples that were classified at all levels.
    """

    prediction: int
    radius: float
    sigma: float | None
    samples: int


def certify_cascade(
    stages: Mapping[float, tuple[Counts, Counts]],
    *,
    sigmas: tuple[float, ...],
    classes: int,
    alpha: float = ALPHA,
    threshold: float = 0.5,
) -> CascadeCertificate | None:
    """Certify one image by the cascade; see the module.

    Args:
        stages: Noise level to the counts of its selection and its estimation stage. Levels below
            the one that halts are not needed.
        sigmas: All levels of the cascade, [0, 1] units; the guarantee depends on their number.
        classes: Number of classes.
        alpha: Probability of error.
        threshold: The t above, at least 1/2.

    Returns:
        The certificate; None if it takes the counts of the next lower level to decide.

    Raises:
        BadInput: for levels, classes, alpha or a threshold out of range.

    Example:
        >>> sure, unsure = ([0, 100], [2, 998]), ([34, 66], [450, 550])
        >>> certify_cascade({1.0: unsure}, sigmas=(0.25, 1.0), classes=2) is None
        True
        >>> halted = certify_cascade({1.0: sure}, sigmas=(0.25, 1.0), classes=2)
        >>> halted.prediction, halted.sigma
        (1, 1.0)
    """
    order = tuple(reversed(read_sigmas(sigmas)))
    share = check_alpha(alpha) / len(order)
    threshold = number(threshold, "threshold", Range(least=0.5, below=1.0), "use 0.5")
    passed: list[tuple[float, dict[int, int], int]] = []
    used = 0
    for level in order:
        if level not in stages:
            return None
        selection, counts = (tallied(each) for each in stages[level])
        _check_classes(counts, classes)
        samples, candidate = sum(counts.values()), top_class(selection)
        used += samples + sum(selection.values())
        own = share if level == order[-1] else share / 2
        lower = clopper_pearson_lower(counts.get(candidate, 0), samples, own)
        if lower > threshold:
            reach = [level * float(ndtri(lower) - ndtri(threshold))]
            for earlier, tally, total in passed:
                upper = _largest_other(tally, total, candidate, classes, share / 2)
                reach.append(earlier * float(ndtri(threshold) - ndtri(upper)))
            radius = min(reach) * (1.0 - _GUARD)
            if radius > 0.0:
                return CascadeCertificate(candidate, radius, level, used)
            return CascadeCertificate(ABSTAIN, 0.0, None, used)
        passed.append((level, counts, samples))
    return CascadeCertificate(ABSTAIN, 0.0, None, used)


def _largest_other(
    counts: dict[int, int], samples: int, candidate: int, classes: int, alpha: float
) -> float:
    """Bound every class's probability from above but the candidate's; return the largest bound.

    Each of the classes has alpha / classes, since the candidate is known only later.
    """
    most = max((count for label, count in counts.items() if label != candidate), default=0)
    return 1.0 - clopper_pearson_lower(samples - most, samples, alpha / classes)


def _check_classes(counts: dict[int, int], classes: int) -> None:
    if max(counts) >= classes:
        raise BadInput(f"class {max(counts)}", f"is none of {classes} classes", "count from 0")
