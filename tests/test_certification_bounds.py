"""The procedures keep their promise: exact values, exact levels, 10,000 simulated certificates.

Statistical tests are two-sided against the exact level where there is one, at 1e-5 each; "at most
alpha" is tested by the upper 1e-5 quantile of the binomial distribution.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import betaln, logsumexp, ndtr, ndtri

from advpure.analysis.certification import cascade
from advpure.analysis.certification.anytime import (
    AnytimeRule,
    _fewest,
    follow,
    followed_bound,
    log_evidence,
    looks,
    lower_bounds,
    next_samples,
    unreachable,
)
from advpure.analysis.certification.cascade import certify_cascade
from advpure.analysis.certification.crossing import crossing_probability
from advpure.analysis.certification.jointly import certify_jointly
from advpure.analysis.certification.prior import (
    _A,
    FLAT,
    Prior,
    chances,
    learn_prior,
    read_prior,
)
from advpure.analysis.certification.radius import (
    ABSTAIN,
    bound_for,
    largest_radius,
    radius_of,
    read_radii,
    read_sigmas,
    round_down,
    samples_needed,
)
from advpure.analysis.certification.two_stage import (
    certify,
    check_useful,
    check_useful_prediction,
    predict,
    reach_notes,
    tallied,
)
from advpure.base.errors import BadInput
from advpure.statistics.rates import clopper_pearson_lower

TINY = 1e-5
RUNS = 10_000
ALPHA = 0.05
Ints = NDArray[np.int64]
SURE = Prior((*[1e-4] * 15, 1.0), 0.1)
"""That every image is answered right nearly always."""


def generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


def check_at_most(errors: int, level: float = ALPHA, runs: int = RUNS) -> None:
    """The error rate stays within the binomial bound of its level."""
    assert errors <= stats.binom.ppf(1 - TINY, runs, level), errors / runs


def check_equals(errors: int, level: float, runs: int = RUNS) -> None:
    """The error rate is that of an exact computation."""
    low, high = stats.binom.ppf([TINY / 2, 1 - TINY / 2], runs, level)
    assert low <= errors <= high, (errors / runs, level)


# --- exact values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "bound", "quantile"),
    [(10_000, 0.9993095, 3.19858), (100_000, 0.9999309, 3.81146)],
)
def test_all_samples_agree(samples: int, bound: float, quantile: float) -> None:
    certificate = certify([0, 100], [0, samples], alpha=0.001, sigma=1.0)
    assert certificate.prediction == 1
    assert certificate.bound == pytest.approx(bound, abs=5e-8)
    assert certificate.radius == pytest.approx(quantile, abs=5e-6)
    assert certificate.radius <= ndtri(0.001 ** (1 / samples))
    assert certificate.radius == largest_radius(samples, 0.001, 1.0)
    assert certificate.samples == samples + 100
    scaled = certify([0, 100], [0, samples], alpha=0.001, sigma=0.25)
    assert scaled.radius == pytest.approx(certificate.radius / 4, rel=1e-15)


def test_nothing_agrees() -> None:
    assert certify([0, 1], [10, 0], sigma=0.25)[:3] == (ABSTAIN, 0.0, 0.0)
    assert certify([5, 5, 0], [0, 1000, 0], sigma=0.25).prediction == ABSTAIN  # lowest on a tie


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("n", [1, 10, 137, 5000])
def test_bound_is_the_beta_quantile(n: int, alpha: float) -> None:
    for hits in sorted({0, 1, n // 2, n - 1, n}):
        bound = certify([1], [hits, n - hits], alpha=alpha, sigma=1.0).bound
        exact = stats.beta.ppf(alpha, hits, n - hits + 1) if hits else 0.0
        assert bound == pytest.approx(exact, rel=1e-10)
        assert bound <= exact


def test_predictions() -> None:
    assert predict([52, 48]).prediction == ABSTAIN
    sure = predict([90, 10])
    assert (sure.prediction, sure.samples) == (0, 100)
    assert sure.p_value < 0.001
    assert predict([0, 0, 30]).prediction == 2
    assert predict([5, 90, 5]).p_value == pytest.approx(stats.binomtest(90, 95).pvalue)
    assert predict([50, 50], alpha=0.5).prediction == ABSTAIN  # a tie has the p-value 1


@given(value=st.floats(0, 50), digits=st.integers(0, 6))
def test_rounding_goes_down(value: float, digits: int) -> None:
    shown = float(round_down(value, digits))
    assert shown <= value < shown + 10.0**-digits * (1 + 1e-9) + 1e-15


@given(bound=st.floats(0.5, 1 - 1e-12), sigma=st.floats(0.01, 4))
def test_radius_is_never_above_the_exact_one(bound: float, sigma: float) -> None:
    radius = radius_of(bound, sigma)
    exact = sigma * -optimize.brentq(lambda z: ndtr(z) - (1 - bound), -9, 1, xtol=1e-13)
    assert radius == pytest.approx(exact, abs=1e-4 * sigma if bound > 1 - 1e-9 else 1e-9)
    assert radius <= sigma * ndtri(bound) or radius == 0.0
    assert radius >= 0.0


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("radius", [0.0, 0.25, 0.5, 0.75])
def test_fewest_samples(radius: float, sigma: float) -> None:
    n = samples_needed(radius, 0.001, sigma)
    assert n is not None
    assert clopper_pearson_lower(n, n, 0.001) >= bound_for(radius, sigma)
    assert clopper_pearson_lower(n - 1, n - 1, 0.001) < bound_for(radius, sigma)
    assert samples_needed(3.0, 0.001, 0.25) is None


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0, 0.9, float("nan"), True])
def test_alpha_is_a_probability(alpha: float) -> None:
    for call in (
        lambda: certify([1], [10], alpha=alpha, sigma=0.5),
        lambda: predict([1], alpha=alpha),
        lambda: AnytimeRule(radii=(0.0,), sigma=0.5, alpha=alpha),
        lambda: certify_cascade({}, sigmas=(0.5,), classes=2, alpha=alpha),
        lambda: certify_jointly({0.5: ([1], [10])}, alpha=alpha),
    ):
        with pytest.raises(
            BadInput, match=r"alpha .* is (outside|above 0\.5|not finite|not a num)"
        ):
            call()


@pytest.mark.parametrize("sigma", [0.0, -0.25, float("nan"), 64.0])
def test_sigma_is_a_level(sigma: float) -> None:
    for call in (
        lambda: certify([1], [10], sigma=sigma),
        lambda: read_sigmas(sigma),
        lambda: AnytimeRule(radii=(0.0,), sigma=sigma),
        lambda: certify_cascade({}, sigmas=(sigma,), classes=2),
    ):
        with pytest.raises(BadInput, match="sigma"):
            call()


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 3], {-1: 5}, [0.5, 1], {}])
def test_counts_are_counts(counts: list[int]) -> None:
    with pytest.raises(BadInput, match=r"count|class -1 is none"):
        tallied(counts)


def test_too_few_samples() -> None:
    with pytest.raises(BadInput, match=r"9 samples at alpha 0.001 can certify nothing.*use 10 or"):
        check_useful(9, 0.001)
    check_useful(10, 0.001)
    with pytest.raises(BadInput, match=r"10 samples at alpha 0.001 always abstain.*use 11 or more"):
        check_useful_prediction(10, 0.001)
    check_useful_prediction(11, 0.001)
    assert predict([11], alpha=0.001).prediction == 0
    assert predict([10], alpha=0.001).prediction == ABSTAIN


def test_notes_name_what_is_out_of_reach() -> None:
    (note,) = reach_notes(10_000, 0.001, [0.25, 1.0], [0.0, 0.5, 1.0])
    assert "0.7996" in note
    assert "sigma 0.25" in note
    needed = samples_needed(1.0, 0.001, 0.25)
    assert needed is not None
    assert f"{needed:,} would do" in note
    assert largest_radius(needed, 0.001, 0.25) >= 1.0 > largest_radius(needed - 1, 0.001, 0.25)
    assert "no number" in reach_notes(10_000, 0.001, [0.25], [5.0])[0]


@pytest.mark.parametrize("text", ["", "0,0", "-0.1", "a", "nan"])
def test_radii_are_radii(text: str) -> None:
    with pytest.raises(BadInput, match=r"radi(us|i)"):
        read_radii(text)


# --- fixed number of samples ----------------------------------------------------------------------


def exact_level(table: NDArray[np.float64], n: int, p: float) -> float:
    """Probability that the bound of binomial counts is above p."""
    return float(stats.binom.pmf(np.flatnonzero(table > p), n, p).sum())


@pytest.mark.parametrize("p", [0.55, 0.8, 0.97, 0.995])
def test_coverage_of_the_two_stage_procedure(p: float) -> None:
    n, draw = 300, generator(1)
    table = np.array([clopper_pearson_lower(k, n, ALPHA) for k in range(n + 1)])
    selected = draw.binomial(20, p, RUNS) >= 10
    errors = 0
    for right, hits in zip(selected, draw.binomial(n, p, RUNS), strict=True):
        counts0 = [20, 0] if right else [0, 20]
        if hits % 97 == 0:  # the procedure itself, now and then; its bound from the table, always
            certificate = certify(counts0, [hits, n - hits], alpha=ALPHA, sigma=1.0)
            assert certificate.bound == table[hits if right else n - hits]
        errors += table[hits] > p if right else table[n - hits] > 1 - p
    level = exact_level(table, n, p)
    assert level <= ALPHA
    check_at_most(errors)
    if selected.all():
        check_equals(errors, level)


def test_coverage_of_the_prediction() -> None:
    n, p, draw = 100, 0.505, generator(2)
    wrong = np.array([predict([k, n - k], alpha=ALPHA).prediction == 1 for k in range(n + 1)])
    errors = int(wrong[draw.binomial(n, p, RUNS)].sum())
    check_at_most(errors)
    check_equals(errors, float(stats.binom.pmf(np.flatnonzero(wrong), n, p).sum()))
    assert errors > 0


def test_coverage_of_joint_certificates() -> None:
    sigmas, p, n, draw = (0.25, 0.5, 1.0), (0.98, 0.9, 0.7), 200, generator(3)
    wrong = []
    for sigma, chance in zip(sigmas, p, strict=True):
        table = np.array(
            [
                certify_jointly(
                    {s: ([9, 0], [k, n - k] if s == sigma else [n, 0]) for s in sigmas},
                    alpha=ALPHA,
                )[sigma].bound
                for k in range(n + 1)
            ]
        )
        wrong.append(
            (table[draw.binomial(n, chance, RUNS)] > chance, exact_level(table, n, chance))
        )
    errors = int(np.logical_or.reduce([each for each, _ in wrong]).sum())
    check_at_most(errors)
    check_equals(errors, 1 - math.prod(1 - level for _, level in wrong))
    alone = [np.mean(each) for each, _ in wrong]
    assert max(alone) <= ALPHA / 3 + 0.01


# --- anytime --------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 3000), share=st.floats(0, 1), shape=st.sampled_from([0.1, 0.3, 0.5, 0.65]),
    alpha=st.sampled_from([0.1, 0.05, 0.001]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_rejected_levels_are_an_interval_from_zero(
    n: int, share: float, shape: float, alpha: float
) -> None:
    hits = round(share * n)
    p = np.linspace(1e-4, 1 - 1e-4, 4001)
    rejected = log_evidence(hits, n - hits, p, shape) >= math.log(1 / alpha)
    assert not np.any(rejected[1:] & ~rejected[:-1])
    low = float(lower_bounds(hits, n, alpha, shape))
    assert np.all(p[rejected] <= low + 1e-9)
    assert np.all(p[~rejected] >= low - 1e-9)
    assert low <= hits / n


def test_evidence_is_the_mixture_integral() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    u, w = (nodes + 1) / 2, weights / 2
    for hits, misses, p, b in ((30, 2, 0.8, 0.5), (5, 40, 0.05, 1.0), (100, 0, 0.95, 2.0)):
        v = u ** (1 / b)  # of Beta(b, 1)
        q = 1 - v * (1 - p)
        ratio = (q / p) ** hits * ((1 - q) / (1 - p)) ** misses
        assert log_evidence(hits, misses, p, b) == pytest.approx(
            math.log((w * ratio).sum()), rel=1e-6
        )


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_evidence_is_a_martingale(p: float) -> None:
    for hits, misses in ((0, 0), (10, 0), (50, 7), (3, 9)):
        now = math.exp(log_evidence(hits, misses, p))
        up, down = (math.exp(log_evidence(hits + a, misses + b, p)) for a, b in ((1, 0), (0, 1)))
        assert p * up + (1 - p) * down == pytest.approx(now, rel=1e-9)


def crossing_level(p: float, block: int, budget: int, alpha: float) -> float:
    """Exact probability that a bound exceeds p at one of the looks at whole blocks."""
    alive, crossed = np.array([1.0]), 0.0
    step = stats.binom.pmf(np.arange(block + 1), block, p)
    for n in range(block, budget + 1, block):
        alive = np.convolve(alive, step)
        hits = np.arange(n + 1)
        over = log_evidence(hits, n - hits, p) >= math.log(1 / alpha)
        crossed += alive[over].sum()
        alive[over] = 0.0
    return float(crossed)


@pytest.mark.parametrize("p", [0.5, 0.8413, 0.98])
def test_coverage_of_the_anytime_procedure(p: float) -> None:
    block, budget = 8, 800
    times = np.arange(block, budget + 1, block)
    draw = generator(4)
    hits = draw.binomial(block, p, (RUNS, len(times))).cumsum(axis=1)
    evidence = log_evidence(hits, times - hits, p)
    errors = int((evidence.max(axis=1) >= math.log(1 / ALPHA)).sum())
    level = crossing_level(p, block, budget, ALPHA)
    assert 0.25 * ALPHA < level <= ALPHA  # sharp: not far below what is allowed
    check_at_most(errors)
    check_equals(errors, level)


@pytest.mark.parametrize("prior", [FLAT, SURE], ids=["flat", "wrong"])
@pytest.mark.parametrize(("p", "sigma"), [(0.6, 1.0), (0.84, 0.5), (0.977, 0.25)])
def test_coverage_with_the_stopping_rule(p: float, sigma: float, prior: Prior) -> None:
    check_stopping_rule(p, sigma, 100, prior)


@pytest.mark.slow
def test_coverage_with_the_stopping_rule_of_many_runs() -> None:
    check_stopping_rule(0.84, 0.5, RUNS, SURE)


def check_stopping_rule(p: float, sigma: float, runs: int, prior: Prior) -> None:
    rule = AnytimeRule(radii=(0.0, 0.25, 0.5), sigma=sigma, alpha=ALPHA, budget=1600, prior=prior)
    block, draw = 16, generator(5)
    errors = stopped = 0
    for _ in range(runs):
        hits = draw.binomial(block, p, 100).tolist()
        found = follow(rule, hits, block, (8, 2))
        errors += followed_bound(rule, hits, block, found) > p
        stopped += found.samples < 1600
        assert found.decided
    check_at_most(errors, runs=runs)
    assert stopped > 0.5 * runs


def test_the_prior_changes_when_an_image_is_given_up_and_no_claim() -> None:
    hits = [12] * 100
    rules = [
        AnytimeRule(radii=(0.1, 0.5), sigma=0.5, alpha=ALPHA, budget=1600, prior=each)
        for each in (FLAT, Prior(FLAT.weights[::-1]), Prior(SURE.weights))
    ]
    states = [follow(rule, hits, 16) for rule in rules]
    assert len({state.certified for state in states}) == 1
    assert states[0].samples < 1600
    assert follow(rules[0], [], 16, (3, 17)) == (0, 0, True)
    assert follow(rules[0], [], 16, (19, 1)) == (0, 0, False)


@pytest.mark.parametrize("shape", [0.2, 0.5])
def test_fewest_successes_are_those_of_the_evidence(shape: float) -> None:
    prior = FLAT._replace(shape=shape)
    rule = AnytimeRule(radii=(0.0, 0.25, 9.0), sigma=0.25, alpha=ALPHA, budget=320, prior=prior)
    table = _fewest(rule, 16)
    for row, n in zip(table, looks(16, 320), strict=True):
        assert row[2] == n + 1  # a level that no sample proves
        for enough, p in zip(row[:2], rule.levels[:2], strict=True):
            s = np.arange(n + 1)
            rejected = log_evidence(s, n - s, p, shape) >= math.log(1 / ALPHA)
            assert rejected.sum() == n + 1 - enough
            assert rejected[enough:].all()


def test_chances_are_beta_binomial_tails() -> None:
    draw = generator(9)
    for _ in range(20):
        successes, failures = (int(each) for each in 10 ** draw.uniform(0, 3, 2))
        m = int(10 ** draw.uniform(1.5, 3))
        wanted = int(m * draw.uniform(0.3, 1.0))
        x = np.arange(wanted, m + 1)[:, None]
        tails = stats.betabinom.pmf(x, m, _A + successes, 2 + failures).sum(axis=0)
        own = betaln(_A + successes, 2 + failures) - betaln(_A, 2)
        weights = np.exp(own - logsumexp(own))
        exact = float(weights @ tails)
        found = chances(FLAT, (successes, failures), np.array([wanted]), np.array([m]))
        assert found[0] == pytest.approx(exact, abs=0.1)
    assert chances(FLAT, (5, 5), np.array([0.0, 11.0]), np.array([10.0, 10.0])).tolist() == [1, 0]


def test_a_prior_is_learned_from_counts() -> None:
    draw = generator(10)
    rates = draw.beta(2, 30, 300)  # of failure
    hits = 500 - draw.binomial(500, rates)
    prior = learn_prior(hits, [500] * 300)
    means = np.array([2 / 3 / 2**k for k in range(16)])
    assert np.average(means, weights=prior.weights) == pytest.approx(rates.mean(), rel=0.1)
    assert prior == learn_prior(hits[::-1], [500] * 300)
    assert learn_prior([500] * 10, [500] * 10).shape < 0.2 < prior.shape


def test_the_nearest_level_is_read() -> None:
    near = read_prior(None, "digits", (0.24, 0.3, 2.0))
    assert near == read_prior(None, "digits", (0.25, 0.25, 1.0))
    assert read_prior(None, "no such data", (0.5,)) == (FLAT,)
    assert read_prior("flat", "digits", (0.5,)) == (FLAT,) != read_prior(None, "digits", (0.5,))


def test_following_is_a_pure_function_of_the_blocks() -> None:
    rule = AnytimeRule(radii=(0.25, 0.5), sigma=0.5, budget=4096)
    hits = generator(6).binomial(64, 0.8, 64).tolist()
    whole = follow(rule, hits, 64)
    assert whole.decided
    seen = 0
    while not (state := follow(rule, hits[: seen // 64], 64)).decided:
        seen = next_samples(rule, state.samples, 64)
    assert state == whole
    assert whole.samples < 4096


def test_nothing_to_follow() -> None:
    rule = AnytimeRule(radii=(0.25,), sigma=0.5, budget=100)
    assert follow(rule, [], 64) == (0, 0, False)
    assert follow(rule, [10], 128).decided  # the budget holds no block
    assert looks(128, 100) == []
    assert follow(rule, [64], 64).samples == 64
    assert unreachable(AnytimeRule(radii=(0.5, 1.0), sigma=0.25), 64) == (1.0,)
    assert unreachable(AnytimeRule(radii=(0.5, 9.0), sigma=0.25), 64) == (9.0,)
    assert follow(AnytimeRule(radii=(9.0,), sigma=0.25), [64] * 156, 64).samples == 64


def test_radius_covers_what_is_certified() -> None:
    rule = AnytimeRule(radii=(0.0, 0.25, 0.5), sigma=0.5)
    found = follow(rule, [64], 64)
    assert found.certified == 3
    bound = followed_bound(rule, [64, 0, 0], 64, found)
    assert bound == float(lower_bounds(64, 64))
    assert radius_of(bound, 0.5) >= 0.5
    for radius in (0.1, 0.33, 0.5857):  # whatever the bisection leaves open, the radius is reached
        exactly = AnytimeRule(radii=(radius,), sigma=0.5)
        state = follow(exactly, [64], 64)
        reached = radius_of(followed_bound(exactly, [64], 64, state), 0.5)
        assert state.certified == (reached >= radius)
    assert followed_bound(rule, [], 64, follow(rule, [], 64)) == 0.0


# --- planned --------------------------------------------------------------------------------------


def test_a_crossing_probability_by_hand_and_by_enumeration() -> None:
    # Five of five, or, after four of five, five of five: (1 + 5 / 32) / 32.
    assert crossing_probability([5, 9], [5, 10], 0.5) == pytest.approx((1 + 5 / 32) / 32, rel=1e-8)
    assert crossing_probability([0, 9], [5, 10], 0.5) == pytest.approx(1.0, rel=1e-8)
    assert crossing_probability([6, 11], [5, 10], 0.5) == 0.0
    assert crossing_probability([], [], 0.5) == 0.0
    p, enough, ends = 0.7, (3, 6, 8), (3, 7, 10)
    paths = (np.arange(1 << 10)[:, None] >> np.arange(10)) & 1
    totals = paths.cumsum(axis=1)
    reached = np.zeros(len(paths), dtype=bool)
    for least, n in zip(enough, ends, strict=True):
        reached |= totals[:, n - 1] >= least
    masses = p ** totals[:, -1] * (1 - p) ** (10 - totals[:, -1])
    found = crossing_probability(enough, ends, p)
    assert found == pytest.approx(float(masses[reached].sum()), rel=1e-8)
    assert found >= masses[reached].sum()  # rounded up


def test_a_crossing_probability_counts_what_it_does_not_carry_on() -> None:
    # All of many samples: the tails are cut, and p^n is far below what is cut.
    n = np.arange(100, 20_001, 100)
    exact, found = 0.5**100, crossing_probability(n, n, 0.5)
    assert exact <= found < 1e-12


@given(
    radius=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7]),
    alpha=st.sampled_from([0.5, 0.05, 0.001, 1e-6]), block=st.sampled_from([1, 16, 64, 300]),
    shape=st.sampled_from([0.1, 0.5, 0.65]), below=st.floats(0.0, 0.2),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_a_planned_test_keeps_its_alpha_and_takes_no_more_evidence(
    radius: float, alpha: float, block: int, shape: float, below: float
) -> None:
    rule = AnytimeRule(
        radii=(radius,), sigma=0.25, alpha=alpha, budget=600, prior=FLAT._replace(shape=shape)
    )
    planned = replace(rule, planned=True)
    few, enough = _fewest(planned, block)[:, 0], _fewest(rule, block)[:, 0]
    (p,), times = rule.levels, looks(block, 600)
    assert (few <= enough).all()
    assert exact_error(few, times, p) <= alpha
    assert exact_error(few, times, p - below * p) <= alpha


def exact_error(enough: Ints, times: list[int], p: float) -> float:
    """The probability of a crossing, sample by sample."""
    alive, crossed = np.array([1.0]), 0.0
    ends = dict(zip(times, enough.tolist(), strict=True))
    for n in range(1, times[-1] + 1):
        alive = np.append(alive * (1 - p), 0.0) + np.append(0.0, alive * p)
        if n in ends:
            crossed += alive[ends[n] :].sum()
            alive[ends[n] :] = 0.0
    return float(crossed)


@pytest.mark.parametrize("p", [0.55, 0.6914, 0.84])
def test_coverage_of_the_planned_radii(p: float) -> None:
    """No claim is wrong more often than alpha, whatever stops, and alpha is used up."""
    rule = AnytimeRule(
        radii=(0.0, 0.25, 0.5), sigma=0.5, alpha=ALPHA, budget=1600, prior=SURE, planned=True
    )
    block, draw, runs = 16, generator(11), 2000
    wrong = stopped = 0
    for _ in range(runs):
        hits = draw.binomial(block, p, 100).tolist()
        everything = follow(rule, hits, block, (8, 2), stops=False)
        found = follow(rule, hits, block, (8, 2))
        reached = rule.radii[: everything.certified]
        wrong += bool(reached) and reached[-1] >= 0.5 * ndtri(p)
        stopped += found.samples < everything.samples
        assert found.certified <= everything.certified
    check_at_most(wrong, runs=runs)
    assert stopped > 0.5 * runs
    if p == 0.6914:  # just below what a radius asked for takes
        assert wrong > 0.75 * ALPHA * runs


def test_a_planned_rule_certifies_the_radii_asked_for_and_none_between() -> None:
    radii = (0.0, 0.25, 0.5)
    rule = AnytimeRule(radii=radii, sigma=0.5, planned=True)
    state = follow(rule, [64], 64)
    assert state.certified == 3
    assert followed_bound(rule, [64], 64, state) == rule.levels[-1]
    assert radius_of(rule.levels[-1], 0.5) == pytest.approx(0.5, rel=1e-11)
    assert radius_of(rule.levels[-1], 0.5) >= 0.5
    none = follow(rule, [20], 64)
    assert (none.certified, followed_bound(rule, [20], 64, none)) == (0, 0.0)
    assert unreachable(AnytimeRule(radii=(0.5, 1.0), sigma=0.25, planned=True), 64) == (1.0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"radii": (0.5, 0.25)}, "do not increase"),
        ({"futility": 0.0}, "futility 0 is not above 0 and below 1"),
        ({"prior": ((1.0,) * 16, 8.0)}, "is not 16 positive weights and a shape up to 0.65"),
        ({"prior": ((1.0,) * 15, 0.5)}, "is not 16 positive weights"),
        ({"prior": "x"}, "prior 'x' is not 16 positive weights"),
        ({"alpha": 0.7}, "alpha 0.7 is above 0.5, so its certificates say nothing"),
    ],
)
def test_rules_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        AnytimeRule(**{"radii": (0.25,), "sigma": 0.5, **change})  # type: ignore[arg-type]


def test_first_claim_is_close_to_the_fewest_samples() -> None:
    for radius, sigma in ((0.25, 0.25), (0.75, 0.25), (1.0, 0.5)):
        p = bound_for(radius, sigma)
        n = np.arange(1, 10_000)
        first = int(n[np.argmax(log_evidence(n, 0, p) >= math.log(1000))])
        fewest = samples_needed(radius, 0.001, sigma)
        assert fewest is not None
        assert fewest <= first <= 1.2 * fewest


# --- cascade --------------------------------------------------------------------------------------


def three_classes(draw: np.random.Generator, p: tuple[float, ...], n: int) -> list[int]:
    return [int(each) for each in draw.multinomial(n, p)]


@pytest.mark.slow
def test_coverage_of_the_cascade_where_every_claim_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At p = (1/2, ...) the first level passes on, but only just: all claims are errors."""
    remembered = lru_cache(clopper_pearson_lower)
    monkeypatch.setattr(cascade, "clopper_pearson_lower", remembered)
    n, draw = 150, generator(7)
    first, second = (0.5, 0.3, 0.2), (0.1, 0.8, 0.1)
    claims = published = 0
    for _ in range(RUNS):
        high, low = three_classes(draw, first, n), three_classes(draw, second, n)
        stages = {1.0: ([9, 0, 0], high), 0.25: ([0, 9, 0], low)}
        found = certify_cascade(stages, sigmas=(0.25, 1.0), classes=3, alpha=ALPHA)
        assert found is not None
        claims += found.prediction != ABSTAIN
        halts = remembered(high[0], n, ALPHA) > 0.5
        passes = 1 - remembered(n - high[0], n, ALPHA / 2) < 0.5
        published += halts or passes
    check_at_most(claims)
    assert claims > 0.1 * ALPHA * RUNS
    # Counting only the levels up to the one that halts is not valid, even without other classes.
    assert published > stats.binom.ppf(1 - TINY, RUNS, ALPHA)


