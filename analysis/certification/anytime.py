"""A certificate that may be looked at after every block of samples, and stops when it is decided.

After n samples, S of which answer the selected class and F = n - S do not, the evidence against
"its probability is p" is the likelihood ratio against a mixture of larger probabilities, in which
the failure rate is a fraction u of 1 - p, u ~ Beta(b, 1):

    M_n(p) = E_u[q^S (1-q)^F] / (p^S (1-p)^F),   q = 1 - u (1-p),
           = b B(S+1, F+b) I(1-p; F+b, S+1) / (p^S (1-p)^(F+b)),

with the beta function B and the regularised incomplete beta function I. The confidence sequence
is L_n = sup {p : M_n(p) >= 1/alpha}, and the certificate after n samples is sigma Phi^-1(max L_k).

Guarantee: P(L_n > p for some n) <= alpha, where p is the true probability: whatever rule stops the
sampling, whatever radii are asked for and however many, and even if sampling goes on after a look,
the claim "the smoothed classifier answers this class within radius sigma Phi^-1(L_n)" is wrong
with probability at most alpha.

Proof. (1) Under the true p, M_n(p) is a mixture of likelihood ratios of one more sample each, a
non-negative martingale with mean M_0 = 1; by Ville's inequality P(sup_n M_n(p) >= 1/alpha) <=
alpha. (2) Off that event p itself is in no set {M_n >= 1/alpha}; so it suffices that this set is
an interval that begins at 0. Write l for the log likelihood of p and h(p) = b / (1-p) for the
hazard of the mixture of q, whose density is b (1-q)^(b-1) / (1-p)^b on (p, 1]. Then
(log M)' = h (1 - 1/M) - l'. Where M(p) >= 1/alpha > 1, some q > p is likelier than p, so p < S/n
by concavity of l, which then also gives log M <= max l - l(p) <= l'(p) (S/n - p), hence
l'(p) >= log(1/alpha) / (1-p) > h(p) if b < log(1/alpha). So log M decreases wherever it is at
least log(1/alpha): going down from a rejected p it only grows. []

Sharpness: at p near 1 the first possible claim takes about 1.17 times the samples of the bound
N >= ln(1/alpha) / -ln(p) that no procedure can beat (`radius.samples_needed`), for b = 1/2 at
alpha = 0.001; Clopper-Pearson takes exactly that number, but may look only once.

The rule that gives up on a radius costs power and never validity.

Source: [Robbins1970] (method of mixtures); [Ville1939]; [Howard2021] (confidence sequences).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, betaln

from advpure.analysis.certification.radius import ALPHA, bound_for, check_alpha, read_radii
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Positive, Share
from advpure.base.units import parse_sigma
from advpure.base.validation import Range, number, shown, validate, whole

Floats = NDArray[np.float64]
SHAPE = 0.5
"""The b of the mixture: half of its mass below a quarter of the failure rate at the boundary."""

FUTILITY = 0.05
"""How soon the procedure gives up on a radius by default."""

# Logarithms of the evidence are good to about 1e-10 for up to 10^6 samples.
_GUARD = 1e-9


def log_evidence(successes: Any, failures: Any, p: Any, shape: float = SHAPE) -> Floats:
    """Return log M(p), see the module; arguments broadcast.

    Args:
        successes: Samples that answer the class, 0 or more.
        failures: The other samples.
        p: Hypothetical probabilities in (0, 1).
        shape: The b of the mixture.

    Example:
        >>> [round(float(log_evidence(hits, 40 - hits, 0.8413)), 2) for hits in (40, 36, 30)]
        [5.86, -0.35, -2.44]
    """
    s, f, at = (np.asarray(each, dtype=np.float64) for each in (successes, failures, p))
    with np.errstate(divide="ignore"):
        share = np.log(betainc(f + shape, s + 1.0, 1.0 - at))
    own = s * np.log(at) + (f + shape) * np.log1p(-at)
    evidence: Floats = math.log(shape) + betaln(s + 1.0, f + shape) + share - own
    return evidence


def lower_bounds(
    successes: ArrayLike, samples: ArrayLike, alpha: float = ALPHA, shape: float = SHAPE
) -> Floats:
    """Return L_n, rounded down: the lower ends of the confidence sequence.

    Args:
        successes: Samples that answer the class.
        samples: All samples, at least 1.
        alpha: Probability of error, below e^-shape.
        shape: The b of the mixture.

    Raises:
        BadInput: for counts or an alpha out of range.

    Example:
        >>> lower_bounds([100, 95, 50], 100).round(3)
        array([0.923, 0.813, 0.295])
    """
    _check_mixture(alpha, shape)
    shapes = np.shape(successes), np.shape(samples)
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        rule = f"do not fit {shapes[0]}"
        raise BadInput(f"samples of shape {shapes[1]}", rule, "give one each") from None
    s, n = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    )
    if not ((s >= 0) & (s <= n) & (n >= 1) & np.isfinite(n)).all():
        raise BadInput(
            f"{shown(successes)} successes of {shown(samples)} samples",
            "are no counts",
            "give 0 to n of n, n 1 or more",
        )
    wanted = math.log(1.0 / alpha) + _GUARD
    low, high = np.zeros(s.shape), s / n
    for _ in range(48):  # bisection, to 4e-15; M decreases from p = 0 on to below 1 at S / n
        middle = 0.5 * (low + high)
        inside = (middle > 0.0) & (middle < 1.0)
        at = np.where(inside, middle, 0.5)
        rejected = inside & (log_evidence(s, n - s, at, shape) >= wanted)
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def looks(block: int, budget: int, growth: float = 0.1) -> list[int]:
    """Return after how many samples to look: whole blocks, each look a tenth later or one block.

    Args:
        block: Samples per block.
        budget: Most samples.
        growth: Least relative distance of two looks.

    Example:
        >>> looks(64, 700)
        [64, 128, 192, 256, 320, 384, 448, 512, 576, 640]
        >>> looks(64, 10_000)[-4:]
        [7936, 8704, 9536, 9984]
    """
    last = whole(budget, "budget", 1) // whole(block, "block", 1) * block
    samples = [block] if last else []
    while samples and samples[-1] < last:
        step = max(int(samples[-1] * growth) // block * block, block)
        samples.append(min(samples[-1] + step, last))
    return samples


@dataclass(frozen=True, kw_only=True)
class AnytimeRule:
    """What an image is asked, and when sampling stops.

    Sampling stops once every radius is certified, or none of the others can be hoped for: not even
    if the rest of the budget answered the class at the rate of the upper `futility` confidence
    bound. That is a matter of power alone.

    Attributes:
        radii: The radii asked for, [0, 1] units, increasing; 0 asks for the prediction.
        sigma: Standard deviation of the noise, [0, 1] units.
        alpha: Probability of error.
        budget: Most samples.
        futility: One minus the level of the upper bound, in (0, 1); smaller gives up later.
        shape: The b of the mixture.

    Raises:
        BadInput: for a setting out of range.
    """

    radii: tuple[float, ...]
    sigma: float
    alpha: float = ALPHA
    budget: Natural = 10_000
    futility: Share = FUTILITY
    shape: Positive = SHAPE

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_mixture(self.alpha, self.shape)
        validate(self)
        object.__setattr__(self, "sigma", parse_sigma(self.sigma))
        radii = read_radii(self.radii)
        if tuple(self.radii) != radii:
            raise BadInput(f"radii {self.radii}", "do not increase", "sort them")
        object.__setattr__(self, "radii", radii)

    @property
    def levels(self) -> tuple[float, ...]:
        """The probabilities that the radii take."""
        return tuple(bound_for(radius, self.sigma) for radius in self.radii)


class Followed(NamedTuple):
    """Where an image stands after some looks.

    Attributes:
        samples: Samples up to the last look that counted.
        certified: How many of the radii, from the smallest, are certified.
        decided: Whether sampling stops.
    """

    samples: int
    certified: int
    decided: bool


def follow(rule: AnytimeRule, successes: Sequence[int], block: int) -> Followed:
    """Follow an image through its looks until it is decided or the samples end.

    Args:
        rule: The rule.
        successes: Samples of each block, in order, that answer the selected class.
        block: Samples per block.

    Returns:
        A pure function of its arguments: samples beyond the deciding look change nothing.

    Raises:
        BadInput: for a block below 1, or successes outside 0 .. block.

    Example:
        >>> rule = AnytimeRule(radii=(0.0, 0.25, 0.5), sigma=0.5)
        >>> follow(rule, [64, 64], 64)
        Followed(samples=64, certified=3, decided=True)
        >>> follow(rule, [20] * 156, 64)
        Followed(samples=64, certified=0, decided=True)
    """
    block = whole(block, "block", 1)
    hits = [whole(each, "successes of a block", 0, block) for each in successes]
    s, n = _at_looks(rule, hits, block)
    if not len(n):
        return Followed(0, 0, rule.budget < block)
    levels = np.asarray(rule.levels)
    possible = levels < 1.0
    at = np.where(possible, levels, 0.5)
    evidence = log_evidence(s[:, None], (n - s)[:, None], at, rule.shape)
    rejected = possible & (evidence >= math.log(1.0 / rule.alpha) + _GUARD)
    certified = np.logical_or.accumulate(rejected).sum(axis=1)
    following = np.append(levels, 1.0)[certified]
    decided = (certified == len(levels)) | _are_hopeless(rule, s, n, following)
    decided |= n + block > rule.budget
    at_look = int(np.argmax(decided)) if decided.any() else len(n) - 1
    return Followed(int(n[at_look]), int(certified[at_look]), bool(decided[at_look]))


def followed_bound(
    rule: AnytimeRule, successes: Sequence[int], block: int, state: Followed
) -> float:
    """Return the largest lower bound of the looks that counted, 0.0 before the first.

    Args:
        rule: The rule.
        successes: As for `follow`.
        block: Samples per block.
        state: What `follow` returned.
    """
    s, n = _at_looks(rule, successes, block)
    counted = n <= state.samples
    if not counted.any():
        return 0.0
    bound = float(lower_bounds(s[counted], n[counted], rule.alpha, rule.shape).max())
    # Bisection ends just below a level that is certified exactly.
    return max(bound, *rule.levels[: state.certified], 0.0)


def _at_looks(
    rule: AnytimeRule, successes: Sequence[int], block: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the successes and samples at the looks that the blocks reach.

    Raises:
        BadInput: for a block without samples, or counts that it cannot hold.
    """
    block = whole(block, "block", 1)
    own = np.asarray(successes)
    if len(own) and (own.dtype.kind not in "iu" or own.min() < 0 or own.max() > block):
        raise BadInput(
            f"successes {shown(list(successes))}",
            f"are no counts of blocks of {block}",
            f"give 0 to {block} a block",
        )
    hits = np.cumsum(own.astype(np.int64))
    n = np.array([n for n in looks(block, rule.budget) if n // block <= len(hits)], dtype=np.int64)
    return hits[n // block - 1] if len(n) else n, n


def next_samples(rule: AnytimeRule, samples: int, block: int) -> int:
    """Return how many samples the look after `samples` needs in all."""
    return next(n for n in looks(block, rule.budget) if n > samples)


def unreachable(rule: AnytimeRule) -> tuple[float, ...]:
    """Return the radii that the rule cannot certify even if every sample of the budget agrees."""
    best = float(lower_bounds(rule.budget, rule.budget, rule.alpha, rule.shape))
    return tuple(r for r, p in zip(rule.radii, rule.levels, strict=True) if p > best)


def _are_hopeless(
    rule: AnytimeRule, successes: NDArray[np.int64], n: NDArray[np.int64], level: Floats
) -> NDArray[np.bool_]:
    """Whether the next level stays out of reach at the rate of the upper confidence bound."""
    failures = n - successes
    sure = failures == 0
    upper = betaincinv(successes + 1.0, np.where(sure, 1, failures), 1.0 - rule.futility)
    hoped = successes + np.where(sure, 1.0, upper) * (rule.budget - n)
    at = np.where(level < 1.0, level, 0.5)
    evidence = log_evidence(hoped, rule.budget - hoped, at, rule.shape)
    hopeless: NDArray[np.bool_] = (level >= 1.0) | (evidence < math.log(1.0 / rule.alpha))
    return hopeless


def _check_mixture(alpha: float, shape: float) -> None:
    """Refuse what the proof does not cover."""
    shape = number(shape, "shape", Range(above=0.0))
    if not shape < math.log(1.0 / check_alpha(alpha)):
        limit = math.exp(-shape)
        rule = f"does not go with a mixture of shape {shape:g}"
        raise BadInput(f"alpha {alpha:g}", rule, f"use alpha below {limit:.3g}")
