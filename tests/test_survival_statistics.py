"""Kaplan-Meier by hand and by the definition; the zero-inflated Gaussian against its own draws."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest, norm

from advpure.analysis.survival.fit import SurvivalResult
from advpure.analysis.survival.minimum_radius import RadiusRow
from advpure.base.errors import BadInput
from advpure.statistics.estimates import plain
from advpure.statistics.kaplan_meier import kaplan_meier
from advpure.statistics.zero_inflated import fit_zero_inflated

Array = npt.NDArray[np.float64]
ALPHA = 1e-5
TRUTH = {"a": 0.9, "m": 0.04, "s": 0.015}


def generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[key, 7]))


def draw(
    n: int, key: int, *, a: float, m: float, s: float, end: float = math.inf, width: float = 0.0
) -> tuple[Array, Array]:
    """Draw n minimum perturbations as lower and upper ends: in bins of a width, seen up to end."""
    g = generator(key)
    values = np.where(g.random(n) < a, np.maximum(m + s * g.standard_normal(n), 0.0), 0.0)
    low = high = values
    if width:
        low = np.floor(values / width) * width
        high = np.where(values > 0.0, low + width, 0.0)
    censored = values > end
    return np.where(censored, end, low), np.where(censored, math.inf, high)


def survival(eps: Any, *, a: float, m: float, s: float) -> Any:
    return a * (1.0 - ndtr((eps - m) / s))


# --- Kaplan-Meier ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", range(4))
def test_steps_and_bands_follow_from_the_definition(key: int) -> None:
    g = generator(key)
    n = 40
    times, ends = g.gamma(2.0, 1.0, n).round(1), g.gamma(3.0, 1.0, n).round(1)
    observed = times <= ends
    values = np.minimum(times, ends)
    curve = kaplan_meier(values, observed, level=0.9)
    product, hazard = 1.0, 0.0
    for eps in np.unique(values):
        estimate = curve.at(float(eps))
        risk, events = int((values >= eps).sum()), int(((values == eps) & observed).sum())
        product *= 1.0 - events / risk
        assert estimate.value == pytest.approx(product, abs=1e-12)
        if 0.0 < product < 1.0:
            hazard += events / (risk * (risk - events))
            reach = math.exp(norm.ppf(0.95) * math.sqrt(hazard) / -math.log(product))
            assert estimate.low == pytest.approx(product**reach, abs=1e-10)
            assert estimate.high == pytest.approx(product ** (1.0 / reach), abs=1e-10)


def test_a_textbook_table() -> None:
    # 6-MP remission times of Freireich et al. 1963, S and the standard error of the product limit.
    weeks = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    relapse = [True] * 9 + [False] * 12
    curve = kaplan_meier(weeks, relapse)
    steps = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {t: round(curve.at(t).value, 3) for t in steps} == steps
    assert (curve.n, curve.last, curve.ends) == (21, 35.0, False)
    with pytest.raises(BadInput, match="beyond 35, where the search ended"):
        curve.at(35.5)


def test_between_events_nothing_changes_and_the_event_counts_at_once() -> None:
    curve = kaplan_meier([0.1, 0.2, 0.3, 0.4], [True, True, False, True])
    just = np.nextafter(0.2, 0.0)
    assert [curve.at(e).value for e in (0.0, 0.1, just, 0.2, 0.35)] == [1, 0.75, 0.75, 0.5, 0.5]
    assert curve.at(0.4)[1:3] == (0.0, 0.0)
    assert curve.at(0.4).high == curve.at(0.3).high  # one was censored
    assert curve.at(9.0).value == 0.0


def test_before_the_first_event_the_band_is_exact() -> None:
    curve = kaplan_meier([0.2] * 20 + [0.1] * 5, [True] * 20 + [False] * 5)
    assert curve.at(0.05)[1:] == (1.0, pytest.approx(0.025 ** (1 / 25)), 1.0)
    assert curve.at(0.15).low == pytest.approx(binomtest(20, 20).proportion_ci().low)


def test_where_nothing_survives_the_band_is_exact() -> None:
    wrong = kaplan_meier([0.0] * 40)  # a classifier that is never right
    assert wrong.at(0.1)[1:] == (0.0, 0.0, pytest.approx(binomtest(0, 40).proportion_ci().high))
    together = kaplan_meier([0.1] * 5 + [0.2] * 35)
    assert together.at(0.2).high == pytest.approx(binomtest(0, 40).proportion_ci().high)
    # Those that were lost to sight may have survived: only the earlier end is known.
    lost = kaplan_meier([0.1, 0.15, *[0.2] * 3], [True, False, True, True, True])
    assert lost.at(0.2).high == lost.at(0.15).high


@pytest.mark.parametrize("end", [math.inf, 0.05])
def test_survival_and_bands_only_fall(end: float) -> None:
    low, high = draw(200, 3, **TRUTH, end=end)
    curve = kaplan_meier(low, np.isfinite(high))
    grid = np.linspace(0.0, min(end, float(low.max())), 101)
    for column in (1, 2, 3):
        values = [curve.at(float(eps))[column] for eps in grid]
        assert all(a >= b for a, b in itertools.pairwise(values))
    for eps in grid:
        found = curve.at(float(eps))
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
        assert found.value == pytest.approx(
            (low > eps).mean() if eps < end else (low == end).mean()
        )


def covered(hits: int, runs: int, level: float) -> bool:
    return binomtest(hits, runs, level).pvalue > ALPHA


@pytest.mark.slow
def test_kaplan_meier_bands_cover_at_their_level() -> None:
    runs, hits, points = 600, {0.02: 0, 0.04: 0, 0.055: 0}, 100
    for key in range(runs):
        g = generator(1000 + key)
        values = np.where(g.random(points) < 0.9, 0.04 + 0.015 * g.standard_normal(points), 0.0)
        ends = g.uniform(0.02, 0.12, points)
        values = np.maximum(values, 0.0)
        curve = kaplan_meier(np.minimum(values, ends), values <= ends)
        for eps in hits:
            found = curve.at(eps)
            hits[eps] += found.low <= survival(eps, **TRUTH) <= found.high
    assert all(covered(count, runs, 0.95) for count in hits.values()), hits


# --- Zero-inflated Gaussian -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [{}, {"end": 0.045}, {"width": 16 / 255 / 1024}, {"end": 0.05, "width": 0.004}],
    ids=["exact", "censored", "intervals", "both"],
)
@pytest.mark.parametrize(
    "truth", [TRUTH, {"a": 0.97, "m": 0.02, "s": 0.02}], ids=["far from 0", "cut at 0"]
)
def test_ten_thousand_draws_give_the_parameters_back(
    truth: dict[str, float], shown: dict[str, float]
) -> None:
    fit = fit_zero_inflated(*draw(10_000, 5, **truth, **shown), level=1 - ALPHA)
    assert fit is not None
    assert fit.n == 10_000
    assert fit.mean_interval.low <= truth["m"] <= fit.mean_interval.high
    assert fit.std_interval.low <= truth["s"] <= fit.std_interval.high
    assert fit.mean == pytest.approx(truth["m"], abs=0.002)
    assert fit.std == pytest.approx(truth["s"], rel=0.08)
    assert fit.plateau == pytest.approx(truth["a"], abs=0.03)
    for eps in (0.0, 0.01, 0.03, 0.06):
        found = fit.at(eps)
        assert found.low <= survival(eps, **truth) <= found.high
        assert found.high - found.low < 0.06


def test_far_from_zero_the_estimates_are_accuracy_mean_and_deviation() -> None:
    values = draw(500, 1, a=0.8, m=1.0, s=0.1)[0]
    fit = fit_zero_inflated(values)
    positive = values[values > 0]
    assert fit is not None
    assert fit.plateau == pytest.approx((values > 0).mean(), abs=1e-9)
    assert fit.mean == pytest.approx(positive.mean(), abs=1e-6)
    assert fit.std == pytest.approx(positive.std(), abs=1e-6)
    # Covariance of normal estimates: s^2 / n and, of log s, 1 / (2 n); the maximum in closed form.
    n = len(positive)
    assert fit.covariance[0][0] == pytest.approx(positive.var() / n, rel=1e-3)
    assert fit.covariance[1][1] == pytest.approx(1 / (2 * n), rel=1e-3)
    share = n / 500
    best = n * math.log(share) + (500 - n) * math.log(1 - share)
    scaled = norm.logpdf(positive / positive.std(), fit.mean / positive.std(), 1.0).sum()
    assert fit.log_likelihood == pytest.approx(best + scaled, abs=1e-5)


@pytest.mark.parametrize("factor", [1.0, 255.0])
def test_the_unit_does_not_matter(factor: float) -> None:
    low, high = draw(300, 2, **TRUTH, end=0.05, width=0.001)
    one, other = fit_zero_inflated(low, high), fit_zero_inflated(factor * low, factor * high)
    assert one is not None
    assert other is not None
    assert other.mean == pytest.approx(factor * one.mean, rel=1e-6)
    assert other.std == pytest.approx(factor * one.std, rel=1e-5)
    assert other.at(0.03 * factor)[1:] == pytest.approx(one.at(0.03)[1:], abs=1e-5)


@pytest.mark.parametrize("eps", [0.0, 0.02, 0.05])
def test_the_fit_is_the_printed_formula_within_its_band(eps: float) -> None:
    fit = fit_zero_inflated(*draw(200, 4, **TRUTH))
    assert fit is not None
    found = fit.at(eps)
    assert found.value == pytest.approx(survival(eps, a=fit.plateau, m=fit.mean, s=fit.std))
    assert 0.0 <= found.low < found.value < found.high <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "a", "shown"),
    [
        pytest.param(200, 0.9, {"end": 0.05, "width": 0.001}, id="censored"),
        pytest.param(100, 0.97, {}, id="few zeros"),
    ],
)
def test_bands_cover_at_their_level(points: int, a: float, shown: dict[str, float]) -> None:
    truth = {**TRUTH, "a": a}
    runs, hits = 300, dict.fromkeys((0.01, 0.03, 0.045, "m", "s"), 0)
    for key in range(runs):
        fit = fit_zero_inflated(*draw(points, 2000 + key, **truth, **shown))
        assert fit is not None
        for eps in (0.01, 0.03, 0.045):
            found = fit.at(eps)
            hits[eps] += found.low <= survival(eps, **truth) <= found.high
        hits["m"] += fit.mean_interval.low <= truth["m"] <= fit.mean_interval.high
        hits["s"] += fit.std_interval.low <= truth["s"] <= fit.std_interval.high
    assert all(covered(count, runs, 0.95) for count in hits.values()), hits


@pytest.mark.parametrize("count", [2, 5, 20])
def test_far_beyond_the_mean_survival_is_nothing_and_its_band_is_finite(count: int) -> None:
    radii = np.random.default_rng(count).normal(0.0054, 0.0015, count).clip(1e-4)
    fit = fit_zero_inflated(radii)
    assert fit is not None
    for eps in np.linspace(0.0, 1.0, 41):
        found = fit.at(float(eps))
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
        assert found.value == pytest.approx(float(fit.survival(eps)), rel=1e-9, abs=1e-300)


def test_a_classifier_without_errors_still_has_a_band_at_zero() -> None:
    fit = fit_zero_inflated(draw(50, 0, a=1.0, m=0.04, s=0.01)[0])
    assert fit is not None
    assert fit.plateau == 1.0
    found = fit.at(0.0)
    assert found.low < 0.95 < found.value <= found.high == 1.0


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ([0.0] * 5, None),  # nothing is right
        ([0.1] * 5, [math.inf] * 5),  # nothing is fooled
        ([0.0, 0.1, 0.1], [0.0, 0.2, math.inf]),  # one image is
        ([0.0, 0.1, 0.1], None),  # no spread
    ],
)
def test_too_little_gives_no_fit(low: list[float], high: list[float] | None) -> None:
    assert fit_zero_inflated(low, high) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: kaplan_meier([]), "no list of pairs"),
        (lambda: kaplan_meier([0.1], [True, False]), "no list of pairs"),
        (lambda: kaplan_meier([-0.1]), "negative or not finite"),
        (lambda: kaplan_meier([0.1], level=95), "level 95 is not above 0 and below 1"),
        (lambda: kaplan_meier([0.1]).at(-1.0), "epsilon -1"),
        (lambda: fit_zero_inflated([]), "no list of pairs"),
        (lambda: fit_zero_inflated([0.2], [0.1]), "out of order"),
        (lambda: fit_zero_inflated([-0.2], [0.1]), "negative"),
        (lambda: fit_zero_inflated([0.1], [0.2], level=0), "level 0 is outside"),
        (lambda: SurvivalResult(()), "has no rows"),
    ],
)
def test_what_has_no_survival_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        wrong()


# --- The result -----------------------------------------------------------------------------------


def row(i: int, lower: float, upper: float | None, misses: int = 0) -> RadiusRow:
    return RadiusRow(i, lower, upper, 11, misses, 100, 90, False)


def result() -> SurvivalResult:
    rows = [row(3, 0.3, None), row(0, 0.0, 0.0), row(1, 0.1, 0.12, 2), row(2, 0.2, 0.21)]
    return SurvivalResult(tuple(rows), {"top": 0.3})


def test_the_result_counts_what_it_should() -> None:
    found = result()
    assert (found.n, found.censored, found.misses) == (4, 1, 2)
    assert found.accuracy.value == 0.75
    assert found.resolution == pytest.approx(0.02)
    assert found.median.value == 0.12
    assert [found.at(eps).value for eps in (0.0, 0.11, 0.12, 0.3)] == [0.75, 0.75, 0.5, 0.25]
    with pytest.raises(BadInput, match=r"beyond 0\.3"):
        found.at(0.31)
    with pytest.raises(BadInput, match="has an image twice"):
        SurvivalResult((row(1, 0.1, 0.2), row(1, 0.1, 0.3)))


def test_json_is_flat_and_absent_where_unknown() -> None:
    values = plain(result().tree([0.11, 0.4]))
    assert values["censored"] == 1
    inside, beyond = values["survival"]
    assert (inside["eps"], inside["survival"]) == (0.11, 0.75)
    low, high = inside["survival_interval"]
    assert low < 0.75 < high
    assert 0.0 < inside["fitted"] < 1.0
    assert beyond["survival"] is None
    assert beyond["fitted"] < inside["fitted"]
    bare = plain(SurvivalResult((row(0, 0.3, None),)).tree([0.1]))
    assert (bare["mu"], bare["median"], bare["survival"][0]["survival"]) == (None, None, 1.0)


def test_the_gap_is_the_largest_distance_between_steps_and_fit() -> None:
    rows = [row(i, u, u) for i, u in enumerate(draw(300, 9, **TRUTH)[0].tolist())]
    found = SurvivalResult(tuple(rows))
    assert found.fit is not None
    assert found.gap is not None
    grid = np.linspace(0.0, 0.1, 20_001)
    steps = np.array([(found.upper > eps).mean() for eps in grid])
    dense = float(np.abs(steps - found.fit.survival(grid)).max())
    assert dense <= found.gap + 1e-12
    assert found.gap == pytest.approx(dense, abs=1e-3)
    assert found.gap < 0.08
