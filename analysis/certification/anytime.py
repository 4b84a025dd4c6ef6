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
alpha = 0.001; Clopper-Pearson takes exactly that number, but may look only once. A test that knew
q = 1 - u (1-p) takes 1.15 to 1.25 times fewer samples for u up to 1/2.

The rule that gives up on a radius costs power and never validity. It may read anything but the
samples to come: a prior, the selection stage. After n samples let c_m be the chance, under the
posterior, that the next radius is certified at a later look m; sampling goes on while some m has

    c_m  >=  futility (m - n) / (budget / 5),

so while a certificate is expected to cost at most budget / (5 futility) samples.

Planned. Where alpha, b, the radii r_1 < r_2 < ..., N and the looks (so the size of a block) are
fixed before the first sample, more is known than Ville's inequality: under p = p_r the successes at
the looks are a random walk, so that the probability e(w) of log M_n(p_r) >= w at some look is
computed (`crossing.py`), and about the least w with e(w) <= alpha takes the place of log(1/alpha),
radius by radius. M_n(p_r) grows with S_n: p_r is rejected where S_n reaches a number c_n, which is
no more probable under p <= p_r (keep each success with probability p / p_r). A radius is claimed
only after those below it. If a claim is false, the least radius asked for that is false has passed
its test, which happens with probability at most alpha, whatever stops. Nothing is claimed at other
looks or radii, or with another N.

Source: [Robbins1970] (method of mixtures); [Ville1939]; [Howard2021] (confidence sequences);
[Armitage1969] (boundaries of repeated tests by the exact distribution, look by look).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln

from advpure.analysis.certification.crossing import crossing_probability
from advpure.analysis.certification.prior import FLAT, LARGEST_SHAPE, Prior, chances, check_prior
from advpure.analysis.certification.radius import ALPHA, bound_for, check_alpha, read_radii
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Share
from advpure.base.units import parse_sigma
from advpure.base.validation import Range, number, shown, validate, whole

Floats = NDArray[np.float64]
SHAPE = FLAT.shape
"""The b of the mixture: half of its mass below a quarter of the failure rate at the boundary."""

FUTILITY = 0.05
"""The least chance of a certificate per fifth of the budget, by default."""

_AHEAD = (0, 1, 2, 4, 7, 11, 16, 22, 30, 40, 55, 75)
"""How many looks ahead a chance is computed for; and for the last look."""

_HALVINGS = 14
"""Of the interval in which the least evidence of a planned rule is looked for, from above."""

# Logarithms of the evidence are good to about 1e-10 for up to 10^6 samples.
_GUARD = 1e-9

_UP = 1e-12
"""Share by which a planned radius is taken for larger: more than the rounding of its probability up
to 4 sigma; up to 6 sigma that is below 1e-7 of the failure rate."""


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
        alpha: Probability of error.
        shape: The b of the mixture, up to .65.

    Raises:
        BadInput: for counts, an alpha or a shape out of range.

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


def looks(block: int, budget: int, growth: float = 0.04) -> list[int]:
    """Return after how many samples to look: whole blocks, each look 4 % later or one block.

    Args:
        block: Samples per block.
        budget: Most samples.
        growth: Least relative distance of two looks.

    Example:
        >>> looks(64, 700)
        [64, 128, 192, 256, 320, 384, 448, 512, 576, 640]
        >>> looks(64, 10_000)[-4:]
        [9152, 9472, 9792, 9984]
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

    Sampling stops once every radius is certified, or the next would cost too much. That is a matter
    of power alone.

    Attributes:
        radii: The radii asked for, [0, 1] units, increasing; 0 asks for the prediction.
        sigma: Standard deviation of the noise, [0, 1] units.
        alpha: Probability of error.
        budget: Most samples.
        futility: In (0, 1): gives up where the chance of a certificate is less than this for every
            fifth of the budget that it takes.
        prior: Of the class's probability. Choose it before the samples are seen.
        planned: Whether everything here and the size of a block is fixed before the samples are
            seen: then a certificate takes less evidence, see the module, and holds for these alone.

    Raises:
        BadInput: for a setting out of range.
    """

    radii: tuple[float, ...]
    sigma: float
    alpha: float = ALPHA
    budget: Natural = 10_000
    futility: Share = FUTILITY
    prior: Prior = FLAT
    planned: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        check_alpha(self.alpha)
        validate(self)
        object.__setattr__(self, "prior", check_prior(self.prior))
        object.__setattr__(self, "sigma", parse_sigma(self.sigma))
        radii = read_radii(self.radii)
        if tuple(self.radii) != radii:
            raise BadInput(f"radii {self.radii}", "do not increase", "sort them")
        object.__setattr__(self, "radii", radii)

    @property
    def levels(self) -> tuple[float, ...]:
        """The probabilities that the radii take; those of a planned rule are rounded up."""
        more = 1.0 + _UP if self.planned else 1.0
        return tuple(bound_for(more * radius, self.sigma) for radius in self.radii)


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


