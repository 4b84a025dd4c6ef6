"""Cohen's two-stage certificate, and the prediction of a smoothed classifier.

Certify: n0 samples select the class c; n fresh samples, of which n_c answer c, give the one-sided
Clopper-Pearson bound p = BetaInv(alpha; n_c, n - n_c + 1). Below 1/2 the procedure abstains,
else it claims: the smoothed classifier answers c on the whole l2 ball of radius sigma Phi^-1(p).

Guarantee: a claim is wrong with probability at most alpha, over the noise, for each image on its
own and for a number of samples that was chosen before looking. (The class is selected from samples
of its own; given that class, n_c is binomial.)

Predict: of the two most frequent classes, the first is tested against the second by the exact
two-sided binomial test at 1/2; a p-value above alpha abstains. Guarantee: a returned class is not
the smoothed classifier's with probability at most alpha.

Source: [Cohen2019], section 3.2; [Li2024], algorithm 2, whose n is n0 in the certification.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from advpure.analysis.certification.radius import (
    ABSTAIN,
    ALPHA,
    check_alpha,
    largest_radius,
    radius_of,
    round_down,
    samples_needed,
)
from advpure.base.errors import BadInput
from advpure.base.units import parse_sigma
from advpure.base.validation import LARGEST, number, whole
from advpure.statistics.rates import clopper_pearson_lower

Counts = Mapping[int, int] | Sequence[int]


class Certificate(NamedTuple):
    """What a procedure claims about one image.

    Attributes:
        prediction: The class, or ABSTAIN.
        radius: Radius of the certified ball, [0, 1] units; 0.0 where it abstains.
        bound: Lower bound of the selected class's probability; None where no single one is behind
            the claim.
        samples: Noise samples that were classified, those of the selection included.
    """

    prediction: int
    radius: float
    bound: float | None
    samples: int


class Prediction(NamedTuple):
    """What a smoothed classifier answers for one image.

    Attributes:
        prediction: The class, or ABSTAIN.
        p_value: Of the test of the first class against the second.
        samples: Noise samples that were classified.
    """

    prediction: int
    p_value: float
    samples: int


def certify(counts0: Counts, counts: Counts, *, alpha: float = ALPHA, sigma: float) -> Certificate:
    """Certify one image from its counts; see the module for the procedure and its guarantee.

    Args:
        counts0: Samples of the selection stage per class, a list or a mapping from classes.
        counts: Samples of the estimation stage per class, drawn independently of the first.
        alpha: Probability of error in (0, 1).
        sigma: Standard deviation of the noise, [0, 1] units.

    Raises:
        BadInput: for no counts, negative ones, or alpha or sigma out of range.

    Example:
        >>> certificate = certify([0, 100], [0, 10_000], alpha=0.001, sigma=0.25)
        >>> certificate.prediction, round_down(certificate.radius, 4)
        (1, '0.7996')
        >>> certify([60, 40], [5_000, 5_000], sigma=0.25)[:2]
        (-1, 0.0)
    """
    first, second, level = tallied(counts0), tallied(counts), parse_sigma(sigma)
    candidate, samples = top_class(first), sum(second.values())
    bound = clopper_pearson_lower(second.get(candidate, 0), samples, check_alpha(alpha))
    return claim(candidate, bound, level, samples + sum(first.values()))


def claim(candidate: int, bound: float, sigma: float, samples: int) -> Certificate:
    """Make a certificate of a lower bound, or abstain below 1/2."""
    if bound < 0.5:
        return Certificate(ABSTAIN, 0.0, bound, samples)
    return Certificate(candidate, radius_of(bound, sigma), bound, samples)


def predict(counts: Counts, *, alpha: float = ALPHA) -> Prediction:
    """Predict one image from its counts; see the module for the test and its guarantee.

    Args:
        counts: Samples per class, a list or a mapping from classes.
        alpha: Probability of error in (0, 1).

    Raises:
        BadInput: for no counts, negative ones, or alpha out of range.

    Example:
        >>> predict([90, 10]).prediction, predict([52, 48]).prediction
        (0, -1)
    """
    tally = tallied(counts)
    ranked = sorted(tally.items(), key=lambda pair: (-pair[1], pair[0]))
    first, second = ranked[0][1], ranked[1][1] if len(ranked) > 1 else 0
    p_value = float(binomtest(first, first + second, 0.5).pvalue)
    answer = ranked[0][0] if p_value <= check_alpha(alpha) else ABSTAIN
    return Prediction(answer, p_value, sum(tally.values()))


def tallied(counts: Counts) -> dict[int, int]:
    """Read counts as a mapping from class to samples, without the empty classes.

    Raises:
        BadInput: for counts that are negative or not whole, a negative class, or no sample.

    Example:
        >>> tallied([0, 3, 1])
        {1: 3, 2: 1}
    """
    pairs = counts.items() if isinstance(counts, Mapping) else enumerate(counts)
    tally = {}
    for given, samples in pairs:
        label = whole(given, "class", -LARGEST)
        if label < 0:
            raise BadInput(f"class {label}", "is none: -1 means that a procedure abstains", _COUNTS)
        count = number(samples, f"count of class {label}", fix=_COUNTS)
        if not count.is_integer() or not 0 <= count <= LARGEST:
            raise BadInput(f"count {samples} of class {label}", "is no number of samples", _COUNTS)
        if count:
            tally[label] = int(count)
    if not tally:
        raise BadInput("counts", "hold no sample", _COUNTS)
    return tally


_COUNTS = "give how often each class from 0 on was the answer"


def top_class(counts: Mapping[int, int]) -> int:
    """Return the most frequent class, the lowest of those on a tie."""
    return min(counts, key=lambda label: (-counts[label], label))


def check_useful(samples: int, alpha: float) -> None:
    """Refuse so few samples that the two-stage procedure always abstains.

    Raises:
        BadInput: with the number that would do.

    Example:
        >>> check_useful(10, 0.001)
    """
    whole(samples, "samples", 1)
    if clopper_pearson_lower(samples, samples, check_alpha(alpha)) < 0.5:
        raise BadInput(
            f"{samples} samples at alpha {alpha:g}",
            "can certify nothing, even if all of them agree",
            f"use {samples_needed(0.0, alpha, 1.0)} or more",
        )


def check_useful_prediction(samples: int, alpha: float) -> None:
    """Refuse so few samples that `predict` always abstains.

    Raises:
        BadInput: with the number that would do.
    """
    check_alpha(alpha)
    needed = next(n for n in range(1, 10**6) if binomtest(n, n, 0.5).pvalue <= alpha)
    if samples < needed:
        raise BadInput(
            f"{samples} samples at alpha {alpha:g}",
            "always abstain, even if all of them agree",
            f"use {needed} or more",
        )


def reach_notes(
    samples: int, alpha: float, sigmas: Sequence[float], radii: Sequence[float]
) -> list[str]:
    """Return which of the radii asked for a run cannot certify, whatever the images.

    Args:
        samples: Samples of the estimation stage.
        alpha: Probability of error.
        sigmas: Noise levels, [0, 1] units.
        radii: Radii asked for, [0, 1] units.

    Returns:
        One sentence for every noise level that is too small for some radius.

    Example:
        >>> reach_notes(10_000, 0.001, [0.25], [0.5, 1.0])[0][:60]
        'sigma 0.25 reaches at most radius 0.7996 with 10,000 samples'
    """
    notes = []
    for sigma in sigmas:
        reach = largest_radius(samples, alpha, sigma)
        beyond = [radius for radius in radii if radius > reach]
        if beyond:
            needed = samples_needed(beyond[0], alpha, sigma)
            cost = "no number of samples would do" if needed is None else f"{needed:,} would do"
            notes.append(
                f"sigma {sigma:g} reaches at most radius {round_down(reach, 4)} with "
                f"{samples:,} samples at alpha {alpha:g}, below radius {beyond[0]:g}: {cost}"
            )
    return notes
