"""A composition by selection: an accurate classifier, and a certified one where a selector says so.

With a selector s and a base classifier f that both look at the noisy image, and an accurate core
classifier B that looks at the clean one, the composed classifier is

    H(x) = C(x) if S(x) = 1 else B(x),   C(x) = argmax_c P(f(x + sigma z) = c),
                                         S(x) = 1 if P(s(x + sigma' z) = 1) > 1/2 else 0.

s is any function of the noisy image that is fixed beforehand: a threshold on the entropy of f's
answer, a trained network, good or bad. What is certified is H with that s, smoothed like f: how a
selector was trained changes how much is certified, never whether it is true.

The certificate. A selection stage proposes a branch and a class c. Fresh samples give lower bounds
of P(s = 1) and P(f = c), each wrong with probability at most alpha, and l_S = sigma' Phi^-1(.),
l_C = sigma Phi^-1(.).

* Branch 1, l_S > 0 and l_C > 0: H is c on the open ball of radius min(l_S, l_C).
* Branch 1, l_C > 0 only, and B(x) = c: H(x) = c, radius 0.
* Branch 0, and the lower bound of P(s = 0) is above 1/2: H(x) = B(x), radius 0.
* Otherwise it abstains.

Guarantee: a claim is wrong with probability at most alpha, without a correction for its two bounds.
Proof, given the selection stage, whose samples are others. In branch 0 one bound decides: if
S(x) = 1, P(s = 0) <= 1/2 is below its bound with probability at most alpha, and if S(x) = 0 then
H(x) = B(x). In branch 1 let t_S and t_C be the true values behind l_S and l_C. By Cohen's theorem S
is 1 on the ball of radius t_S and C is c on that of t_C, so a ball of radius r is wrong only if
min(t_S, t_C) < r = min(l_S, l_C). The point claim is wrong only if S(x) = 1 and C(x) is not c, so
that t_C <= 0 <= t_S. Which of t_S and t_C is the smaller is no matter of chance. If t_C <= t_S, a
wrong ball has t_C < l_C and a wrong point has t_C <= 0 < l_C: both lie in the one event l_C > t_C.
If t_S < t_C, a wrong ball has t_S < l_S, and the point claim cannot be wrong. Either event has
probability at most alpha. The two bounds may therefore share their samples, however dependent.

What it does not do: certify the core beyond the image itself (it has no certificate), or give a
larger radius than C alone at the same alpha. It trades radius for accuracy without noise.

Source: in the spirit of ACES [Horvath2022], which [Li2024] (table 3) and [Carlini2023] (table 2)
quote; the procedure and its proof are our own. [Cohen2019], theorem 1.
"""

from typing import Literal, NamedTuple

from advpure.analysis.certification.radius import ABSTAIN, ALPHA, check_alpha, radius_of
from advpure.analysis.certification.two_stage import Counts, tallied, top_class
from advpure.base.errors import BadInput
from advpure.base.units import parse_sigma
from advpure.statistics.rates import clopper_pearson_lower

Branch = Literal["certified", "core", "either"]


class ComposedCertificate(NamedTuple):
    """What the composition claims about one image.

    Attributes:
        prediction: The class, or ABSTAIN.
        radius: Radius of the certified ball, [0, 1] units; 0.0 for a claim about the image itself
            and where it abstains.
        branch: Which classifier answers; ``either`` where both answer the same, None where it
            abstains.
        samples: Noise samples of the certified classifier that were classified.
    """

    prediction: int
    radius: float
    branch: Branch | None
    samples: int


def certify_composition(
    certified: tuple[Counts, Counts],
    selector: tuple[Counts, Counts],
    core: int,
    *,
    alpha: float = ALPHA,
    sigma: float,
    selector_sigma: float | None = None,
) -> ComposedCertificate:
    """Certify one image by the composition; see the module for claims, guarantee and proof.

    Args:
        certified: Counts of the base classifier f in the selection and the estimation stage.
        selector: Counts of the selector s in both stages: class 1 chooses the certified
            classifier, class 0 the core.
        core: The core's class of the clean image.
        alpha: Probability of error.
        sigma: Standard deviation of the noise of f, [0, 1] units.
        selector_sigma: That of s; the same unless given.

    Raises:
        BadInput: for no counts, other answers of a selector than 0 and 1, a core that is no class,
            or alpha or sigma out of range.

    Example:
        >>> sure = ([0, 100], [0, 10_000])
        >>> certify_composition(sure, sure, 0, sigma=0.25)[::2]
        (1, 'certified')
        >>> certify_composition(sure, ([100, 0], [9_000, 1_000]), 0, sigma=0.25)[:3]
        (0, 0.0, 'core')
    """
    level, check = parse_sigma(sigma), check_alpha(alpha)
    other = level if selector_sigma is None else parse_sigma(selector_sigma)
    first, second = (tallied(stage) for stage in certified)
    votes, choices = (tallied(stage) for stage in selector)
    for label in (*votes, *choices):
        if label > 1:
            raise BadInput(f"answer {label} of a selector", "is no choice", "use 0 and 1")
    if core < 0:
        raise BadInput(f"class {core} of the core", "is no class", "count from 0")
    used = sum(first.values()) + sum(second.values())
    branch, candidate = top_class(votes), top_class(first)
    chosen = _above_half(choices, branch, check)
    if branch == 0:
        claim = (core, 0.0, "core") if chosen else None
    else:
        answered = _above_half(second, candidate, check)
        claim = None
        if answered and chosen:
            radius = min(radius_of(answered, level), radius_of(chosen, other))
            claim = (candidate, radius, "certified")
        elif answered and core == candidate:
            claim = (candidate, 0.0, "either")
    if claim is None:
        return ComposedCertificate(ABSTAIN, 0.0, None, used)
    return ComposedCertificate(*claim, used)  # type: ignore[arg-type]


def _above_half(counts: dict[int, int], label: int, alpha: float) -> float | None:
    """Return the lower bound of a label's probability, None unless it is above 1/2."""
    bound = clopper_pearson_lower(counts.get(label, 0), sum(counts.values()), alpha)
    return bound if bound > 0.5 else None