def cascade_answer(x: float, sigmas: tuple[float, ...], w: float) -> int:
    """Answer of the exact cascade on the line with classes 0: x < -w, 1: between, 2: x > w."""
    for sigma in sorted(sigmas, reverse=True):
        left, right = ndtr((-w - x) / sigma), ndtr((x - w) / sigma)
        p = (left, 1 - left - right, right)
        if max(p) > 0.5:
            return int(np.argmax(p))
    return ABSTAIN


@pytest.mark.parametrize("x", [0.0, 0.1, 0.3])
def test_cascade_stays_within_its_true_radius(x: float) -> None:
    sigmas, w, n, draw, runs = (0.25, 1.0), 0.5, 1000, generator(8), 500
    grid = np.linspace(0, 1, 2001)
    answer = cascade_answer(x, sigmas, w)
    kept = [cascade_answer(x + d, sigmas, w) == cascade_answer(x - d, sigmas, w) == answer
            for d in grid]  # fmt: skip
    true = float(grid[np.argmin(kept)])
    errors, radii = 0, []
    for _ in range(runs):
        stages = {}
        for sigma in sigmas:
            left, right = ndtr((-w - x) / sigma), ndtr((x - w) / sigma)
            p = (left, 1 - left - right, right)
            stages[sigma] = (three_classes(draw, p, 100), three_classes(draw, p, n))
        found = certify_cascade(stages, sigmas=sigmas, classes=3, alpha=ALPHA)
        assert found is not None
        if found.prediction != ABSTAIN:
            radii.append(found.radius)
            errors += found.prediction != answer or found.radius > true + 1e-3
    check_at_most(errors, runs=runs)
    assert max(radii) > 0.3 * true
    assert len(radii) > runs / 2


