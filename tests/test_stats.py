"""Rates and means: closed forms, exact coverage, scipy as the oracle, and what is refused."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from scipy.optimize import minimize_scalar

from advpure.base.errors import BadInput
from advpure.statistics.rates import (
    Interval,
    clopper_pearson,
    clopper_pearson_lower,
    mean_interval,
    paired_difference,
    randomized_summary,
    rate_of_means,
    wilson,
)

Z = float(scipy_stats.norm.ppf(0.975))
COUNTS = [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (1, 100), (50, 100), (999, 1000)]


# --- closed forms -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_clopper_pearson_at_the_ends(n: int) -> None:
    assert clopper_pearson_lower(n, n, 0.001) == pytest.approx(0.001 ** (1 / n), rel=1e-11)
    assert clopper_pearson_lower(0, n, 0.001) == 0.0
    none = clopper_pearson(0, n)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-9)
    assert clopper_pearson(n, n).high == 1.0


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_wilson_at_the_ends(n: int) -> None:
    none, all_of_them = wilson(0, n), wilson(n, n)
    assert (none.low, all_of_them.high) == (0.0, 1.0)
    assert none.high == pytest.approx(Z**2 / (n + Z**2), rel=1e-12)
    assert all_of_them.low == pytest.approx(n / (n + Z**2), rel=1e-12)


def test_mean_of_two_values() -> None:
    # With one degree of freedom the quantile is that of Cauchy: tan(0.475 pi).
    found = mean_interval([1.0, 3.0])
    reach = math.tan(0.475 * math.pi)
    assert found.value == 2.0
    assert found.std == pytest.approx(math.sqrt(2.0), rel=1e-15)
    assert found.interval == pytest.approx((2.0 - reach, 2.0 + reach), rel=1e-9)


def test_one_value_has_no_spread() -> None:
    found = mean_interval([0.25])
    assert (found.value, found.n, found.std, found.interval) == (0.25, 1, None, None)


def test_constant_values_have_a_point_interval() -> None:
    assert mean_interval([2.0] * 5).interval == Interval(2.0, 2.0)


@pytest.mark.parametrize("n", [1, 5, 200])
def test_no_discordant_pair_gives_the_bounds_of_an_unseen_event(n: int) -> None:
    found = paired_difference([1] * n, [1] * n)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.high == pytest.approx(Z**2 / (n + Z**2), abs=1e-10)
    assert found.low == -found.high


# --- oracles ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_rates_agree_with_scipy(successes: int, n: int, level: float) -> None:
    test = scipy_stats.binomtest(successes, n)
    for found, theirs in (
        (wilson(successes, n, level), test.proportion_ci(level, method="wilson")),
        (clopper_pearson(successes, n, level), test.proportion_ci(level, method="exact")),
    ):
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=2e-11)
        assert (found.value, found.n) == (successes / n, n)
    one_sided = scipy_stats.binomtest(successes, n, alternative="greater")
    bound = one_sided.proportion_ci(level, method="exact").low
    assert clopper_pearson_lower(successes, n, 1 - level) == pytest.approx(bound, abs=2e-11)


def test_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=17)
    theirs = scipy_stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert mean_interval(values, 0.9).interval == pytest.approx(tuple(theirs), rel=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (0, 1, 44), (5, 5, 10), (30, 0, 40)])
def test_both_ends_of_a_difference_have_score_z(b: int, c: int, n: int) -> None:
    first = [1] * b + [0] * (n - b)
    second = [0] * b + [1] * c + [0] * (n - b - c)
    found = paired_difference(first, second)
    for end, sign in ((found.low, 1.0), (found.high, -1.0)):
        # The likeliest multinomial with difference `end`, found by brute force.
        def cost(q: float, end: float = end) -> float:
            parts = np.array([q + end, q, 1 - 2 * q - end])
            return -float(scipy_stats.multinomial.logpmf([b, c, n - b - c], n, parts))

        bounds = (max(0.0, -end) + 1e-12, (1 - end) / 2 - 1e-12)
        q = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        score = (b - c - n * end) / math.sqrt(n * (2 * q + end - end**2))
        assert score == pytest.approx(sign * Z, rel=1e-4)
    exact = scipy_stats.binomtest(b, b + c).pvalue
    assert found.p_value == pytest.approx(exact, rel=1e-12)


def test_a_difference_excludes_zero_exactly_when_mcnemar_does() -> None:
    n = 12
    for b, c in product(range(n + 1), repeat=2):
        if not 0 < b + c <= n:
            continue
        found = paired_difference([1] * b + [0] * (n - b), [0] * b + [1] * c + [0] * (n - b - c))
        assert -1.0 <= found.low <= found.value <= found.high <= 1.0
        assert (found.low > 0.0) == ((b - c) / math.sqrt(b + c) > Z)
        assert (found.high < 0.0) == ((c - b) / math.sqrt(b + c) > Z)


# --- coverage ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 30])
def test_clopper_pearson_covers_every_rate_exactly(n: int) -> None:
    """The coverage is a finite sum, so no simulation and no tolerance."""
    rates = np.linspace(0.001, 0.999, 499)
    weights = scipy_stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    found = [clopper_pearson(k, n, 0.9) for k in range(n + 1)]
    covered = np.array([[rate.low <= p <= rate.high for p in rates] for rate in found])
    assert (weights * covered).sum(axis=0).min() >= 0.9
    lower = np.array([clopper_pearson_lower(k, n, 0.01) for k in range(n + 1)])
    wrong = (weights * (lower[:, None] > rates)).sum(axis=0).max()
    assert 0.004 < wrong <= 0.01


def test_wilson_covers_at_its_level_on_average() -> None:
    n, rates = 30, np.linspace(0.001, 0.999, 999)
    weights = scipy_stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    covered = np.array(
        [[r.low <= p <= r.high for p in rates] for r in map(wilson, range(n + 1), [n] * (n + 1))]
    )
    assert (weights * covered).sum(axis=0).mean() == pytest.approx(0.95, abs=0.005)


def test_paired_difference_covers_near_its_level() -> None:
    """An exact sum over all tables of n = 20; Tango reports coverage close to the level."""
    n = 20
    tables = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    found = [
        paired_difference([1] * b + [0] * (n - b), [0] * b + [1] * c + [0] * (n - b - c))
        for b, c in tables
    ]
    counts = [(b, c, n - b - c) for b, c in tables]
    coverages = []
    for p, q in [(0.1, 0.1), (0.3, 0.1), (0.4, 0.4), (0.5, 0.05), (0.2, 0.2)]:
        weights = scipy_stats.multinomial.pmf(counts, n, [p, q, 1 - p - q])
        hit = [one.low <= p - q <= one.high for one in found]
        coverages.append(float(weights @ np.array(hit)))
    assert min(coverages) > 0.93
    assert max(coverages) < 0.98


@pytest.mark.slow
def test_student_covers_at_its_level() -> None:
    """Simulated; fails by chance with probability 1e-5 (two-sided, on the count)."""
    trials, rng = 20_000, np.random.default_rng(1)
    data = rng.normal(5.0, 3.0, size=(trials, 4))
    hits = 0
    for row in data:
        interval = mean_interval(row, 0.9).interval
        assert interval is not None
        hits += interval.low <= 5.0 <= interval.high
    count = scipy_stats.binom(trials, 0.9)
    assert count.ppf(0.5e-5) <= hits <= count.ppf(1 - 0.5e-5)


def test_the_mean_over_draws_covers_at_least_its_level() -> None:
    """Simulated; one-sided, fails by chance with probability 1e-5 where coverage is 0.95.

    Each image has its own rate of right draws, drawn from Beta(2, 1): true mean 2/3.
    """
    trials, images, draws = 4000, 50, 5
    rng = np.random.default_rng(2)
    shares = rng.binomial(draws, rng.beta(2.0, 1.0, size=(trials, images))) / draws
    found = [rate_of_means(row) for row in shares]
    hits = sum(rate.low <= 2 / 3 <= rate.high for rate in found)
    assert hits >= scipy_stats.binom.ppf(1e-5, trials, 0.95)
    assert found[0].n == images


def test_whole_shares_give_the_rate_of_single_shots() -> None:
    shares = [1.0, 0.0, 1.0, 1.0]
    assert rate_of_means(shares)[:4] == pytest.approx(wilson(3, 4)[:4], rel=1e-15)


# --- random defenses --------------------------------------------------------------------


def test_the_four_accuracies_of_a_random_defense() -> None:
    labels = [1, 1, 1, 1]
    predictions = [
        [1, 1, 1, 1],  # always right
        [1, 0, 1, 0],  # tie between 0 and 1: goes to 0, wrong
        [0, 1, 1, 2],  # first wrong, majority right
        [2, 2, 0, 2],  # always wrong
    ]
    summary = randomized_summary(predictions, labels)
    assert summary.one_shot.value == 0.5
    assert summary.mean.value == pytest.approx((4 + 2 + 2 + 0) / 16)
    assert summary.worst.value == 0.25
    assert summary.majority.value == 0.5
    assert {rate.n for rate in summary} == {4}
    for rate in summary:
        assert rate.low < rate.value < rate.high


def test_a_tie_that_includes_the_label_as_lowest_counts() -> None:
    assert randomized_summary([[3, 1, 3, 1]], [1]).majority.value == 1.0
    assert randomized_summary([[3, 1, 3, 1]], [3]).majority.value == 0.0


def test_one_draw_makes_all_four_equal() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 10, size=40)
    predictions = np.where(generator.random(40) < 0.7, labels, 0)[:, None]
    values = [rate[:4] for rate in randomized_summary(predictions, labels)]
    assert all(value == pytest.approx(values[0], rel=1e-15) for value in values)


def test_tensors_and_mode_agree_with_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(0, 4, (200, 7), generator=generator)
    labels = torch.randint(0, 4, (200,), generator=generator)
    mode = scipy_stats.mode(predictions.numpy(), axis=1).mode
    expected = float((mode == labels.numpy()).mean())
    summary = randomized_summary(predictions, labels)
    assert summary.majority.value == expected
    assert summary.worst.value <= summary.mean.value <= 1.0


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [wilson, clopper_pearson])
@pytest.mark.parametrize(
    ("successes", "n"),
    [(0, 0), (1, -1), (-1, 5), (6, 5), (2.5, 5), (math.nan, 5), (1, math.nan), (1, 2.5)],
)
def test_impossible_counts_are_refused(rate: Any, successes: Any, n: Any) -> None:
    with pytest.raises(BadInput, match=r"(n|successes) = "):
        rate(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1, math.nan])
def test_impossible_levels_are_refused(level: float) -> None:
    for call in (
        lambda: wilson(1, 2, level),
        lambda: clopper_pearson(1, 2, level),
        lambda: clopper_pearson_lower(1, 2, level),
        lambda: mean_interval([1.0], level),
        lambda: rate_of_means([1.0], level),
        lambda: paired_difference([1], [0], level),
    ):
        with pytest.raises(BadInput, match="outside"):
            call()


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0]]])
def test_absent_or_unusable_values_are_refused(values: Any) -> None:
    for estimate in (mean_interval, rate_of_means):
        with pytest.raises(BadInput, match="value"):
            estimate(values)


def test_shares_and_pairs_are_checked() -> None:
    with pytest.raises(BadInput, match=r"share 1\.5"):
        rate_of_means([0.5, 1.5])
    with pytest.raises(BadInput, match="not pairs"):
        paired_difference([1], [1, 0])
    with pytest.raises(BadInput, match="not all 0 or 1"):
        paired_difference([0.5], [1])


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        ([[1, 2]], [1, 2]),
        ([1, 2], [1, 2]),
        (np.zeros((0, 3), int), np.zeros(0, int)),
        (np.zeros((3, 0), int), np.zeros(3, int)),
        ([[0.5, 0.5]], [1]),
        ([[True]], [1]),
    ],
)
def test_unusable_predictions_are_refused(predictions: Any, labels: Any) -> None:
    with pytest.raises(BadInput, match="predictions"):
        randomized_summary(predictions, labels)