def follow(
    rule: AnytimeRule,
    successes: Sequence[int],
    block: int,
    selected: tuple[int, int] | None = None,
    *,
    stops: bool = True,
) -> Followed:
    """Follow an image through its looks until it is decided or the samples end.

    Args:
        rule: The rule.
        successes: Samples of each block, in order, that answer the selected class.
        block: Samples per block.
        selected: Successes and failures of the selection stage, which say what to hope for; with
            them an image may be given up before the first block.
        stops: Whether sampling stops by this rule. Where another one decided how many samples there
            are, False looks at all of them.

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
        >>> follow(rule, [], 64, selected=(30, 70))
        Followed(samples=0, certified=0, decided=True)
    """
    block = whole(block, "block", 1)
    hits = [whole(each, "successes of a block", 0, block) for each in successes]
    s, n = _at_looks(rule, hits, block)
    before = (0, 0) if selected is None else _selection(selected)
    asked = _fewest(rule, block)
    if (
        stops
        and selected is not None
        and len(asked)
        and not _is_worth_it(rule, block, before, -1, 0, 0)
    ):
        return Followed(0, 0, True)
    certified, radii = 0, len(rule.radii)
    for look, (seen, samples) in enumerate(zip(s.tolist(), n.tolist(), strict=True)):
        while certified < radii and seen >= asked[look, certified]:
            certified += 1
        if stops and (
            certified == radii or not _is_worth_it(rule, block, before, look, seen, certified)
        ):
            return Followed(samples, certified, True)
    return Followed(int(n[-1]) if len(n) else 0, certified, rule.budget < block)


def followed_bound(
    rule: AnytimeRule, successes: Sequence[int], block: int, state: Followed
) -> float:
    """Return the largest lower bound of the looks that counted, 0.0 before the first.

    That of a planned rule is the level of the largest radius that is certified.

    Args:
        rule: The rule.
        successes: As for `follow`.
        block: Samples per block.
        state: What `follow` returned.
    """
    if rule.planned:
        return max((0.0, *rule.levels[: state.certified]))
    s, n = _at_looks(rule, successes, block)
    counted = n <= state.samples
    if not counted.any():
        return 0.0
    bound = float(lower_bounds(s[counted], n[counted], rule.alpha, rule.prior.shape).max())
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
    n = _looks(block, rule.budget)
    n = n[n <= block * len(hits)]
    return hits[n // block - 1] if len(n) else n, n


def next_samples(rule: AnytimeRule, samples: int, block: int) -> int:
    """Return how many samples the look after `samples` needs in all."""
    return next(n for n in looks(block, rule.budget) if n > samples)


def unreachable(rule: AnytimeRule, block: int) -> tuple[float, ...]:
    """Return the radii that the rule cannot certify even if every sample of the budget agrees.

    Args:
        rule: The rule.
        block: Samples per block.
    """
    samples, enough = _looks(block, rule.budget), _fewest(rule, block)
    return tuple(r for k, r in enumerate(rule.radii) if (enough[:, k] > samples).all())


@functools.lru_cache(maxsize=256)
def _looks(block: int, budget: int) -> NDArray[np.int64]:
    return np.array(looks(block, budget), dtype=np.int64)


@functools.lru_cache(maxsize=256)
def _fewest(rule: AnytimeRule, block: int) -> NDArray[np.int64]:
    """Return the fewest successes that certify, (looks, radii); n + 1 where none do."""
    n, shape, columns = _looks(block, rule.budget), rule.prior.shape, []
    for p in rule.levels:
        wanted = math.log(1.0 / rule.alpha) + _GUARD
        if p < 1.0 and rule.planned:
            wanted = _least_evidence(n, p, rule.alpha, shape)
        columns.append(_enough(n, p, wanted, shape) if p < 1.0 else n + 1)
    return np.stack(columns, axis=1)


def _enough(n: NDArray[np.int64], p: float, wanted: float, shape: float) -> NDArray[np.int64]:
    """Return the fewest successes of n samples with this evidence against p; n + 1 where none do.

    The evidence grows with the successes, so that bisection finds them.
    """
    few, enough = np.full_like(n, -1), n + 1
    while (live := enough - few > 1).any():
        middle = np.where(live, (few + enough) // 2, 0)
        rejected = log_evidence(middle, n - middle, p, shape) >= wanted
        enough = np.where(live & rejected, middle, enough)
        few = np.where(live & ~rejected, middle, few)
    return enough


def _least_evidence(n: NDArray[np.int64], p: float, alpha: float, shape: float) -> float:
    """Return the least evidence that is found at a look of n with probability up to alpha at p."""
    low, high = 0.0, math.log(1.0 / alpha) + _GUARD  # which suffices at any look
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if crossing_probability(_enough(n, p, middle, shape), n, p) <= alpha:
            high = middle
        else:
            low = middle
    return high


@functools.lru_cache(maxsize=2**16)
def _is_worth_it(
    rule: AnytimeRule, block: int, selected: tuple[int, int], look: int, seen: int, certified: int
) -> bool:
    """Return whether the next radius is worth further samples, after a look or before the first."""
    n, asked = _looks(block, rule.budget), _fewest(rule, block)[:, certified]
    last = len(n) - 1
    if look == last:
        return False
    ahead = sorted({min(look + 1 + each, last) for each in (*_AHEAD, last)})
    samples = int(n[look]) if look >= 0 else 0
    wanted = (asked[ahead] - seen).astype(np.float64)
    draws = (n[ahead] - samples).astype(np.float64)
    possible = wanted <= draws
    if not possible.any():
        return False
    before = seen + selected[0], samples - seen + selected[1]
    chance = chances(rule.prior, before, wanted[possible], draws[possible])
    return bool((chance * rule.budget >= 5 * rule.futility * draws[possible]).any())


def _selection(selected: tuple[int, int]) -> tuple[int, int]:
    try:
        hits, misses = selected
    except (TypeError, ValueError):
        rule = "are not successes and failures"
        raise BadInput(f"selected {shown(selected)}", rule, "give two counts") from None
    return whole(hits, "successes of the selection", 0), whole(misses, "its failures", 0)


def _check_mixture(alpha: float, shape: float) -> None:
    """Refuse what the proof does not cover."""
    check_alpha(alpha)
    number(shape, "shape", Range(above=0.0, most=LARGEST_SHAPE))