def test_cascade_with_one_level_is_the_two_stage_procedure() -> None:
    for counts in ([900, 100], [400, 600], [1000, 0]):
        single = certify([9, 0], counts, alpha=0.01, sigma=0.5)
        found = certify_cascade({0.5: ([9, 0], counts)}, sigmas=(0.5,), classes=2, alpha=0.01)
        assert found is not None
        assert found[:2] == (single.prediction, pytest.approx(single.radius))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 0.4}, "threshold 0.4 is not 0.5 or more"),
        ({"classes": 1}, "class 1 is none of 1 classes"),
        ({"sigmas": (0.5, 0.5)}, "noise levels 0.5,0.5 repeat a value"),
    ],
)
def test_cascades_are_checked(change: dict[str, object], words: str) -> None:
    stages = {0.5: ([9, 0], [9, 1])}
    with pytest.raises(BadInput, match=words):
        certify_cascade(stages, **{"sigmas": (0.5,), "classes": 2, **change})  # type: ignore[arg-type]


# --- analytic classifiers -------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.25, 1.0])
@pytest.mark.parametrize("distance", [0.01, 0.2, 0.6])
def test_linear_classifier(distance: float, sigma: float) -> None:
    """Under Gaussian noise its p is Phi(distance / sigma); its radius is the distance."""
    draw, n, runs = generator(9), 1000, 2000
    p = float(ndtr(distance / sigma))
    table = [certify([9, 0], [k, n - k], alpha=ALPHA, sigma=sigma).radius for k in range(n + 1)]
    radii = np.array(table)[draw.binomial(n, p, runs)]
    check_at_most(int((radii > distance).sum()), runs=runs)
    times = np.arange(50, n + 1, 50)
    hits = draw.binomial(50, p, (runs, len(times))).cumsum(axis=1)
    levels = lower_bounds(hits[:200], times, ALPHA).max(axis=1)
    check_at_most(int((levels > p).sum()), runs=200)
    limit = certify([9, 0], [round(p * 10**9), round((1 - p) * 10**9)], sigma=sigma).radius
    assert limit == pytest.approx(
        distance, abs=2e-4 * max(sigma, 1.0) if distance < 3 * sigma else 1
    )
    assert limit < distance


@pytest.mark.parametrize("x", [0.0, 0.15, 0.4])
def test_two_half_spaces(x: float) -> None:
    """A slab |x| < 1/2: the certificate is below the true radius, also in the limit."""
    sigma, w, draw, n, runs = 0.3, 0.5, generator(10), 1000, 2000

    def p(at: float) -> float:
        return float(ndtr((w - at) / sigma) - ndtr((-w - at) / sigma))

    true = optimize.brentq(lambda d: p(x + d) - 0.5, 0.0, 2.0)
    table = [certify([9, 0], [k, n - k], alpha=ALPHA, sigma=sigma).radius for k in range(n + 1)]
    radii = np.array(table)[draw.binomial(n, p(x), runs)]
    check_at_most(int((radii > true).sum()), runs=runs)
    assert radius_of(p(x), sigma) <= true
    assert radii.max() > 0.5 * true
